"""How a build shows: its steps, and on a terminal the line that it is at."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from comfy_cpu_core.cli.console import note

if TYPE_CHECKING:
    from comfy_cpu_core.image import BuildEvent

__all__ = ["build_progress"]

_WIDTH = 160


@contextmanager
def build_progress() -> Iterator[Callable[[BuildEvent], None]]:
    """Show the events of a build or a push on stderr until the block ends."""
    if not sys.stderr.isatty():
        yield _print_step
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("working") as status:

        def on_event(event: BuildEvent) -> None:
            if event.kind == "step":
                status.console.print(_step(event), markup=False, highlight=False)
                status.update("working")
            else:
                status.update(escape(event.text[:100]))

        yield on_event


def _print_step(event: BuildEvent) -> None:
    if event.kind == "step":
        note(_step(event))


def _step(event: BuildEvent) -> str:
    return f"[{event.number}/{event.total}] {event.text[:_WIDTH]}"
