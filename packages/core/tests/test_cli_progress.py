"""How fetching shows, on a terminal and elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from comfy_cpu_core.cli import progress
from comfy_cpu_core.cli.progress import byte_size, file_progress


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "?"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (222_932_053, "222.9 MB"),
        (5_732_992_416, "5.7 GB"),
        (12_000_000_000_000, "12000.0 GB"),
    ],
)
def test_byte_size(size: int | None, text: str) -> None:
    assert byte_size(size) == text


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with file_progress() as shown:
        for done in range(0, 1001, 100):
            shown.fetching("x/a", done * 1000, 1_000_000)
            now += 3
        shown.checking("x/a", 1, 1000)
        shown.checking("x/b", 1, 100_000_000)
        shown.fetching("x/c", 5, None)
        shown.note("by the way")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "fetching x/a: 0 B of 1.0 MB (0 %)",
        "fetching x/a: 400.0 kB of 1.0 MB (40 %)",
        "fetching x/a: 800.0 kB of 1.0 MB (80 %)",
        "checking x/b: 1 B of 100.0 MB (0 %)",
        "fetching x/c: 5 B of ?",
        "by the way",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with file_progress() as shown:
        # What an earlier fetch has left is the start, and not speed.
        shown.fetching("x/[bold].onnx", 400_000_000, 1_000_000_000)
        shown.fetching("x/[bold].onnx", 500_000_000, 1_000_000_000)
        shown.note("by the [way]")
    drawn = terminal.getvalue()
    assert "fetch x/[bold].onnx" in drawn
    assert "500.0 MB" in drawn or "0.5/1.0 GB" in drawn
    assert "by the [way]" in drawn
