"""What a run gives."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_core.errors import InputError
from comfy_cpu_core.results import ModelUse, NodeFailure, NodeTiming, Output, Result, RunRequest, Status

PICTURE = Output("9", "SaveImage", "image", "a.png", "image/png", b"data", "sub")
TEXT = Output("3", "Show", "text", "a.txt", "text/plain", "Größe".encode(), folder="temp")


def test_an_output_describes_itself() -> None:
    assert PICTURE.describe() == {
        "node_id": "9",
        "class_type": "SaveImage",
        "kind": "image",
        "filename": "a.png",
        "subfolder": "sub",
        "folder": "output",
        "media_type": "image/png",
        "size": 4,
        "sha256": hashlib.sha256(b"data").hexdigest(),
    }
    assert TEXT.text == "Größe"
    assert "data" not in repr(PICTURE)


def test_save_to_a_file(tmp_path: Path) -> None:
    assert PICTURE.save(tmp_path / "mine.png") == tmp_path / "mine.png"
    assert PICTURE.save(str(tmp_path / "other.png")).read_bytes() == b"data"


@pytest.mark.parametrize("name", ["a.png", "../a.png", "/etc/a.png", "x/y/a.png"])
def test_save_into_a_directory_never_leaves_it(tmp_path: Path, name: str) -> None:
    output = Output("9", "SaveImage", "image", name, "image/png", b"data")
    assert output.save(tmp_path) == tmp_path / "a.png"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("status", get_args(Status))
def test_only_completed_is_ok(status: Status) -> None:
    assert Result(status).ok is (status == "completed")


def test_pictures_and_stand_ins() -> None:
    real = ModelUse("m.onnx", "openvino 1", "bf16", 2)
    result = Result("completed", outputs=[TEXT, PICTURE], models=[real])
    assert result.images == [PICTURE]
    assert not result.stand_in
    assert Result("completed", models=[real, ModelUse("s.onnx", "ort", "f32", 2, stand_in=True)]).stand_in


def test_json() -> None:
    result = Result(
        "failed",
        outputs=[PICTURE],
        timings=[NodeTiming("9", "SaveImage", 0.5, cached=True)],
        errors=[NodeFailure("node_failed", "it failed", "9", "SaveImage", "Traceback", "try again")],
        models=[ModelUse("m.onnx", "openvino 1", "bf16", 2, load_seconds=0.1)],
        changes={"ok": True},
        warnings=["careful"],
        queue_seconds=1.0,
        execution_seconds=2.0,
        estimated_cost=0.5,
    )
    document: dict[str, Any] = json.loads(json.dumps(result.to_json()))
    assert document == {
        "status": "failed",
        "stand_in": False,
        "outputs": [PICTURE.describe()],
        "timings": [{"node_id": "9", "class_type": "SaveImage", "seconds": 0.5, "cached": True}],
        "errors": [
            {
                "code": "node_failed",
                "message": "it failed",
                "node_id": "9",
                "class_type": "SaveImage",
                "details": "Traceback",
                "remedy": "try again",
            }
        ],
        "models": [
            {
                "name": "m.onnx",
                "runtime": "openvino 1",
                "precision": "bf16",
                "threads": 2,
                "stand_in": False,
                "load_seconds": 0.1,
            }
        ],
        "changes": {"ok": True},
        "warnings": ["careful"],
        "queue_seconds": 1.0,
        "execution_seconds": 2.0,
        "estimated_cost": 0.5,
    }


def test_json_of_an_empty_result() -> None:
    assert Result("cancelled").to_json()["changes"] is None


def test_a_request_keeps_its_files_out_of_messages() -> None:
    assert "secret" not in repr(RunRequest({}, {"a.png": b"secret"}))


SECONDS = st.floats(0, 1e9)
MAYBE = st.none() | st.text(max_size=8)
OUTPUTS = st.builds(
    Output,
    st.text(max_size=5),
    st.text(max_size=5),
    st.sampled_from(["image", "mask", "text", "json", "audio", "video", "file"]),
    st.text(max_size=9),
    st.text(max_size=9),
    st.binary(max_size=20),
    st.text(max_size=5),
    st.sampled_from(["output", "temp"]),
)
RESULTS = st.builds(
    Result,
    st.sampled_from(get_args(Status)),
    st.lists(OUTPUTS, max_size=3).map(tuple),
    st.lists(st.builds(NodeTiming, st.text(), st.text(), SECONDS, st.booleans()), max_size=3).map(tuple),
    st.lists(st.builds(NodeFailure, st.text(), st.text(), MAYBE, MAYBE, st.text(), MAYBE), max_size=3).map(tuple),
    st.lists(
        st.builds(ModelUse, st.text(), st.text(), st.text(), st.integers(1, 64), st.booleans(), SECONDS), max_size=3
    ).map(tuple),
    st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers() | st.none(), max_size=3),
    st.lists(st.text(max_size=5), max_size=3).map(tuple),
    SECONDS,
    SECONDS,
)


@given(RESULTS)
def test_a_result_comes_back_from_json(result: Result) -> None:
    document = json.loads(json.dumps(result.to_json()))
    assert Result.from_json(document, [output.data for output in result.outputs]) == result


def test_from_json_fills_in_what_is_missing_and_ignores_what_it_does_not_know() -> None:
    assert Result.from_json({"status": "cancelled", "mood": "fine"}) == Result("cancelled")
    output = {**PICTURE.describe(), "colour": "blue"}
    del output["subfolder"], output["folder"], output["size"]
    (read,) = Result.from_json({"status": "completed", "outputs": [output]}, [b"x"]).outputs
    assert read == Output("9", "SaveImage", "image", "a.png", "image/png", b"x")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "result is None, not an object"),
        ({}, "result.status is missing"),
        ({"status": "great"}, "result.status is 'great', not one of completed, "),
        ({"status": ["failed"]}, "result.status is ['failed'], not one of"),
        ({"status": "failed", "errors": {}}, "result.errors is {}, not a list"),
        ({"status": "failed", "errors": ["x"]}, "result.errors[0] is 'x', not an object"),
        ({"status": "failed", "errors": [{"code": "x"}]}, "result.errors[0].message is missing"),
        ({"status": "failed", "warnings": [1]}, "result.warnings is 1, not a text"),
        ({"status": "failed", "changes": []}, "result.changes is [], not an object"),
        ({"status": "failed", "queue_seconds": True}, "result.queue_seconds is True, not a number"),
        ({"status": "failed", "outputs": [{}]}, "result: 1 outputs are described, but there are 0"),
        (
            {"status": "failed", "timings": [{"node_id": "1", "class_type": "A", "seconds": "2"}]},
            "result.timings[0].seconds is '2', not a number",
        ),
    ],
)
def test_what_is_no_result_is_an_error_that_names_the_field(document: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Result.from_json(document)
    assert message in str(caught.value)


def test_an_output_of_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(InputError, match=r"result.outputs\[0\].kind is 'smell'"):
        Result.from_json({"status": "completed", "outputs": [{**PICTURE.describe(), "kind": "smell"}]}, [b""])
