"""How fetching and hashing files shows: bars with bytes, speed and time left; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from comfy_cpu_core.cli.console import note

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["FileProgress", "byte_size", "file_progress"]

#: Seconds between two lines about the same file where there is no terminal.
_LINE_EVERY = 10.0

#: Files smaller than this are done before a line about them could be read.
_SMALL = 32 * 1024 * 1024


def byte_size(size: int | None) -> str:
    """A number of bytes for people, in decimal units: ``222.9 MB``; ``?`` if not known."""
    if size is None:
        return "?"
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


class FileProgress(Protocol):
    """What `fetch_model` and `verify_model` tell of their work."""

    def fetching(self, target: str, done: int, total: int | None) -> None:
        """Bytes of a file are there."""

    def checking(self, target: str, done: int, total: int | None) -> None:
        """Bytes of a file are hashed."""

    def note(self, message: str) -> None:
        """Something that the user should know."""


@contextmanager
def file_progress() -> Iterator[FileProgress]:
    """Show progress on stderr until the block ends."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bars(bars)


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def fetching(self, target: str, done: int, total: int | None) -> None:
        self._show("fetch", target, done, total)

    def checking(self, target: str, done: int, total: int | None) -> None:
        self._show("check", target, done, total)

    def note(self, message: str) -> None:
        self._bars.console.print(message, markup=False, highlight=False)

    def _show(self, doing: str, target: str, done: int, total: int | None) -> None:
        task = self._tasks.get((doing, target))
        if task is None:
            # What was there before is where the bar starts, so that it does not count as speed.
            self._tasks[doing, target] = self._bars.add_task(f"{doing} {target}", completed=done, total=total)
        else:
            self._bars.update(task, completed=done, total=total)


class _Lines:
    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}

    def fetching(self, target: str, done: int, total: int | None) -> None:
        self._show("fetching", target, done, total, quiet_below=0)

    def checking(self, target: str, done: int, total: int | None) -> None:
        self._show("checking", target, done, total, quiet_below=_SMALL)

    def note(self, message: str) -> None:
        note(message)

    def _show(self, doing: str, target: str, done: int, total: int | None, *, quiet_below: int) -> None:
        now = time.monotonic()
        last = self._last.get((doing, target))
        if (total is not None and total < quiet_below) or (last is not None and now - last < _LINE_EVERY):
            return
        self._last[doing, target] = now
        share = f" ({100 * done // total} %)" if total else ""
        note(f"{doing} {target}: {byte_size(done)} of {byte_size(total)}{share}")
