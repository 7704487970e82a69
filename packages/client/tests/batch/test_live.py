from __future__ import annotations

import io
import re
from typing import Any

import pytest

from comfy_cpu_client.batch import BatchProgress, TargetProgress
from comfy_cpu_client.cli.live import show_batch


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def progress(**changes: Any) -> BatchProgress:
    given: dict[str, Any] = {
        "inputs": 100,
        "counts": {"completed": 40, "failed": 2, "retried": 7},
        "in_flight": 4,
        "ended_here": 42,
        "seconds": 21.0,
        "targets": (
            TargetProgress("worker+http://a:8000", "up", 1.0, 4, 40, 0, ""),
            TargetProgress("runpod://[b]", "down", 0.4, 0, 7, 7, "nobody answers"),
        ),
        "last_failure": ("cat.png", "node 4 (Cut): it broke"),
    }
    return BatchProgress(**{**given, **changes})


def test_a_terminal_shows_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with show_batch() as sink:
        assert sink is not None
        sink(progress())
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    lines = [line.strip() for line in shown.splitlines()]
    assert any(
        "42/100, 4 in flight, 40 completed, 2 failed, 7 retried, 2 a second, 29 s left" in line for line in lines
    )
    assert any("runpod://[b]" in line and "nobody answers" in line for line in lines)  # no markup of rich's
    assert any("cat.png: node 4 (Cut): it broke" in line for line in lines)
    headers = [line for line in lines if line.startswith("target")]  # drawn once more at the end
    assert {tuple(line.split()) for line in headers} == {
        ("target", "state", "health", "in", "flight", "ended", "failures", "problem")
    }


def test_elsewhere_it_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with show_batch() as sink:
        assert sink is not None
        sink(progress())
        sink(progress())
        sink(progress(in_flight=0, counts={"completed": 100}))
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "/100" in line] == [
        "42/100, 4 in flight, 40 completed, 2 failed, 7 retried, 2 a second, 29 s left",
        "100/100, 0 in flight, 100 completed, 2 a second",
    ]
    assert "runpod://[b] is down: nobody answers" in lines


def test_quiet_is_quiet() -> None:
    with show_batch(quiet=True) as sink:
        assert sink is None
