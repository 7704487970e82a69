"""A result as the ``output`` of a worker's job, and back. Opens nothing.

::

    {"images": [item], "videos"?: [item], "audio"?: [item], "texts"?: [item], "files"?: [item],
     "status": "completed" | "success_no_images" | "blocked" | "failed" | "cancelled" | "timed_out",
     "errors"?: [str], "blocked"?: {"node_id", "class_type", "message"},
     "result": {…}}                                             `Result.to_json` without the outputs

    item: {"filename", "type": "base64" | "s3_url" | "text", "data", "index", "reencoded"?: {…},
           "node_id", "class_type", "kind", "subfolder", "folder", "media_type", "size", "sha256"}

``data`` always holds the payload. The way back also takes what other workers write: items with nothing but ``filename``,
``type`` and ``data``, bare base64 in ``images``, a picture under ``message``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import mimetypes
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Literal

from comfy_cpu_core.errors import InputError, TargetError
from comfy_cpu_core.results import NodeFailure, Output, Result, Status

__all__ = [
    "Parcel",
    "Received",
    "RemoteOutput",
    "choose_outputs",
    "describe_failure",
    "output_to_result",
    "read_output",
    "result_to_output",
]

#: Where an output stands, by its kind.
_GROUP_OF = {
    "image": "images",
    "mask": "images",
    "video": "videos",
    "audio": "audio",
    "text": "texts",
    "json": "texts",
    "file": "files",
}
#: What an output is whose item does not say, by where it stands.
_KIND_OF = {"images": "image", "videos": "video", "audio": "audio", "texts": "text", "files": "file"}

_STATUS_OF: Mapping[str, Status] = {
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
    "TIMED_OUT": "timed_out",
}
_CODE_OF: Mapping[Status, str] = {
    "blocked": "blocked",
    "failed": "failed",
    "cancelled": "cancelled",
    "timed_out": "deadline",
}
#: How the gates of existing node packs begin their messages.
_BLOCK_PREFIX = "Content blocked by "

_MAGIC = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
)


@dataclass(frozen=True)
class Parcel:
    """An output as it travels.

    Attributes:
        output: as it is delivered.
        url: where its bytes are; None if they stand in the document.
        original: what it was before it was made smaller; None if it is as the node made it.
    """

    output: Output
    url: str | None = field(default=None, repr=False)
    original: Output | None = None


@dataclass(frozen=True)
class RemoteOutput:
    """An output whose bytes are somewhere else.

    Attributes:
        url: where; whoever has it can fetch them.
        output: everything else that is known of it; without bytes.
        size, sha256: what the bytes must be, as far as the worker said so.
    """

    url: str = field(repr=False)
    output: Output
    size: int | None = None
    sha256: str | None = None

    def with_data(self, data: bytes) -> Output:
        """The output, with the bytes that were fetched.

        Raises:
            TargetError: they are not the ones that the worker put there.
        """
        _check_bytes(data, self.size, self.sha256, f"the output {self.output.filename!r}")
        return replace(self.output, data=data)


@dataclass(frozen=True)
class Received:
    """What came from a worker.

    Attributes:
        parts: the outputs, in the order in which they were made.
    """

    parts: tuple[Output | RemoteOutput, ...]
    _result: Result

    @property
    def remote(self) -> tuple[RemoteOutput, ...]:
        """The outputs that are to be fetched."""
        return tuple(part for part in self.parts if isinstance(part, RemoteOutput))

    def complete(self, fetched: Sequence[bytes] = ()) -> Result:
        """The result.

        Args:
            fetched: the bytes of each output of `remote`, in that order.

        Raises:
            TargetError: some are missing, or are not the ones that the worker put there.
        """
        if len(fetched) != len(self.remote):
            raise TargetError(
                f"{len(self.remote)} outputs of the worker are in a bucket and {len(fetched)} were fetched",
                remedy="fetch them from their URLs",
            )
        data = iter(fetched)
        outputs = [part.with_data(next(data)) if isinstance(part, RemoteOutput) else part for part in self.parts]
        return replace(self._result, outputs=tuple(outputs))


# There ----------------------------------------------------------------------------------------------------------------


def choose_outputs(result: Result, previews: Literal["auto"] | bool = "auto") -> list[Output]:
    """The outputs that are delivered: none unless the run completed.

    Args:
        previews: whether those in the folder ``temp`` are, too; ``auto``: only if there are no others.
    """
    if not result.ok:
        return []
    kept = [output for output in result.outputs if output.folder != "temp"]
    if previews is True or (previews == "auto" and not kept):
        return list(result.outputs)
    return kept


def result_to_output(
    result: Result, parcels: Sequence[Parcel] | None = None, *, previews: Literal["auto"] | bool = "auto"
) -> dict[str, Any]:
    """The document of a result.

    Args:
        parcels: how each of `choose_outputs` is delivered; None for all in base64.
        previews: see `choose_outputs`; without meaning where `parcels` are given.
    """
    if parcels is None:
        parcels = [Parcel(output) for output in choose_outputs(result, previews)]
    document: dict[str, Any] = {"images": []}
    for index, parcel in enumerate(parcels):
        document.setdefault(_GROUP_OF[parcel.output.kind], []).append(_item(parcel, index))
    document["status"] = "success_no_images" if result.ok and not parcels else result.status
    if not result.ok:
        document["errors"] = [describe_failure(failure) for failure in result.errors]
    if result.status == "blocked":
        document["blocked"] = _block(result)
    record = result.to_json()
    del record["outputs"]
    document["result"] = record
    return document


def describe_failure(failure: NodeFailure) -> str:
    """A failure as one line, with the node if there is one."""
    if failure.node_id is None:
        return failure.message
    node = f"node {failure.node_id} ({failure.class_type})" if failure.class_type else f"node {failure.node_id}"
    return f"{node}: {failure.message}"


def _item(parcel: Parcel, index: int) -> dict[str, Any]:
    output = parcel.output
    kind, data = _payload(parcel)
    item = {"filename": output.filename, "type": kind, "data": data, "index": index, **output.describe()}
    if parcel.original is not None:
        before = parcel.original.describe()
        item["reencoded"] = {name: before[name] for name in ("filename", "media_type", "size", "sha256")}
    return item


def _payload(parcel: Parcel) -> tuple[str, str]:
    if parcel.url is not None:
        return "s3_url", parcel.url
    if parcel.output.kind in {"text", "json"}:
        try:
            return "text", parcel.output.text
        except UnicodeDecodeError:
            pass
    return "base64", base64.b64encode(parcel.output.data).decode()


def _block(result: Result) -> dict[str, Any]:
    gate = next((failure for failure in result.errors if failure.code == "blocked"), None)
    if gate is None:
        return {"node_id": None, "class_type": None, "message": ""}
    return {"node_id": gate.node_id, "class_type": gate.class_type, "message": gate.message}


# And back -------------------------------------------------------------------------------------------------------------


def output_to_result(output: Any, **said: Any) -> Result:
    """The inverse of `result_to_output`, for documents that hold all bytes; see `read_output`.

    Raises:
        TargetError: the document makes no sense, or some of its outputs are in a bucket.
    """
    return read_output(output, **said).complete()


def read_output(
    output: Any,
    *,
    state: str = "COMPLETED",
    error: str | None = None,
    queue_seconds: float = 0.0,
    execution_seconds: float = 0.0,
) -> Received:
    """Read what a job's status has under ``output``: ours, the reference worker's or an older one's.

    Only what both the state and the document call completed is: nothing unknown passes for a success.

    Args:
        output: any JSON, None too.
        state: the final state that the status names: COMPLETED, FAILED, CANCELLED or TIMED_OUT.
        error: what the status has under ``error``.
        queue_seconds, execution_seconds: for documents that have no times of their own.

    Raises:
        TargetError: the document makes no sense; the message names the place.
    """
    if output is not None and not isinstance(output, Mapping):
        raise TargetError("the worker's answer makes no sense: output is not an object")
    document: Mapping[str, Any] = output or {}
    error = error or _text_of(document.get("error"))
    record = document.get("result")
    if isinstance(record, Mapping):
        try:
            result = Result.from_json({**record, "outputs": []})
        except InputError as problem:
            raise TargetError(f"the worker's answer makes no sense: output.{problem}") from None
    else:
        result = Result(
            _status_without_record(document, state, error),
            queue_seconds=queue_seconds,
            execution_seconds=execution_seconds,
        )
    result = _agree(result, document, state, error)
    # A worker that lost what it made says COMPLETED all the same.
    if result.ok and output is None:
        lost = NodeFailure("no_output", "the job completed, and its output is gone: it was too large, or kept too long")
        result = replace(result, status="failed", errors=(lost,))
    parts = () if result.status == "blocked" else tuple(_parts(document))
    return Received(parts, result)


def _status_without_record(document: Mapping[str, Any], state: str, error: str | None) -> Status:
    status = _STATUS_OF.get(state, "failed")
    lines = [error or "", *_lines(document)]
    if status in {"completed", "failed"} and any(_BLOCK_PREFIX in line for line in lines):
        return "blocked"
    # The reference completes a job with an error in it, if a picture was saved before.
    return "failed" if status == "completed" and any(lines) else status


def _agree(result: Result, document: Mapping[str, Any], state: str, error: str | None) -> Result:
    """The result, where what the state says counts as well; with an error unless it completed."""
    outer = _STATUS_OF.get(state, "failed")
    status: Status = result.status
    if outer in {"cancelled", "timed_out"} or (outer == "failed" and status == "completed"):
        status = outer
    if status == "completed":
        return replace(result, errors=())
    errors = tuple(result.errors)
    if not errors:
        details = document.get("details")
        more = "\n".join(str(line) for line in details) if isinstance(details, list) else ""
        lines = [line for line in (error, *_lines(document)) if line] or [f"the job ended {state}, and did not say why"]
        errors = tuple(
            NodeFailure(_CODE_OF[status], " ".join(line.split()), details=more if index == 0 else "")
            for index, line in enumerate(dict.fromkeys(lines))
        )
    return replace(result, status=status, errors=errors)


def _lines(document: Mapping[str, Any]) -> list[str]:
    errors = document.get("errors")
    return [line for line in errors if isinstance(line, str)] if isinstance(errors, list) else []


def _parts(document: Mapping[str, Any]) -> Iterator[Output | RemoteOutput]:
    found: list[tuple[int, Output | RemoteOutput]] = []
    for group in _KIND_OF:
        items = document.get(group) or []
        if not isinstance(items, list):
            raise TargetError(f"the worker's answer makes no sense: output.{group} is not a list")
        for number, item in enumerate(items):
            position = item.get("index") if isinstance(item, Mapping) else None
            part = _part(item, group, number, f"output.{group}[{number}]")
            found.append((position if isinstance(position, int) else len(found), part))
    message = document.get("message")
    if not found and isinstance(message, str) and document.get("status") == "success":
        found.append((0, _part(message, "images", 0, "output.message")))
    return (part for _, part in sorted(found, key=lambda entry: entry[0]))


def _part(item: Any, group: str, number: int, path: str) -> Output | RemoteOutput:
    known: Mapping[str, Any] = item if isinstance(item, Mapping) else {"data": item}
    payload = known.get("data", known.get("image"))
    if not isinstance(payload, str):
        raise TargetError(f"the worker's answer makes no sense: {path} has no data")
    size, sha256 = known.get("size"), known.get("sha256")
    size = size if isinstance(size, int) else None
    sha256 = sha256 if isinstance(sha256, str) else None
    if known.get("type") == "s3_url" or payload.startswith(("http://", "https://")):
        return RemoteOutput(payload, _output(known, group, number, b""), size, sha256)
    data = payload.encode(errors="replace") if known.get("type") == "text" else _decode(payload, path)
    _check_bytes(data, size, sha256, path)
    return _output(known, group, number, data)


def _output(known: Mapping[str, Any], group: str, number: int, data: bytes) -> Output:
    named = PurePosixPath(_text_of(known.get("filename")) or "").name
    if named == "..":
        named = ""
    media_type = _text_of(known.get("media_type")) or mimetypes.guess_type(named)[0] or _sniff(data)
    kind = known.get("kind")
    suffix = mimetypes.guess_extension(media_type) or ""
    return Output(
        node_id=_text_of(known.get("node_id")) or "",
        class_type=_text_of(known.get("class_type")) or "",
        kind=kind if kind in _GROUP_OF else _KIND_OF[group],  # type: ignore[arg-type]
        filename=named or f"{_KIND_OF[group]}_{number + 1:05}{suffix}",
        media_type=media_type,
        data=data,
        subfolder=_text_of(known.get("subfolder")) or "",
        folder="temp" if known.get("folder") == "temp" else "output",
    )


def _decode(text: str, path: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise TargetError(f"the worker's answer makes no sense: {path} is not base64") from None


def _check_bytes(data: bytes, size: int | None, sha256: str | None, what: str) -> None:
    if (size is not None and len(data) != size) or (
        sha256 is not None and hashlib.sha256(data).hexdigest() != sha256.lower()
    ):
        raise TargetError(f"{what} did not arrive as the worker sent it", remedy="ask for the job's status again")


def _sniff(data: bytes) -> str:
    return next((media_type for magic, media_type in _MAGIC if magic.match(data)), "application/octet-stream")


def _text_of(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
