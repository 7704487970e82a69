"""The queue behind the local API: RunPod's states and operations over jobs that survive the worker."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from comfy_cpu_worker.dispatch import CANCELLED, Dispatcher, Runner
from comfy_cpu_worker.errors import JobConflict, ShuttingDown, StorageFailed, WorkerError
from comfy_cpu_worker.live import LiveJobs
from comfy_cpu_worker.outcome import FinalState
from comfy_cpu_worker.records import FINAL_STATES, JobRecord, NewJob
from comfy_cpu_worker.stats import WorkerStats
from comfy_cpu_worker.store import Store
from comfy_cpu_worker.storethread import StoreThread
from comfy_cpu_worker.submission import Submission
from comfy_cpu_worker.work import Backend

__all__ = ["Change", "JobQueue", "JobView", "QueueLimits"]

log = logging.getLogger(__name__)

PURGED = "the job was removed from the queue (purge-queue)"

#: Seconds between two looks for what need not be kept, at most.
_SWEEP_S = 5.0

#: What a client is told to wait while the worker ends: about what the next one needs to start.
_ENDING_S = 5.0


@dataclass(frozen=True)
class QueueLimits:
    """What a queue holds, and for how long.

    Attributes:
        waiting: jobs that may wait.
        keep_run_s, keep_sync_s: seconds that the result of a job is kept that came by ``run`` or by ``runsync``.
        keep_bytes: what all results may take; the oldest go first.
        ttl_s: seconds that a job may live, unless it says otherwise.
    """

    waiting: int = 50
    keep_run_s: float = 1800.0
    keep_sync_s: float = 60.0
    keep_bytes: int = 2 * 2**30
    ttl_s: float = 86400.0


@dataclass(frozen=True)
class JobView:
    """A job as it is now.

    Attributes:
        record: what is kept of it; `delay_ms` is there as soon as it was started.
        progress: its last progress document while it runs, or None.
    """

    record: JobRecord
    progress: Mapping[str, Any] | None = None


#: A job as it is, without its output; the progress since the last change; a mark, how much progress there was by then.
Change = tuple[JobView, list[Mapping[str, Any]], int]


class JobQueue:
    """A bounded queue, and what takes from it. Used in the event loop's thread.

    Args:
        runner: what runs the jobs.
        backend: restarted behind jobs that ask for it.
        limits: see `QueueLimits`.
        refresh: whether to restart the back end behind every job.
        on_end: called with every job that ran, as it ended, and its document.
    """

    def __init__(
        self,
        runner: Runner,
        backend: Backend,
        limits: QueueLimits,
        *,
        refresh: bool = False,
        on_end: Callable[[JobRecord, Mapping[str, Any]], None] | None = None,
    ) -> None:
        self.stats = WorkerStats()
        self._limits = limits
        self._store = StoreThread()
        self._live = LiveJobs()
        self._dispatcher = Dispatcher(
            self._store, runner, backend, self._live, self.stats, refresh=refresh, on_end=on_end
        )
        self._sweeper: asyncio.Task[None] | None = None
        self._draining = False
        self._closed = False

    @property
    def draining(self) -> bool:
        """Whether no more jobs are taken."""
        return self._draining

    @property
    def problem(self) -> str:
        """Why no job is started, in one line, or empty."""
        return self._dispatcher.problem

    async def open(self, directory: Path) -> None:
        """Open the store and deal with what an earlier worker left; jobs can be submitted from now on.

        Raises:
            StorageFailed, ComfyCpuError: see `comfy_cpu_worker.store.Store`.
        """
        await self._store.open(directory)
        now = time.time()
        recovered = await self._store.call(Store.recover, now)
        for job_id, queued_at in recovered.waiting.items():
            self._live.begin(job_id, waited_s=now - queued_at)
        for job_id in recovered.cut_off:
            log.warning("job %s: cut off when the worker died; queued again", job_id)
        for job_id, error in recovered.failed.items():
            log.error("job %s: %s", job_id, error)
        self.stats.cut_off += len(recovered.cut_off)
        self.stats.ended["FAILED"] += len(recovered.failed)
        self._sweeper = asyncio.create_task(self._sweep(), name="comfy-cpu-sweeper")

    def start(self) -> asyncio.Task[None]:
        """Begin to run jobs, in a task that ends when the queue is drained."""
        return self._dispatcher.start()

    async def submit(self, submission: Submission) -> JobView:
        """Queue a job, or find the one that has its idempotency key.

        Raises:
            QueueFull: too many wait.
            ShuttingDown: the worker ends.
            KeyReused: its idempotency key belongs to a job that says something else.
            StorageFailed: it could not be written; it is not accepted.
        """
        self._check_open()
        limits = self._limits
        new = NewJob(
            id=f"{'sync-' if submission.sync else ''}{uuid.uuid4()}",
            document=submission.document,
            has_secrets=submission.secrets is not None,
            ttl_s=limits.ttl_s if submission.ttl_s is None else submission.ttl_s,
            keep_s=limits.keep_sync_s if submission.sync else limits.keep_run_s,
            idempotency_key=submission.idempotency_key,
            digest=submission.digest,
        )
        self._live.begin(new.id, secrets=submission.secrets)  # before the job can be taken
        try:
            record, created = await self._store.call(
                Store.add, new, time.time(), limits.waiting, self.stats.retry_after_s
            )
        except WorkerError as error:
            self._live.drop(new.id)
            self.stats.refused[error.code] += 1
            raise
        if not created:
            self._live.drop(new.id)
            return await self.get(record.id)
        log.info("job %s: queued", record.id)
        self._dispatcher.wake()
        return JobView(record)

    async def get(self, job_id: str, *, output: bool = True) -> JobView:
        """A job as it is now.

        Raises:
            JobUnknown: there is none of that id.
        """
        unsaved = self._dispatcher.unsaved.get(job_id)
        if unsaved is not None:
            return JobView(unsaved)
        record = await self._store.call(Store.get, job_id, output=output)
        unsaved = self._dispatcher.unsaved.get(job_id)  # it may have ended meanwhile
        if unsaved is not None:
            return JobView(unsaved)
        live = self._live.get(job_id)
        if record.state != "IN_PROGRESS" or live is None:
            return JobView(record)
        return JobView(replace(record, delay_ms=live.delay_ms), live.progress)

    async def wait(self, job_id: str, timeout_s: float) -> JobView:
        """Wait for a job's end, at most so long, and not beyond this worker's; give it as it is then.

        Raises:
            JobUnknown: there is none of that id.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                async for _ in self.follow(job_id):
                    pass
        return await self.get(job_id)

    async def follow(self, job_id: str, after: int = 0) -> AsyncGenerator[Change, None]:
        """A job each time something changes, until its end.

        Args:
            after: the last mark that was seen; 0 for all the progress that is kept.

        Raises:
            JobUnknown: there is none of that id.
        """
        while True:
            live = self._live.get(job_id)
            change = live.change if live is not None else None
            view = await self.get(job_id, output=False)
            documents, after = live.since(after) if live is not None else ([], after)
            yield view, documents, after
            if view.record.ended or self._closed or change is None:
                return
            await change.wait()

    async def take_progress(self, job_id: str) -> tuple[JobView, list[Mapping[str, Any]]]:
        """A job as it is now (without output), and the progress documents that nobody took yet.

        Raises:
            JobUnknown: there is none of that id.
        """
        view = await self.get(job_id, output=False)
        live = self._live.get(job_id)
        return view, live.take() if live is not None else []

    async def cancel(self, job_id: str) -> JobView:
        """End a job that waits or runs; give it as it is then. One that ended stays as it is.

        Raises:
            JobUnknown: there is none of that id.
            StorageFailed: it could not be written.
        """
        if job_id not in self._dispatcher.unsaved:
            before = await self._store.call(Store.cancel, job_id, CANCELLED, time.time())
            if before in FINAL_STATES:
                return await self.get(job_id)
            live = self._live.get(job_id)
            if live is not None:
                live.cancelled = True
            self._dispatcher.cancel(job_id)
            self._live.end(job_id)
            self.stats.ended["CANCELLED"] += 1
            log.info("job %s: cancelled", job_id)
        return await self.get(job_id)

    async def retry(self, job_id: str) -> JobView:
        """Queue a job once more that FAILED or TIMED_OUT.

        Raises:
            JobUnknown: there is none of that id.
            JobConflict: its state does not allow it, or its secrets are gone.
            QueueFull, ShuttingDown, StorageFailed: see `submit`.
        """
        self._check_open()
        view = await self.get(job_id, output=False)
        live = self._live.get(job_id)
        if view.record.ended and view.record.has_secrets and (live is None or live.secrets is None):
            raise JobConflict(
                f"job {job_id} cannot be run again: its secrets are no longer kept", remedy="submit it again"
            )
        fresh = view.record.state in {"FAILED", "TIMED_OUT"} and self._live.again(job_id)
        try:
            record = await self._store.call(
                Store.retry, job_id, time.time(), self._limits.waiting, self.stats.retry_after_s
            )
        except WorkerError:
            if fresh:
                self._live.end(job_id, keep_secrets=True)
            raise
        self.stats.retried += 1
        log.info("job %s: queued again on request", job_id)
        self._dispatcher.wake()
        return JobView(record)

    async def purge(self) -> int:
        """End every job that waits; give their number.

        Raises:
            StorageFailed: it could not be written.
        """
        purged = await self._store.call(Store.purge, PURGED, time.time())
        self._ended(purged, "CANCELLED")
        return len(purged)

    async def counts(self) -> dict[str, int]:
        """How many jobs are in each state that occurs."""
        return await self._store.call(Store.counts)

    async def drain(self, grace_s: float) -> None:
        """Take no more jobs, and let the one that runs end; after `grace_s` it is interrupted and handed back."""
        self._draining = True
        await self._dispatcher.drain(grace_s)
        self._closed = True
        self._live.wake_all()

    def hurry(self) -> None:
        """While it is drained: interrupt the job that runs, and hand it back."""
        self._dispatcher.hurry()

    async def close(self) -> None:
        """Hand back what runs, and close the store. May be called twice."""
        await self.drain(0)
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait({self._sweeper})
            self._sweeper = None
        await self._store.close()

    # Inside -----------------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._draining:
            raise ShuttingDown(
                "the worker ends and takes no more jobs", retry_after_s=_ENDING_S, remedy="try again when it is back"
            )

    def _ended(self, job_ids: Sequence[str], state: FinalState) -> None:
        """Jobs ended that did not run."""
        self.stats.ended[state] += len(job_ids)
        for job_id in job_ids:
            self._live.end(job_id, keep_secrets=state == "TIMED_OUT")

    async def _sweep(self) -> None:
        limits = self._limits
        period = min(_SWEEP_S, limits.keep_run_s / 2, limits.keep_sync_s / 2)
        while True:
            await asyncio.sleep(period)
            try:
                await self._dispatcher.save_unsaved()
                self._ended(await self._store.call(Store.expire, time.time()), "TIMED_OUT")
                self._live.forget(await self._store.call(Store.sweep, time.time(), limits.keep_bytes))
            except StorageFailed as error:
                log.error("old results were not cleared up: %s", error)
