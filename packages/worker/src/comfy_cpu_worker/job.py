"""A job's document, read once: from JSON that anybody may have written to frozen dataclasses. Opens nothing.

The document is a superset of what existing workers take; unknown keys are ignored. An error names the field's path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from comfy_cpu_worker.bucket import PRESIGN_S, BadBucket, S3Target, s3_target
from comfy_cpu_worker.errors import JobRejected, JobTooLarge
from comfy_cpu_worker.fields import (
    is_number,
    is_url,
    read_flag,
    read_milliseconds,
    read_object,
    read_optional_object,
    read_text,
    read_whole,
    read_word,
    shown,
)

__all__ = [
    "Delivery",
    "JobInput",
    "JobLimits",
    "NamedFile",
    "OutputOptions",
    "PictureFormat",
    "parse_job",
]

Delivery = Literal["auto", "base64", "s3"]
PictureFormat = Literal["jpeg", "webp", "png"]

_PRINTABLE = re.compile(r"[!-~]+")
_CONTROL = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True)
class JobLimits:
    """What a job may ask for.

    Attributes:
        files: files of a job, of every kind together.
        file_bytes: bytes of one file, decoded.
        total_bytes: bytes of all files of a job, decoded.
        urls: whether files may be named by URL.
        timeout_s: seconds that a job may take, unless it says otherwise.
        max_timeout_s: the most that it may say; more counts as this.
    """

    files: int = 64
    file_bytes: int = 64 * 2**20
    total_bytes: int = 256 * 2**20
    urls: bool = False
    timeout_s: float = 600.0
    max_timeout_s: float = 86400.0


@dataclass(frozen=True)
class NamedFile:
    """A file of a job, as it came: either its text (base64 or a data URI) or where it is.

    Attributes:
        path: the field that holds it, for messages: ``input.images[0].image``.
        name: under which the workflow names it; None for a file of `JobInput.inputs` without one.
        data: base64 or a data URI.
        url: where to fetch it.
    """

    path: str
    name: str | None
    data: str | None = field(default=None, repr=False)
    url: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class OutputOptions:
    """How a job wants its outputs.

    Attributes:
        delivery: ``auto``: S3 where the job or the worker has a bucket, else base64.
        previews: whether to deliver temporary pictures; ``auto``: only if there is nothing else.
        format: what pictures are turned into; None leaves them as they are.
        quality: 1 to 100, for JPEG and WebP; None for the worker's.
    """

    delivery: Delivery = "auto"
    previews: Literal["auto"] | bool = "auto"
    format: PictureFormat | None = None
    quality: int | None = None


@dataclass(frozen=True)
class JobInput:
    """A job, checked as far as its document alone allows.

    Attributes:
        workflow: in API or UI format; or the name of a workflow that is baked into the image.
        files: those that the workflow names already (``images`` and ``files``).
        inputs: ``NODE.INPUT`` → the file for it.
        values: ``NODE.INPUT`` → the value for it (``set``).
        convert: whether to convert the workflow for a CPU.
        timeout_s: seconds that the job may take.
        outputs: see `OutputOptions`.
        s3: the job's own bucket, or None.
        comfy_org_api_key: for ComfyUI's paid nodes; secret.
        refresh_worker: whether to start a fresh process behind it.
        idempotency_key: two submissions with the same key are one job.
        ttl_s: seconds that it may live, waiting and running; None for the queue's default.
        webhook: where its last status goes; may hold secrets.
    """

    workflow: Mapping[str, Any] | str = field(repr=False)
    files: tuple[NamedFile, ...] = ()
    inputs: Mapping[str, NamedFile] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    convert: bool = True
    timeout_s: float = JobLimits.timeout_s
    outputs: OutputOptions = OutputOptions()
    s3: S3Target | None = None
    comfy_org_api_key: str | None = field(default=None, repr=False)
    refresh_worker: bool = False
    idempotency_key: str | None = None
    ttl_s: float | None = None
    webhook: str | None = field(default=None, repr=False)


def parse_job(document: Any, limits: JobLimits) -> JobInput:
    """Read a job's document: ``{"input": {…}, "s3Config"?, "policy"?, "webhook"?}``.

    Raises:
        JobRejected: a field makes no sense; the message names it.
        JobTooLarge: more files, or larger ones, than `limits` allow.
    """
    job = read_object(document, "the job")
    given = _input(job.get("input"))
    policy = read_optional_object(job.get("policy"), "policy")
    files = (*_files(given.get("images"), "images", "image"), *_files(given.get("files"), "files", "data"))
    inputs = {
        key: _input_file(item, f"input.inputs[{json.dumps(key[:100])}]")
        for key, item in read_optional_object(given.get("inputs"), "input.inputs").items()
    }
    _check_files([*files, *inputs.values()], limits)
    return JobInput(
        workflow=_workflow(given.get("workflow")),
        files=files,
        inputs=inputs,
        values=read_optional_object(given.get("set"), "input.set"),
        convert=read_flag(given.get("convert"), "input.convert", default=True),
        timeout_s=_timeout(given.get("timeout"), policy.get("executionTimeout"), limits),
        outputs=_outputs(read_optional_object(given.get("outputs"), "input.outputs")),
        s3=_s3(given.get("s3"), job.get("s3Config")),
        comfy_org_api_key=read_text(given.get("comfy_org_api_key"), "input.comfy_org_api_key"),
        refresh_worker=read_flag(given.get("refresh_worker"), "input.refresh_worker", default=False),
        idempotency_key=_key(given.get("idempotency_key")),
        ttl_s=read_milliseconds(policy.get("ttl"), "policy.ttl"),
        webhook=_url(job.get("webhook"), "webhook"),
    )


# Reading one field after the other ------------------------------------------------------------------------------------


def _input(value: Any) -> Mapping[str, Any]:
    if value is None:
        raise JobRejected("Please provide input", remedy='a job is {"input": {"workflow": …}}')
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise JobRejected("Invalid JSON format in input") from None
    return read_object(value, "input")


def _workflow(value: Any) -> Mapping[str, Any] | str:
    if value is None or value in ("", {}):
        raise JobRejected(
            "Missing 'workflow' parameter", remedy="put the workflow, or the name of a baked one, under input.workflow"
        )
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise JobRejected("input.workflow is not JSON") from None
    return value if isinstance(value, str) else read_object(value, "input.workflow")


def _files(value: Any, field_name: str, data_key: str) -> tuple[NamedFile, ...]:
    complaint = f"'{field_name}' must be a list of objects with 'name' and '{data_key}' keys"
    if value is None:
        return ()
    if not isinstance(value, list):
        raise JobRejected(complaint)
    found = []
    for index, item in enumerate(value):
        path = f"input.{field_name}[{index}]"
        if not isinstance(item, Mapping) or "name" not in item or not {data_key, "url"} & set(item):
            raise JobRejected(f"{complaint} ({path})")
        name = item["name"]
        if not isinstance(name, str) or not name:
            raise JobRejected(f"{path}.name is {shown(name)}, not a file's name")
        found.append(_content(item, path, name, data_key))
    return tuple(found)


def _input_file(item: Any, path: str) -> NamedFile:
    if isinstance(item, str):
        return _file_of(item, path, None)
    if not isinstance(item, Mapping) or not {"data", "url"} & set(item):
        raise JobRejected(f"{path} is neither base64, a data URI, a URL nor an object with 'data' or 'url'")
    return _content(item, path, read_text(item.get("name"), f"{path}.name"), "data")


def _content(item: Mapping[str, Any], path: str, name: str | None, data_key: str) -> NamedFile:
    """The content of a file's object: under `data_key`, where a URL may stand too, or under ``url``."""
    there = [key for key in (data_key, "url") if item.get(key) is not None]
    if len(there) != 1:
        raise JobRejected(f"{path} needs either '{data_key}' or 'url'")
    file = _file_of(item[there[0]], f"{path}.{there[0]}", name)
    if there[0] == "url" and file.url is None:
        raise JobRejected(f"{file.path} is not a URL that begins with https:// or http://")
    return file


def _file_of(value: Any, path: str, name: str | None) -> NamedFile:
    if not isinstance(value, str):
        raise JobRejected(f"{path} is {shown(value)}, not text")
    return NamedFile(path, name, url=_url(value, path)) if is_url(value) else NamedFile(path, name, data=value)


def _check_files(files: list[NamedFile], limits: JobLimits) -> None:
    """What can be said before anything is decoded or fetched: base64 has 4 characters for 3 bytes."""
    if len(files) > limits.files:
        raise JobTooLarge(f"the job has {len(files)} files; at most {limits.files} are taken")
    total = 0
    for file in files:
        if file.url is not None and not limits.urls:
            raise JobRejected(
                f"{file.path} is a URL, and this worker fetches none",
                remedy="send the file in base64, or set COMFY_CPU_URLS=true where the worker runs",
            )
        # A little less than three quarters, and a header: there may be line breaks and a data URI's type in it.
        size = max(len(file.data or "") * 7 // 10 - 1024, 0)
        total += size
        if size > limits.file_bytes:
            raise JobTooLarge(f"{file.path} is too large: at most {limits.file_bytes:,} bytes are taken")
    if total > limits.total_bytes:
        raise JobTooLarge(f"the job's files are too large: at most {limits.total_bytes:,} bytes in all are taken")


def _outputs(given: Mapping[str, Any]) -> OutputOptions:
    previews: Any = "auto" if given.get("previews") is None else given["previews"]
    if previews != "auto" and not isinstance(previews, bool):
        raise JobRejected(f'input.outputs.previews is {shown(previews)}, not true, false or "auto"')
    return OutputOptions(
        delivery=read_word(given.get("delivery"), "input.outputs.delivery", get_args(Delivery)) or "auto",
        previews=previews,
        format=read_word(given.get("format"), "input.outputs.format", get_args(PictureFormat)),
        quality=read_whole(given.get("quality"), "input.outputs.quality", 1, 100),
    )


#: Our name for a setting of S3 → RunPod's, under ``s3Config``.
_S3_FIELDS = {
    "endpoint_url": "endpointUrl",
    "bucket": "bucketName",
    "access_key_id": "accessId",
    "secret_access_key": "accessSecret",
}


def _s3(own: Any, config: Any) -> S3Target | None:
    if own is not None:
        path, names = "input.s3", {name: name for name in _S3_FIELDS}
    elif config is not None:
        path, names = "s3Config", _S3_FIELDS
    else:
        return None
    given = read_object(own if own is not None else config, path)
    values = {ours: read_text(given.get(name), f"{path}.{name}") for ours, name in names.items()}
    try:
        return s3_target(
            **values,
            region=read_text(given.get("region"), f"{path}.region"),
            prefix=read_text(given.get("prefix"), f"{path}.prefix") or "",
            presign_s=read_whole(given.get("presign_s"), f"{path}.presign_s", 1, PRESIGN_S) or PRESIGN_S,
        )
    except BadBucket as error:
        raise JobRejected(f"{path}.{names.get(error.setting, error.setting)} {error}") from None


def _timeout(seconds: Any, milliseconds: Any, limits: JobLimits) -> float:
    given = read_milliseconds(milliseconds, "policy.executionTimeout")
    wishes = [] if given is None else [given]
    if seconds is not None:
        if not is_number(seconds) or not seconds > 0:
            raise JobRejected(f"input.timeout is {shown(seconds)}, not a number of seconds above 0")
        wishes.append(float(seconds))
    return min(*wishes, limits.max_timeout_s) if wishes else limits.timeout_s


def _key(value: Any) -> str | None:
    text = read_text(value, "input.idempotency_key")
    if text is not None and (len(text) > 255 or not _PRINTABLE.fullmatch(text)):
        raise JobRejected("input.idempotency_key is not up to 255 printable characters without spaces")
    return text


def _url(value: Any, path: str) -> str | None:
    text = read_text(value, path)
    if text is not None and (len(text) > 4096 or not is_url(text) or _CONTROL.search(text)):
        raise JobRejected(f"{path} is not a URL that begins with https:// or http://")
    return text
