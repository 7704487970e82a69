"""What is known of a job only while the worker lives: its progress, its secrets, who waits for it."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import Any

from comfy_cpu_worker.jobsecrets import JobSecrets

__all__ = ["LiveJob", "LiveJobs"]

#: Progress documents that are kept of a job. Who comes later than that has missed steps, not the end.
_KEPT = 256

#: Jobs that ended whose progress is kept: RunPod's client asks for the stream a second later.
_ENDED_KEPT = 256


class LiveJob:
    """A job's memory. Used in the event loop's thread alone.

    Attributes:
        secrets: what was taken out of the job's document before it was written to the disk; None if nothing was.
        queued: when it was queued, by the monotonic clock.
        delay_ms: milliseconds that it waited; None before it is started.
        cancelled: whether it was cancelled; it may be about to start all the same.
    """

    def __init__(self, secrets: JobSecrets | None, waited_s: float) -> None:
        self.secrets = secrets
        self.queued = time.monotonic() - waited_s
        self.delay_ms: int | None = None
        self.cancelled = False
        self._documents: deque[Mapping[str, Any]] = deque(maxlen=_KEPT)
        self._count = 0
        self._taken = 0
        self._changed = asyncio.Event()

    @property
    def progress(self) -> Mapping[str, Any] | None:
        """The last progress document, or None."""
        return self._documents[-1] if self._documents else None

    @property
    def change(self) -> asyncio.Event:
        """An event that is set at the next change: taken before the job is looked at, so that no change is missed."""
        return self._changed

    def wake(self) -> None:
        """Tell everybody who waits that something changed."""
        self._changed.set()
        self._changed = asyncio.Event()

    def note(self, document: Mapping[str, Any]) -> None:
        """Take a progress document."""
        self._documents.append(document)
        self._count += 1
        self.wake()

    def since(self, number: int) -> tuple[list[Mapping[str, Any]], int]:
        """The progress documents behind the first `number`, as far as they are kept, and how many there were by now."""
        missing = min(self._count - number, len(self._documents))
        return list(self._documents)[len(self._documents) - missing :] if missing > 0 else [], self._count

    def take(self) -> list[Mapping[str, Any]]:
        """The progress documents that nobody took yet."""
        documents, self._taken = self.since(self._taken)
        return documents


class LiveJobs:
    """The memory of every job that waits or runs, and of the last ones that ended. Used in the event loop's thread.

    A job is there before it can be taken from the queue, so that nobody who waits for it misses its end.
    """

    def __init__(self) -> None:
        self._active: dict[str, LiveJob] = {}
        self._ended: OrderedDict[str, LiveJob] = OrderedDict()

    def get(self, job_id: str) -> LiveJob | None:
        """A job's memory, or None."""
        return self._active.get(job_id) or self._ended.get(job_id)

    def begin(self, job_id: str, *, secrets: JobSecrets | None = None, waited_s: float = 0.0) -> None:
        """A job is about to be queued.

        Args:
            waited_s: seconds that it waited before this worker knew it.
        """
        self._active[job_id] = LiveJob(secrets, max(waited_s, 0.0))

    def again(self, job_id: str) -> bool:
        """A job that ended is about to be queued again, with its secrets; False if it waits or runs already."""
        if job_id in self._active:
            return False
        before = self._ended.pop(job_id, None)
        self.begin(job_id, secrets=before.secrets if before is not None else None)
        return True

    def end(self, job_id: str, *, keep_secrets: bool = False) -> None:
        """A job ended: tell who waits, and keep its progress for those who come a little later."""
        live = self._active.pop(job_id, None)
        if live is None:
            return
        if not keep_secrets:
            live.secrets = None
        self._ended[job_id] = live
        while len(self._ended) > _ENDED_KEPT:
            self._ended.popitem(last=False)
        live.wake()

    def drop(self, job_id: str) -> None:
        """A job was not queued after all."""
        self._active.pop(job_id, None)

    def forget(self, job_ids: Iterable[str]) -> None:
        """Drop what is kept of jobs that ended."""
        for job_id in job_ids:
            self._ended.pop(job_id, None)

    def wake_all(self) -> None:
        """Tell everybody who waits for any job to look again."""
        for live in [*self._active.values(), *self._ended.values()]:
            live.wake()
