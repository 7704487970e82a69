"""From a job to what a back end runs: files decoded or fetched, their names checked, the workflow taken from the shelf.

Pictures are not decoded here: that is for the back end's process, which may die of a bomb without harm.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection

from comfy_cpu_client import FileInput
from comfy_cpu_core.names import check_name
from comfy_cpu_engine.paths import ANNOTATIONS
from comfy_cpu_worker.errors import JobRejected, JobTooLarge, UrlRefused
from comfy_cpu_worker.job import JobInput, JobLimits, NamedFile
from comfy_cpu_worker.shelf import Shelf
from comfy_cpu_worker.urls import UrlClient
from comfy_cpu_worker.wire import Deadline
from comfy_cpu_worker.work import Work

__all__ = ["check_files", "decode_base64", "prepare_work"]

_DATA_URI = re.compile(r"data:(?P<type>[\w.+/-]*)(?:;[\w.+-]+=[^;,]*)*(?P<base64>;base64)?,", re.IGNORECASE | re.ASCII)

#: How files begin → the suffix of a name for one that has none. A suffix is what some nodes go by.
_MAGIC = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), ".png"),
    (re.compile(rb"\xff\xd8\xff"), ".jpg"),
    (re.compile(rb"GIF8"), ".gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), ".webp"),
    (re.compile(rb"RIFF....WAVE", re.DOTALL), ".wav"),
    (re.compile(rb"....ftyp", re.DOTALL), ".mp4"),
)


def check_files(job: JobInput, limits: JobLimits) -> None:
    """Check the files that a job brings along, before it waits. Those by URL are looked at when they are fetched.

    Raises:
        JobRejected, JobTooLarge: a file or a name is bad; the message names the field.
    """
    reader = _Reader(limits, None, Deadline(job.timeout_s))
    names: set[str] = set()
    for file in job.files:
        _check_file_name(file, names)
        names.add(str(file.name))
    for file in (*job.files, *job.inputs.values()):
        if file.url is None:
            reader.read(file)


def prepare_work(
    job_id: str,
    job: JobInput,
    *,
    shelf: Shelf,
    limits: JobLimits,
    urls: UrlClient | None,
    deadline: Deadline,
) -> Work:
    """Decode, fetch and check what a job brings. Blocks while it fetches.

    Args:
        urls: fetches files; None if files may not be named by URL.
        deadline: when the job has to be over.

    Raises:
        JobRejected, JobTooLarge: a file or a name is bad; the message names the field.
        UrlRefused, UrlFailed: a file could not be fetched.
        TimeoutError: the deadline has passed.
    """
    reader = _Reader(limits, urls, deadline)
    files: dict[str, bytes] = {}
    for file in job.files:
        _check_file_name(file, files)
        files[str(file.name)] = reader.read(file)[0]
    inputs = {}
    for key, file in job.inputs.items():
        data, name = reader.read(file)
        inputs[key] = FileInput(file.name or name or _made_up_name(key, data), data)
    workflow = shelf.get(job.workflow) if isinstance(job.workflow, str) else job.workflow
    return Work(
        job_id=job_id,
        workflow=workflow,
        files=files,
        inputs=inputs,
        values=job.values,
        convert=job.convert,
        timeout_s=deadline.left(job.timeout_s),
        comfy_org_api_key=job.comfy_org_api_key,
    )


def decode_base64(text: str, path: str) -> bytes:
    """The bytes of base64, or of a data URI.

    White space is allowed anywhere. Anything else that is not base64 is an error: what is skipped without a word would
    be another file than the one that was sent.

    Raises:
        JobRejected: it is something else; the message begins with `path`.
    """
    if text[:5].lower() == "data:":
        found = _DATA_URI.match(text)
        if found is None or found["base64"] is None:
            raise JobRejected(f"{path} is a data URI without base64", remedy="write data:image/png;base64,…")
        text = text[found.end() :]
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        problem = str(error) if isinstance(error, binascii.Error) else "it has other characters in it"
        raise JobRejected(f"{path} is not base64: {problem}", remedy="send the file's bytes in base64") from None
    if not data:
        raise JobRejected(f"{path} is empty")
    return data


class _Reader:
    """Reads files, and keeps count of them."""

    def __init__(self, limits: JobLimits, urls: UrlClient | None, deadline: Deadline) -> None:
        self._limits = limits
        self._urls = urls
        self._deadline = deadline
        self._left = limits.total_bytes

    def read(self, file: NamedFile) -> tuple[bytes, str]:
        """A file's bytes, and the name that its URL has for it, or an empty text."""
        if file.url is not None:
            data, name = self._fetch(file, file.url)
        else:
            data, name = decode_base64(file.data or "", file.path), ""
        if len(data) > self._limits.file_bytes:
            raise JobTooLarge(
                f"{file.path} has {len(data):,} bytes; at most {self._limits.file_bytes:,} are taken",
                remedy="send a smaller file",
            )
        self._left -= len(data)
        if self._left < 0:
            raise JobTooLarge(f"the job's files have more than {self._limits.total_bytes:,} bytes in all")
        return data, name

    def _fetch(self, file: NamedFile, url: str) -> tuple[bytes, str]:
        if self._urls is None:
            raise UrlRefused(f"{file.path} is a URL, and this worker fetches none", remedy="send the file in base64")
        try:
            download = self._urls.get(
                url, max_bytes=min(self._limits.file_bytes, max(self._left, 0)), deadline=self._deadline
            )
        except JobRejected as error:
            raise type(error)(f"{file.path}: {error}", remedy=error.remedy) from None
        if not download.data:
            raise JobRejected(f"{file.path} is empty")
        return download.data, download.name


def _check_file_name(file: NamedFile, taken: Collection[str]) -> None:
    where = f"{file.path.rpartition('.')[0]}.name"
    name = str(file.name)
    remedy = "use a plain name such as photo.png, with subfolders as faces/photo.png"
    try:
        check_name(name)
    except ValueError as error:
        raise JobRejected(f"{where}: {name!r:.100} {error}", remedy=remedy) from None
    if name.endswith(tuple(f"[{annotation}]" for annotation in ANNOTATIONS)):
        raise JobRejected(f"{where}: {name!r:.100} ends in what ComfyUI reads as a folder", remedy=remedy)
    if name in taken:
        raise JobRejected(
            f"{where}: {name!r:.100} is the name of another file, too", remedy="give each a name of its own"
        )
    if any(other.startswith(f"{name}/") or name.startswith(f"{other}/") for other in taken):
        raise JobRejected(
            f"{where}: {name!r:.100} is at once a file and a folder", remedy="give each a name of its own"
        )


def _made_up_name(key: str, data: bytes) -> str:
    suffix = next((suffix for magic, suffix in _MAGIC if magic.match(data)), ".bin")
    return f"{key}{suffix}"
