"""What a run gives."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, get_args

import pytest

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
    }


def test_json_of_an_empty_result() -> None:
    assert Result("cancelled").to_json()["changes"] is None


def test_a_request_keeps_its_files_out_of_messages() -> None:
    assert "secret" not in repr(RunRequest({}, {"a.png": b"secret"}))
