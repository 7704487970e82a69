"""Progress, told some times a second at most."""

from __future__ import annotations

import asyncio
import logging

from comfy_cpu_core.results import Progress
from comfy_cpu_worker.outcome import ProgressSink, progress_document

__all__ = ["Throttle"]

log = logging.getLogger(__name__)

#: Seconds between two documents. RunPod keeps only the last one, and takes each in a request of its own.
INTERVAL_S = 0.25


class Throttle:
    """Turns a run's events into progress documents: the first at once, the last one always, notices all of them.

    Used in the event loop's thread.

    Args:
        sink: takes the documents; if it raises, it is not called again.
        interval_s: seconds between two of them.
    """

    def __init__(self, sink: ProgressSink, interval_s: float = INTERVAL_S) -> None:
        self._sink: ProgressSink | None = sink
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._next = 0.0
        self._pending: Progress | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, event: Progress) -> None:
        """Take an event."""
        if event.kind == "notice":
            self.flush()
            self._send(event)
        elif self._loop.time() >= self._next:
            self._next = self._loop.time() + self._interval_s
            self._pending = None
            self._send(event)
        else:
            self._pending = event
            if self._timer is None:
                self._timer = self._loop.call_at(self._next, self.flush)

    def flush(self) -> None:
        """Send what is held back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        event, self._pending = self._pending, None
        if event is not None:
            self._next = self._loop.time() + self._interval_s
            self._send(event)

    def close(self) -> None:
        """Send nothing more, not even what is held back."""
        self._sink = None
        self.flush()

    def _send(self, event: Progress) -> None:
        if self._sink is None:
            return
        try:
            self._sink(progress_document(event))
        except Exception as error:  # a listener must not end the run
            log.warning("progress is no longer reported: %s: %s", type(error).__name__, error)
            self._sink = None
