"""Reading a workflow file: everything that can be wrong with it before it is a workflow."""

from __future__ import annotations

import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_core.errors import WorkflowError
from comfy_cpu_core.workflow import document
from comfy_cpu_core.workflow.document import check_json, read_document, same_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in (*chunks, (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data


@given(st.dictionaries(st.text(), json_values))
def test_any_json_object_is_read_as_it_is(value: dict[str, Any]) -> None:
    assert read_document(json.dumps(value).encode(), "w") == (value, "w")
    assert read_document(value, None) == (value, "workflow")


def test_a_mapping_is_copied() -> None:
    original = {"1": {"inputs": {"x": [1]}}}
    copied, _ = read_document(original, None)
    copied["1"]["inputs"]["x"].append(2)
    assert original == {"1": {"inputs": {"x": [1]}}}


def test_a_file_gives_its_name(tmp_path: Path) -> None:
    path = tmp_path / "flow.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')  # with the byte order mark of a Windows editor
    assert read_document(path, None) == ({"a": 1}, "flow.json")
    assert read_document(str(path), "mine") == ({"a": 1}, "mine")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"{", r"not JSON: .* \(line 1, column 2\)"),
        (b'{\n "a": 1,\n}', r"not JSON: .* \(line [23], column \d\)"),
        (b"\xff\xfe{\x00}\x00", r"not UTF-8 text \(byte 0\)"),
        (b'{"a": NaN}', r"nan is not a number that JSON has \(at a\)"),
        (b'{"a": [1, -Infinity]}', r"-inf is not a number that JSON has \(at a\[1\]\)"),
        (b'{"a": 1e999}', "inf is not a number that JSON has"),
        (b'{"4": {}, "4": {}}', "'4' stands twice in one object"),
        (b'{"1": {"inputs": {"x": 1, "x": 2}}}', "'x' stands twice in one object"),
        (b'{"a": "\\ud800"}', r"half a surrogate pair is not text \(at a\)"),
        (b'{"\\ud800": 1}', "half a surrogate pair is not text"),
        (b"[" * 200 + b"]" * 200, "nested more than 100 levels deep"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON: .*digits"),
    ],
)
def test_bad_data(data: bytes, message: str) -> None:
    with pytest.raises(WorkflowError, match=message) as caught:
        read_document(data, "flow.json")
    assert str(caught.value).startswith("flow.json: ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_too_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(document, "MAX_BYTES", 10)
    path = tmp_path / "flow.json"
    path.write_bytes(b'{"a": "12345"}')
    with pytest.raises(WorkflowError, match="too large for a workflow"):
        read_document(path, None)


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match=r"there is no workflow file .*missing\.json"):
        read_document(tmp_path / "missing.json", None)
    with pytest.raises(WorkflowError, match="is a directory, not a workflow"):
        read_document(tmp_path, None)
    with pytest.raises(WorkflowError, match="is not a path"):
        read_document("a\0b", None)
    with pytest.raises(WorkflowError, match="cannot read"):
        read_document("a" * 5000, None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1: "a"}, "the key 1 is not text"),
        ({"a": {"b": {2: 0}}}, r"the key 2 \(at a\.b\) is not text"),
        ({"a": (1, 2)}, r"a Python tuple is not JSON \(at a\)"),
        ({"a": [{1, 2}]}, r"a Python set is not JSON \(at a\[0\]\)"),
        ({"a": b"x"}, "a Python bytes is not JSON"),
        ({"a": math.nan}, "nan is not a number that JSON has"),
    ],
)
def test_python_objects_that_are_no_json(value: dict[Any, Any], message: str) -> None:
    with pytest.raises(WorkflowError, match=message):
        read_document(value, None)


def test_an_object_that_contains_itself_is_nested_too_deeply() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    with pytest.raises(WorkflowError, match="nested more than"):
        check_json(endless, "w")


def test_a_picture_gives_the_prompt_that_made_it() -> None:
    both = png((b"tEXt", b'workflow\0{"nodes": []}'), (b"tEXt", b'prompt\0{"1": {}}'))
    assert read_document(both, "out.png")[0] == {"1": {}}


def test_a_picture_without_prompt_gives_its_workflow() -> None:
    international = png((b"iTXt", b"workflow\0\0\0\0\0" + '{"name": "Größe"}'.encode()))
    assert read_document(international, "out.png")[0] == {"name": "Größe"}


@pytest.mark.parametrize(
    "data",
    [
        png((b"tEXt", b"Title\0hello"), (b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(b"{}"))),
        b"\x89PNG\r\n\x1a\n" + b"\xff\xff\xff\xfftEXt",
        b"\x89PNG\r\n\x1a\n\0",
    ],
    ids=["no text, or compressed", "chunk longer than the file", "truncated"],
)
def test_a_picture_without_a_workflow(data: bytes) -> None:
    with pytest.raises(WorkflowError, match="this picture carries no workflow"):
        read_document(data, "photo.png")


def test_same_json_tells_true_from_one() -> None:
    assert same_json({"a": 1, "b": [None]}, {"b": [None], "a": 1})
    assert not same_json(True, 1)
    assert not same_json(1, 1.0)
