"""``comfy-cpu doctor``: what it prints and its exit code. What it finds is in test_doctor.py."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import click
import pytest

from comfy_cpu_core.cli import main
from comfy_cpu_core.doctor import Check, Diagnosis
from comfy_cpu_core.resources import detect

CHECKS = (
    Check("CPUs", "ok", "4 of the host's 64"),
    Check("torch", "note", "not installed", "pip install torch"),
    Check("ONNX runtime", "problem", "none", "pip install openvino"),
)


def doctor(monkeypatch: pytest.MonkeyPatch, checks: tuple[Check, ...], *arguments: str) -> tuple[object, Path]:
    """Call the command with what it would find; give its exit code and the model tree that it looked at."""
    asked: list[Path] = []

    def diagnose(environ: object, plugins: object, models: Path) -> Diagnosis:
        asked.append(models)
        return Diagnosis(checks, detect({}))

    monkeypatch.setattr("comfy_cpu_core.doctor.diagnose", diagnose)
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", *arguments])
    return stopped.value.code, asked[0]


def test_plain_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = doctor(monkeypatch, CHECKS)
    captured = capsys.readouterr()
    assert code == 1
    assert captured.out.splitlines() == [
        "ok: CPUs: 4 of the host's 64",
        "note: torch: not installed",
        "  hint: pip install torch",
        "problem: ONNX runtime: none",
        "  hint: pip install openvino",
    ]
    assert captured.err == ""


def test_without_a_problem_it_exits_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor(monkeypatch, CHECKS[:2])[0] == 0


def test_on_a_terminal_it_is_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    doctor(monkeypatch, CHECKS)
    shown = terminal.getvalue()
    assert shown != click.unstyle(shown), "no colours"
    assert click.unstyle(shown).splitlines() == [
        "ok       CPUs          4 of the host's 64",
        "note     torch         not installed",
        "                       hint: pip install torch",
        "problem  ONNX runtime  none",
        "                       hint: pip install openvino",
    ]


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = doctor(monkeypatch, CHECKS, "--json")
    told = json.loads(capsys.readouterr().out)
    assert code == 1
    assert told["ok"] is False
    assert told["checks"][2] == {
        "name": "ONNX runtime",
        "state": "problem",
        "detail": "none",
        "remedy": "pip install openvino",
    }


def test_the_tree_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert doctor(monkeypatch, CHECKS, "--models", str(tmp_path))[1] == tmp_path
    monkeypatch.setenv("COMFY_CPU_MODELS", str(tmp_path / "other"))
    assert doctor(monkeypatch, CHECKS)[1] == tmp_path / "other"
