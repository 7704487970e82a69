from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from comfy_cpu_client.cli.batch import batch
from comfy_cpu_core.results import NodeFailure, Result

PROMPT = {"1": {"class_type": "LoadImage", "inputs": {"image": "old.png"}}}


@pytest.fixture
def call(target: Any, tmp_path: Path) -> Any:
    (tmp_path / "w.json").write_text(json.dumps(PROMPT))
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.png").write_bytes(b"picture")

    def run(*arguments: object) -> Any:
        given = [tmp_path / "w.json", tmp_path / "photos", "-o", tmp_path / "out", "-t", "fake", *arguments]
        return CliRunner().invoke(batch, [str(argument) for argument in given], standalone_mode=False)

    return run


def test_what_came_of_it_is_told(call: Any, target: Any, output: Any, tmp_path: Path) -> None:
    target.result = Result("completed", outputs=[output], execution_seconds=2.0, warnings=["a stand-in was used"])
    answer = call("--price", "3.6/h", "--vcpus", "2")
    assert answer.return_value == 0
    assert answer.stdout.strip() == str(tmp_path / "out" / "report.html")
    assert "3 of 3 inputs completed" in answer.stderr
    assert "execution: p50 2 s, p90 2 s" in answer.stderr
    assert "cost: 0.012, 0.004 for each completed" in answer.stderr
    assert "warning: a stand-in was used (3 inputs)" in answer.stderr


def test_json_is_the_only_thing_on_stdout(call: Any, tmp_path: Path) -> None:
    document = json.loads(call("--json").stdout)
    assert document["results"]["completed"] == 3
    assert document["report"] == str(tmp_path / "out" / "report.html")


def test_failures_give_six_and_are_told_by_reason(call: Any, target: Any) -> None:
    target.result = Result("failed", errors=[NodeFailure("node_failed", "it broke")])
    answer = call()
    assert answer.return_value == 6
    assert "failed (node_failed): 3 inputs, for example 0.png: it broke" in answer.stderr


def test_blocks_give_zero(call: Any, target: Any) -> None:
    target.result = Result("blocked", errors=[NodeFailure("blocked", "Content blocked by X")])
    assert call().return_value == 0


def test_lines_where_there_is_no_terminal(call: Any) -> None:
    assert "3/3, 0 in flight, 3 completed" in call().stderr
    assert "in flight" not in call("--restart", "--quiet").stderr


def test_a_price_that_is_none(call: Any) -> None:
    answer = call("--price", "7 dollars")
    assert "is not a price per vCPU" in str(answer.exception)


def test_an_interrupt_says_how_to_go_on(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("comfy_cpu_client.batch.runner.BatchRunner._loop", interrupt)
    assert "run the same command again to go on" in call().stderr
