"""How a batch shows on the terminal: a bar and a table of targets; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from comfy_cpu_client.batch.runner import BatchProgress
from comfy_cpu_core.cli.console import note

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

__all__ = ["show_batch"]

#: Seconds between two lines where there is no terminal.
_LINE_EVERY = 10.0


@contextmanager
def show_batch(*, quiet: bool = False) -> Iterator[Callable[[BatchProgress], None] | None]:
    """Give a sink for a batch's progress that draws it on stderr."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:
            yield _Table(live)
    else:
        yield _Lines()


def headline(progress: BatchProgress) -> str:
    """How far it is, how fast, and how long it will take, in one line."""
    from comfy_cpu_client.batch.plots import number, seconds

    parts = [f"{progress.ended}/{progress.inputs}", f"{progress.in_flight} in flight"]
    parts += [f"{progress.counts[name]} {name.replace('_', ' ')}" for name in _TOLD if progress.counts.get(name)]
    rate = progress.ended_here / progress.seconds if progress.seconds > 0 else 0.0
    if rate:
        parts.append(f"{number(rate)} a second")
        left = (progress.inputs - progress.ended) / rate
        if left:
            parts.append(f"{seconds(max(1, round(left)))} left")
    return ", ".join(parts)


_TOLD = ("completed", "blocked", "failed", "cancelled", "timed_out", "retried")


class _Lines:
    def __init__(self) -> None:
        self._last = float("-inf")

    def __call__(self, progress: BatchProgress) -> None:
        now = time.monotonic()
        done = not progress.in_flight and progress.ended == progress.inputs
        if now - self._last < _LINE_EVERY and not done:
            return
        self._last = now
        note(headline(progress))
        for target in progress.targets:
            if target.state != "up":
                note(f"{target.name} is {target.state}: {target.problem}")


class _Table:
    def __init__(self, live: Live) -> None:
        self._live = live
        self._failures: list[tuple[str, str]] = []

    def __call__(self, progress: BatchProgress) -> None:
        if progress.last_failure is not None:
            self._failures = [*self._failures, progress.last_failure][-3:]
        self._live.update(self._draw(progress), refresh=True)

    def _draw(self, progress: BatchProgress) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("target", overflow="fold")
        for name in ("state", "health", "in flight", "ended", "failures"):
            table.add_column(name, justify="right")
        table.add_column("problem", overflow="ellipsis", no_wrap=True)
        for target in progress.targets:
            style = "green" if target.state == "up" and target.health > 0.8 else "yellow"
            table.add_row(
                Text(target.name),
                Text(target.state, style="red" if target.state in {"down", "gone"} else style),
                Text(f"{100 * target.health:.0f} %", style=style),
                Text(str(target.in_flight)),
                Text(str(target.ended)),
                Text(str(target.failed)),
                Text("" if target.state == "up" and target.health > 0.8 else target.problem, style="dim"),
            )
        failures = [
            Text.assemble((f"{label}: ", "red"), (message, "dim"), no_wrap=True, overflow="ellipsis")
            for label, message in self._failures
        ]
        bar = Table.grid()  # gives it a line of its own
        bar.add_row(ProgressBar(total=max(1, progress.inputs), completed=progress.ended, width=60))
        return Group(Text(headline(progress)), bar, table, *failures)
