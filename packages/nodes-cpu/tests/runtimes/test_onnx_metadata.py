from __future__ import annotations

import random
from pathlib import Path

import pytest
from onnx import helper

from comfy_cpu_core.errors import ModelCorrupt, ModelError
from comfy_cpu_nodes.runtimes import STAND_IN_KEY, is_stand_in, read_metadata
from comfy_cpu_nodes.runtimes.onnx_metadata import needs_f32

#: A ModelProto with ir_version 8, an empty graph and an empty operator set.
WHOLE = b"\x08\x08\x3a\x00\x42\x00"


def file(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    return path


def test_notes_are_read_without_the_graph(save, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    notes = {STAND_IN_KEY: "true", "ключ": "välue", "empty": ""}
    path = save([helper.make_node("Relu", ["x"], ["y"])], metadata=notes)
    assert read_metadata(path) == notes
    assert is_stand_in(read_metadata(path))


def test_no_notes(double: Path) -> None:
    assert read_metadata(double) == {}
    assert not is_stand_in({})
    assert not needs_f32({})
    assert not is_stand_in({STAND_IN_KEY: "false"})
    assert needs_f32({"comfy_cpu.precision": "F32"})


def test_a_large_graph_is_stepped_over(tmp_path: Path) -> None:
    size = 5 << 30
    path = tmp_path / "large.onnx"
    head = b"\x08\x08\x3a" + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80])
    head += bytes([size >> 21 & 0x7F | 0x80, size >> 28])
    with path.open("wb") as sparse:  # 5 GB that take no room on the disk
        sparse.write(head)
        sparse.seek(size, 1)
        sparse.write(b"\x42\x00\x72\x06\x0a\x01k\x12\x01v")
    assert read_metadata(path) == {"k": "v"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"not a model at all, but text",
        b"\x89PNG\r\n\x1a\n" + b"\x00" * 100,
        b"PK\x03\x04" + b"\x00" * 100,
        b"\x08\x08",  # no graph
        b"\x08\x08\x3a\x00",  # no operator set
        b"\x3a\x00",  # no version
        b"\x08" + b"\xff" * 20,  # a number without end
        b"\x08\x08\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # a graph of 2⁶³ bytes
        WHOLE + b"\x72\x04\x0a\x09ab",  # a note's key is longer than the note
        WHOLE + b"\x72\x03\x0a\x01k\x12",  # a note ends inside itself
        WHOLE + b"\x72\xff\xff\xff\x7f",  # a note of 256 MB, missing
        WHOLE + b"\x09\x00",  # ends inside a 64-bit number
        WHOLE + b"\x73",  # a group
        WHOLE + b"\x08\x01" * 200_000,  # too many fields
    ],
)
def test_what_is_no_whole_model_is_corrupt(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match=r"model\.onnx is not a whole ONNX file: .") as caught:
        read_metadata(file(tmp_path, data))
    assert caught.value.remedy is not None
    assert "comfy-cpu models verify" in caught.value.remedy


def test_every_truncation_is_found(double: Path, tmp_path: Path) -> None:
    data = double.read_bytes()
    assert len(data) < 1000
    for length in range(len(data)):
        with pytest.raises(ModelCorrupt):
            read_metadata(file(tmp_path, data[:length]))


def test_random_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    source = random.Random(1)
    for _ in range(300):
        path = file(tmp_path, WHOLE * source.randrange(2) + source.randbytes(source.randrange(200)))
        try:
            read_metadata(path)
        except ModelCorrupt:
            continue


def test_a_directory_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_metadata(tmp_path)
