"""What the command line prints, and where to."""

from __future__ import annotations

import io
import json
import sys

import pytest

from comfy_cpu_core.cli.console import note, print_error, print_json, print_table, print_warning, styled


class Terminal(io.StringIO):
    """A stdout that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_messages_are_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("two\nlines", "do\tthis")
    print_error("alone")
    print_warning("mind\nthe gap")
    note("by the way")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "error: two lines",
        "hint: do this",
        "error: alone",
        "warning: mind the gap",
        "by the way",
    ]


def test_json_goes_to_stdout_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "Ünïcode", "n": [1, None]})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"name": "Ünïcode", "n": [1, None]}
    assert "Ünïcode" in captured.out
    assert captured.out.endswith("}\n")
    assert captured.err == ""


def test_a_table_without_a_terminal_is_lines_with_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "size"), iter([("a", 1), ("b", None)]))
    assert capsys.readouterr().out == "name\tsize\na\t1\nb\tNone\n"


def test_an_empty_table_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name",), [], empty="no plugins")
    assert capsys.readouterr().out == "no plugins\n"


def test_a_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    print_table(("name", "state"), [("plain", "[red]not markup[/red]")])
    shown = terminal.getvalue()
    assert "[red]not markup[/red]" in shown
    assert "\t" not in shown


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colours_for_who_wants_none(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert styled("error:", fg="red") == "\x1b[31merror:\x1b[0m"
    monkeypatch.setenv(name, value)
    assert styled("error:", fg="red") == "error:"
