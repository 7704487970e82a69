"""Read what an ONNX file says of itself, without an ONNX library and without loading its graph.

An ONNX file is one protobuf message, ``ModelProto``. Its fields stand one after the other, each with a tag and a
length, so everything but ``metadata_props`` can be stepped over: reading the notes of a 5 GB model touches a few
hundred bytes. A file whose fields do not end where the file ends is truncated, or no ONNX file.

Sources: onnx.proto of the ONNX project, and protobuf's encoding guide.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from comfy_cpu_core.errors import ModelCorrupt, ModelError

__all__ = ["PRECISION_KEY", "STAND_IN_KEY", "is_stand_in", "needs_f32", "read_metadata"]

#: The note that marks a model which only imitates the real one; its value is ``true``.
STAND_IN_KEY = "comfy_cpu.stand_in"

#: The note that says what a model must compute in; its value is ``f32`` where bfloat16 is too coarse.
PRECISION_KEY = "comfy_cpu.precision"

_IR_VERSION, _GRAPH, _OPERATOR_SETS, _METADATA = 1, 7, 8, 14  # fields of ModelProto
_KEY, _VALUE = 1, 2  # fields of StringStringEntryProto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types

_MOST_FIELDS = 100_000  # real models have dozens: one entry for each note, operator set and function
_LONGEST_NOTE = 1 << 20
_LONGEST_VARINT = 10

_VERIFY = "check the model tree with `comfy-cpu models verify`, and fetch the file again"


class _Malformed(Exception):
    """The bytes are not what they should be; the message says what is wrong."""


def read_metadata(path: Path) -> dict[str, str]:
    """The notes (``metadata_props``) of an ONNX file.

    Raises:
        ModelCorrupt: it is no ONNX file, or not a whole one.
        ModelError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _read_model(file, os.fstat(file.fileno()).st_size)
    except _Malformed as error:
        raise ModelCorrupt(f"model file {path} is not a whole ONNX file: {error}", remedy=_VERIFY) from None
    except OSError as error:
        raise ModelError(f"model file {path} cannot be read: {error.strerror}") from error


def is_stand_in(metadata: dict[str, str]) -> bool:
    """Whether the notes mark a stand-in."""
    return metadata.get(STAND_IN_KEY, "").lower() == "true"


def needs_f32(metadata: dict[str, str]) -> bool:
    """Whether the notes say that bfloat16 is too coarse for the model."""
    return metadata.get(PRECISION_KEY, "").lower() == "f32"


def _read_model(file: BinaryIO, size: int) -> dict[str, str]:
    if size == 0:
        raise _Malformed("it is empty")
    notes: dict[str, str] = {}
    seen = set()
    for _ in range(_MOST_FIELDS):
        if file.tell() >= size:
            break
        field, wire = _tag(file)
        seen.add((field, wire))
        if wire == _BYTES:
            length = _length(file, size)
            if field != _METADATA:
                file.seek(length, os.SEEK_CUR)
            elif length > _LONGEST_NOTE:
                raise _Malformed(f"a note of {length} bytes")
            else:
                key, value = _entry(file, file.tell() + length)
                notes[key] = value
        else:
            _skip_number(file, wire, size)
    else:
        raise _Malformed("it has too many fields")
    for needed, what in (((_GRAPH, _BYTES), "graph"), ((_OPERATOR_SETS, _BYTES), "operator set")):
        if (_IR_VERSION, _VARINT) not in seen or needed not in seen:
            raise _Malformed(f"it has no {what}")
    return notes


def _entry(file: BinaryIO, end: int) -> tuple[str, str]:
    """A key with its value."""
    parts = {_KEY: "", _VALUE: ""}
    while file.tell() < end:
        field, wire = _tag(file)
        if wire == _BYTES:
            parts[field] = file.read(_length(file, end)).decode("utf-8", "replace")
        else:
            _skip_number(file, wire, end)
    if file.tell() != end:
        raise _Malformed("a note does not end where it should")
    return parts[_KEY], parts[_VALUE]


def _tag(file: BinaryIO) -> tuple[int, int]:
    tag = _varint(file)
    field, wire = tag >> 3, tag & 7
    if field == 0 or wire not in (_VARINT, _FIXED64, _BYTES, _FIXED32):
        raise _Malformed("what stands there is not ONNX")
    return field, wire


def _length(file: BinaryIO, end: int) -> int:
    length = _varint(file)
    missing = file.tell() + length - end
    if missing > 0:
        raise _Malformed(f"at least {missing} bytes are missing")
    return length


def _skip_number(file: BinaryIO, wire: int, end: int) -> None:
    if wire == _VARINT:
        _varint(file)
        return
    file.seek(8 if wire == _FIXED64 else 4, os.SEEK_CUR)
    if file.tell() > end:
        raise _Malformed("it ends inside a number")


def _varint(file: BinaryIO) -> int:
    """A number in base 128, the lowest digits first."""
    value = 0
    for position in range(_LONGEST_VARINT):
        byte = file.read(1)
        if not byte:
            raise _Malformed("it ends inside a number")
        value |= (byte[0] & 0x7F) << (7 * position)
        if byte[0] < 0x80:
            return value
    raise _Malformed("what stands there is not ONNX")
