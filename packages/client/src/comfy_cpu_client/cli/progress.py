"""How a run shows on the terminal: a bar with the node at work; plain lines where there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from comfy_cpu_core.cli.console import note
from comfy_cpu_core.results import EventSink, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

__all__ = ["show_progress"]


@contextmanager
def show_progress(*, quiet: bool = False) -> Iterator[EventSink]:
    """Give a sink for a run's events that draws them on stderr.

    Notices are left out: they are in the result's warnings, which are shown at the end.
    """
    if quiet:
        yield lambda event: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
            yield _Bar(bars)
    else:
        yield _print_line


def _name(event: Progress) -> str:
    return f"{event.class_type} (node {event.node_id})"


def _print_line(event: Progress) -> None:
    if event.kind in {"finished", "cached"}:
        cached = " (cached)" if event.kind == "cached" else ""
        note(f"[{event.done}/{event.nodes}] {_name(event)}{cached}")


class _Bar:
    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task = bars.add_task("starting", total=None)

    def __call__(self, event: Progress) -> None:
        if event.kind == "started":
            self._bars.update(self._task, description=_name(event), total=event.nodes or None, completed=event.done)
        elif event.kind == "step" and event.total:
            percent = f"{100 * event.value / event.total:.0f} %"
            self._bars.update(self._task, description=f"{_name(event)} {percent}")
        elif event.kind in {"finished", "cached"}:
            self._bars.update(self._task, completed=event.done, total=event.nodes or None)
