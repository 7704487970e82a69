from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from comfy_cpu_client.cli.health import health
from comfy_cpu_client.cli.run import exit_code, run
from comfy_cpu_core.errors import InputError, UsageError
from comfy_cpu_core.results import ModelUse, NodeFailure, NodeTiming, Output, Result

PROMPT = {"1": {"class_type": "LoadImage", "inputs": {"image": "old.png", "provider": "CUDA"}}}


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    path = tmp_path / "w.json"
    path.write_text(json.dumps(PROMPT))
    return path


def call(*arguments: object) -> Any:
    return CliRunner().invoke(run, [str(argument) for argument in arguments], standalone_mode=False)


def test_outputs_are_saved_and_named_on_stdout(target: Any, output: Output, workflow: Path, tmp_path: Path) -> None:
    target.result = Result("completed", outputs=[output], timings=[NodeTiming("1", "LoadImage", 0.1)])
    answer = call(workflow, "--target", "fake", "--output", tmp_path / "out")
    assert answer.return_value == 0
    assert answer.stdout.strip() == str(tmp_path / "out" / "out_00001_.png")
    assert "provider" in answer.stderr
    assert "'CUDA' -> 'CPU'" in answer.stderr
    assert "[1/1] LoadImage (node 1)" in answer.stderr


def test_json_is_the_only_thing_on_stdout(target: Any, output: Output, workflow: Path, tmp_path: Path) -> None:
    target.result = Result(
        "completed",
        outputs=[output],
        models=[ModelUse("m.onnx", "openvino", "f32", 2, stand_in=True)],
        warnings=["a stand-in was used"],
    )
    answer = call(workflow, "--target", "fake", "--output", tmp_path, "--json")
    document = json.loads(answer.stdout)
    assert document["stand_in"] is True
    assert document["outputs"][0]["path"] == str(tmp_path / "out_00001_.png")
    assert document["outputs"][0]["sha256"] == output.sha256
    assert "warning: a stand-in was used" in answer.stderr


def test_quiet_shows_no_progress(target: Any, workflow: Path) -> None:
    assert "[1/1]" not in call(workflow, "--target", "fake", "--quiet").stderr


def test_a_failure_is_one_line_with_its_remedy(target: Any, workflow: Path) -> None:
    failure = NodeFailure("node_failed", "it broke", "4", "Cut", details="Traceback …", remedy="mend it")
    target.result = Result("failed", errors=[failure])
    answer = call(workflow, "--target", "fake")
    assert answer.return_value == 6
    assert "error: failed: node 4 (Cut): it broke" in answer.stderr
    assert "hint: mend it" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (Result("completed"), 0),
        (Result("blocked"), 8),
        (Result("cancelled"), 130),
        (Result("timed_out"), 7),
        (Result("failed", errors=[NodeFailure("node_failed", "x")]), 6),
        (Result("failed", errors=[NodeFailure("input", "x")]), 3),
        (Result("failed", errors=[NodeFailure("model", "x")]), 4),
    ],
)
def test_exit_codes(result: Result, code: int) -> None:
    assert exit_code(result) == code


def test_no_directory_is_made_for_nothing(target: Any, workflow: Path, tmp_path: Path) -> None:
    call(workflow, "--target", "fake", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_found_before_the_run(target: Any, workflow: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is not a directory"):
        CliRunner().invoke(
            run,
            [str(workflow), "--target", "fake", "--output", str(tmp_path / "file" / "out")],
            standalone_mode=False,
            catch_exceptions=False,
        )
    assert target.requests == []


BYPASSED = {
    "nodes": [
        {"id": 1, "type": "LoadImage", "outputs": [{"type": "IMAGE"}], "widgets_values": ["a.png"]},
        {"id": 2, "type": "NudeNetSafetyChecker", "mode": 4},
        {"id": 3, "type": "SaveImage", "mode": 2},
        {"id": 4, "type": "Note"},
    ],
    "links": [],
}


@pytest.mark.parametrize("more", [[], ["--no-convert"], ["--json"]])
def test_a_safety_gate_that_is_switched_off_is_warned_of(
    target: Any, workflow: Path, tmp_path: Path, more: list[str]
) -> None:
    workflow.write_text(json.dumps(BYPASSED))
    answer = call(workflow, "--target", "fake", "--output", tmp_path, *more)
    warning = "the safety check of node 2 (NudeNetSafetyChecker) was left out: it is bypassed in the workflow"
    assert f"warning: {warning}" in answer.stderr
    if "--json" in more:
        assert json.loads(answer.stdout)["warnings"] == [warning]


def test_what_was_switched_off_is_named(target: Any, workflow: Path, tmp_path: Path) -> None:
    workflow.write_text(json.dumps(BYPASSED))
    said = call(workflow, "--target", "fake", "--output", tmp_path).stderr
    assert "left out: node 3 (SaveImage): muted in the workflow" in said
    assert "node 4" not in said


def test_the_file_for_the_only_picture_needs_no_name(target: Any, workflow: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"jpeg")
    answer = call(workflow, "--target", "fake", "--output", tmp_path / "out", "--input", tmp_path / "photo.jpg")
    assert answer.return_value == 0
    assert target.requests[0].files == {"photo.jpg": b"jpeg"}
    answer = call(workflow, "--target", "fake", "-i", "a.jpg", "-i", "1.image=b.jpg")
    assert "does not say which input it is for" in str(answer.exception)


def test_options_reach_the_target(target: Any, workflow: Path, tmp_path: Path) -> None:
    options = ["--option", "price_per_second=0.5", "--option", "queue-limit-s=9", "--option", "name=text"]
    call(workflow, "--target", "fake", "--output", tmp_path, *options)
    assert target.options == {"price_per_second": 0.5, "queue_limit_s": 9, "name": "text"}
    for bad in (["--option", "secret"], ["--option", "a=1", "--option", "a=2"], ["--option", "=1"]):
        answer = call(workflow, "--target", "fake", *bad)
        assert isinstance(answer.exception, UsageError)
        assert "secret" not in str(answer.exception)


def test_times_and_cost_are_told(target: Any, workflow: Path, tmp_path: Path) -> None:
    target.result = Result("completed", queue_seconds=3.0, execution_seconds=2.0, estimated_cost=0.0004)
    said = call(workflow, "--target", "fake", "--output", tmp_path).stderr
    assert "completed in 2.0 s, 0 nodes after 3.0 s in the queue, about 0.000400" in said


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_health(target: Any, more: list[str]) -> None:
    answer = CliRunner().invoke(health, ["fake", *more], standalone_mode=False)
    assert answer.return_value == 0
    assert "ready" in answer.stdout
    target.ready = {
        "ready": False,
        "endpoints": [{"where": "it", "ready": False, "problem": "wrong key", "remedy": "take the right one"}],
    }
    answer = CliRunner().invoke(health, ["fake", *more], standalone_mode=False)
    assert answer.return_value == 7
    assert "wrong key" in answer.output
