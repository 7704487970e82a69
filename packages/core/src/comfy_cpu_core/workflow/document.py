"""Reading a workflow file: from bytes or a parsed object to JSON that is safe to work on.

What comes out holds dicts with text keys, lists, text, finite numbers, booleans and null, and is not nested absurdly.
That it is a workflow is checked elsewhere.
"""

from __future__ import annotations

import copy
import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from comfy_cpu_core.errors import WorkflowError

__all__ = ["MAX_BYTES", "MAX_DEPTH", "check_json", "read_document", "same_json"]

#: The largest file that is read. ComfyUI's own are below a megabyte; some carry a picture as text.
MAX_BYTES = 64 * 2**20

#: How deeply objects and lists may be nested. Real workflows stay below 20.
MAX_DEPTH = 100

_PNG = b"\x89PNG\r\n\x1a\n"


def read_document(source: str | Path | bytes | Mapping[str, Any], name: str | None) -> tuple[Any, str]:
    """Read a workflow's JSON; give the document and what messages call it.

    Args:
        source: a path, the file's bytes, or the parsed document (which is copied).
        name: what messages call it; the file's name if None.

    Raises:
        WorkflowError: it cannot be read, is no JSON, or holds what JSON cannot.
    """
    if isinstance(source, Mapping):
        called = name or "workflow"
        document: Any = dict(source)
        check_json(document, called)
        return copy.deepcopy(document), called
    if isinstance(source, bytes):
        called, data = name or "workflow", source
    else:
        called = name or Path(source).name or str(source)
        data = _read_file(Path(source))
    if len(data) > MAX_BYTES:
        raise WorkflowError(
            f"{called}: {len(data):,} bytes are too large for a workflow",
            remedy=f"at most {MAX_BYTES:,} bytes are read",
        )
    document = _parse(_png_text(data, called) if data.startswith(_PNG) else data, called)
    check_json(document, called)
    return document, called


def check_json(value: Any, name: str) -> None:
    """Check that a value is plain JSON: no NaN, no foreign types, not nested beyond `MAX_DEPTH`.

    Raises:
        WorkflowError: it is not; the message names the place.
    """
    # A stack of its own: a nesting that is too deep for the interpreter must end in an error of ours.
    stack: list[tuple[Any, int, str]] = [(value, 0, "")]
    while stack:
        item, depth, where = stack.pop()
        if depth > MAX_DEPTH:
            raise WorkflowError(f"{name}: nested more than {MAX_DEPTH} levels deep", remedy="this is no workflow")
        if isinstance(item, dict):
            for key, child in item.items():
                if not isinstance(key, str):
                    raise WorkflowError(f"{name}: the key {key!r}{_at(where)} is not text")
                _check_text(key, name, where)
                stack.append((child, depth + 1, f"{where}.{key}"))
        elif isinstance(item, list):
            stack.extend((child, depth + 1, f"{where}[{index}]") for index, child in enumerate(item))
        elif isinstance(item, str):
            _check_text(item, name, where)
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise WorkflowError(f"{name}: {item} is not a number that JSON has{_at(where)}")
        elif item is not None and not isinstance(item, bool | int):
            raise WorkflowError(f"{name}: a Python {type(item).__name__} is not JSON{_at(where)}")


def same_json(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: for Python, ``True == 1 == 1.0``."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _at(where: str) -> str:
    shown = where.lstrip(".")
    return f" (at {shown[:80]})" if shown else ""


def _check_text(text: str, name: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise WorkflowError(f"{name}: half a surrogate pair is not text{_at(where)}") from None


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise WorkflowError(f"there is no workflow file {path}", remedy="check the path") from None
    except IsADirectoryError:
        raise WorkflowError(f"{path} is a directory, not a workflow", remedy="name the workflow's file") from None
    except OSError as error:
        raise WorkflowError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError:  # a null byte in the path
        raise WorkflowError(f"{str(path)!r} is not a path", remedy="check the path") from None


def _parse(data: bytes, name: str) -> Any:
    try:
        text = data.decode("utf-8-sig")  # a byte order mark is what some Windows editors put in front
    except UnicodeDecodeError as error:
        raise WorkflowError(
            f"{name}: not UTF-8 text (byte {error.start})", remedy="save the workflow from ComfyUI again, as JSON"
        ) from None
    if not text.strip():
        raise WorkflowError(f"{name}: the file is empty", remedy="save the workflow from ComfyUI again")
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, name))
    except json.JSONDecodeError as error:
        raise WorkflowError(
            f"{name}: not JSON: {error.msg} (line {error.lineno}, column {error.colno})",
            remedy="give a workflow that ComfyUI saved, or one exported in API format",
        ) from None
    except RecursionError:
        raise WorkflowError(f"{name}: nested too deeply", remedy="this is no workflow") from None
    except ValueError as error:  # a number with thousands of digits
        raise WorkflowError(f"{name}: not JSON: {error}") from None


def _object(pairs: list[tuple[str, Any]], name: str) -> dict[str, Any]:
    # JSON readers differ in which of two equal keys they keep; a workflow that depends on it is broken.
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise WorkflowError(
                f"{name}: {key!r} stands twice in one object", remedy="remove one: a node id or input may occur once"
            )
        found[key] = value
    return found


def _png_text(data: bytes, name: str) -> bytes:
    """The workflow that ComfyUI wrote into a PNG: the prompt that made the picture, else the UI document."""
    texts = dict(_png_texts(data))
    for keyword in (b"prompt", b"workflow"):
        if keyword in texts:
            return texts[keyword]
    raise WorkflowError(
        f"{name}: this picture carries no workflow", remedy="give a workflow file, or a PNG as ComfyUI saved it"
    )


def _png_texts(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keyword and UTF-8 text of each uncompressed text chunk (tEXt, iTXt), as far as the file is whole."""
    position = len(_PNG)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        position += length + 12
        keyword, separator, rest = body.partition(b"\0")
        if not separator:
            continue
        if kind == b"tEXt":
            yield keyword, rest.decode("latin-1").encode()
        elif kind == b"iTXt" and rest[:1] == b"\0":  # not compressed
            yield keyword, rest[2:].split(b"\0", 2)[-1]
