"""`Run`: a run under way, whichever target carries it out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from comfy_cpu_core.results import EventSink, Job, JobStatus, Progress, Result

if TYPE_CHECKING:
    from comfy_cpu_client.prepare import Prepared

__all__ = ["ProgressLog", "Run"]

#: Events of a run that are kept for those who have not asked for them yet; the oldest go first.
_KEPT = 10_000
#: Seconds between two looks at whether a run has ended, while nothing is told of it.
_LOOK_SECONDS = 0.1


class ProgressLog:
    """Takes a run's events, and keeps them for `Run.progress` and `Run.stream`.

    Args:
        then: gets every event, too.
    """

    def __init__(self, then: EventSink | None = None) -> None:
        self._then = then
        self._told = threading.Condition()
        self._events: deque[Progress] = deque(maxlen=_KEPT)
        self._count = 0

    def __call__(self, event: Progress) -> None:
        """Take an event."""
        with self._told:
            self._events.append(event)
            self._count += 1
            self._told.notify_all()
        if self._then is not None:
            self._then(event)

    @property
    def last(self) -> Progress | None:
        """The last event, or None."""
        return self._events[-1] if self._events else None

    def after(self, seen: int, timeout_s: float) -> tuple[list[Progress], int]:
        """The events beyond the first `seen`, as far as they are kept, and how many there were in all.

        Waits `timeout_s` seconds at most for one.
        """
        with self._told:
            self._told.wait_for(lambda: self._count > seen, timeout_s)
            new = min(self._count - seen, len(self._events))
            return list(self._events)[len(self._events) - new :], self._count


class Run:
    """A run under way.

    Attributes:
        prepared: what was handed to the target; None for a run that somebody else submitted.
    """

    def __init__(self, job: Job, prepared: Prepared | None, log: ProgressLog | None = None) -> None:
        self.prepared = prepared
        self._job = job
        self._log = log or ProgressLog()

    @property
    def id(self) -> str:
        """The target's name for it; empty as long as that is not known."""
        return self._job.id

    @property
    def progress(self) -> Progress | None:
        """What was told last, or None."""
        return self._log.last

    def status(self) -> JobStatus:
        """Where it stands now."""
        return self._job.status()

    def stream(self) -> Iterator[Progress]:
        """Every event of the run from its beginning, as it comes, until the run has ended; then ask for `result`."""
        seen = 0
        while True:
            ended = self.status() not in {"queued", "running"}
            events, seen = self._log.after(seen, 0.0 if ended else _LOOK_SECONDS)
            yield from events
            if ended and not events:
                return

    def wait(self, timeout_s: float | None = None) -> Result:
        """Wait for its end; the result carries the report of the CPU conversion, and warns of gates left out.

        Raises:
            DeadlineExceeded: still under way after `timeout_s` seconds; the run goes on.
            TargetError: nobody can tell how it ended.
        """
        result = self._job.wait(timeout_s)
        if self.prepared is None:
            return result
        report = self.prepared.report
        return replace(
            result,
            changes=result.changes if report is None else report.to_json(),
            warnings=(*self.prepared.warnings, *result.warnings),
        )

    def result(self, timeout_s: float | None = None) -> Result:
        """The same as `wait`, as futures call it."""
        return self.wait(timeout_s)

    def cancel(self) -> None:
        """Ask it to end."""
        self._job.cancel()
