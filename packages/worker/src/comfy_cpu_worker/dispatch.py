"""Takes jobs from the queue, one after the other, and runs each to its end."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, Protocol

from comfy_cpu_core.errors import ComfyCpuError
from comfy_cpu_worker.errors import StorageFailed
from comfy_cpu_worker.jobsecrets import with_secrets
from comfy_cpu_worker.live import LiveJob, LiveJobs
from comfy_cpu_worker.outcome import JobOutcome, ProgressSink
from comfy_cpu_worker.records import JobRecord, Started
from comfy_cpu_worker.stats import WorkerStats
from comfy_cpu_worker.store import Store
from comfy_cpu_worker.storethread import StoreThread
from comfy_cpu_worker.work import Backend

__all__ = ["CANCELLED", "Dispatcher", "Runner"]

log = logging.getLogger(__name__)

#: The error of a job that somebody cancelled.
CANCELLED = "the job was cancelled"

#: Seconds between two attempts to take a job where the state directory cannot be written.
_STORAGE_RETRY_S = 1.0

#: Why a run is interrupted: cancelled by a client, its time to live is over, the worker ends.
Reason = Literal["cancelled", "expired", "stopping"]


class Runner(Protocol):
    """What runs a job: `comfy_cpu_worker.runner.JobRunner`."""

    async def run(self, job_id: str, document: Mapping[str, Any], *, on_progress: ProgressSink) -> JobOutcome:
        """Run a job to its end; a cancelled task interrupts it."""


class Dispatcher:
    """Runs what waits in the store, as long as there is something.

    Args:
        store: where the jobs are.
        runner: what runs them.
        backend: restarted behind a job that asks for it.
        live: what is known of them besides.
        stats: where they are counted.
        refresh: whether to restart the back end behind every job.
        on_end: called with a job as it ended, and its document.

    Attributes:
        unsaved: jobs whose end could not be written to the disk yet; they are answered from here.
        problem: why no job is taken, in one line, or empty.
    """

    def __init__(
        self,
        store: StoreThread,
        runner: Runner,
        backend: Backend,
        live: LiveJobs,
        stats: WorkerStats,
        *,
        refresh: bool,
        on_end: Callable[[JobRecord, Mapping[str, Any]], None] | None,
    ) -> None:
        self._store = store
        self._runner = runner
        self._backend = backend
        self._live = live
        self._stats = stats
        self._refresh = refresh
        self._on_end = on_end
        self.unsaved: dict[str, JobRecord] = {}
        self.problem = ""
        self._more = asyncio.Event()
        self._draining = False  # set by `drain`, for good
        self._loop: asyncio.Task[None] | None = None
        self._current: str | None = None
        self._run: asyncio.Task[JobOutcome] | None = None
        self._reason: Reason | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin to take jobs, in a task that ends when it is drained."""
        self._loop = asyncio.create_task(self._work(), name="comfy-cpu-dispatcher")
        return self._loop

    def wake(self) -> None:
        """Say that there may be a job."""
        self._more.set()

    def cancel(self, job_id: str) -> None:
        """Interrupt a job if it is the one that runs, or is about to."""
        if job_id == self._current:
            self._interrupt("cancelled")

    async def drain(self, grace_s: float) -> None:
        """Take no more jobs, and wait for the one that runs; after `grace_s` it is interrupted and handed back."""
        self._draining = True
        self.wake()
        if self._loop is None:
            return
        done, _ = await asyncio.wait({self._loop}, timeout=grace_s)
        if not done:
            self.hurry()
        await self._loop

    def hurry(self) -> None:
        """Interrupt the job that runs, and hand it back; for the time while it is drained."""
        self._interrupt("stopping")

    async def save_unsaved(self) -> None:
        """Try again to write the ends of jobs that could not be written.

        Raises:
            StorageFailed: they still cannot.
        """
        for record in list(self.unsaved.values()):
            await self._store.call(Store.finish, record)
            del self.unsaved[record.id]

    # Inside -----------------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while not self._draining:
            self._more.clear()
            try:
                started = await self._store.call(Store.start_next)
            except StorageFailed as error:
                if not self.problem:
                    log.error("no job is started: %s", error)
                self.problem = str(error)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._more.wait(), _STORAGE_RETRY_S)
                continue
            self.problem = ""
            if started is None:
                await self._more.wait()
            else:
                await self._take(started)

    async def _take(self, started: Started) -> None:
        record = started.record
        live = self._live.get(record.id)
        assert live is not None  # noqa: S101  # it is there before it is in the store
        began = time.monotonic()
        live.delay_ms = round(1000 * (began - live.queued))
        record = replace(record, delay_ms=live.delay_ms)
        self._current = record.id
        self._reason = "cancelled" if live.cancelled else "stopping" if self._draining else None
        live.wake()
        log.info("job %s: started%s", record.id, f", attempt {record.attempts}" if record.attempts > 1 else "")
        try:
            document = await asyncio.to_thread(_document, started.document, live)
            outcome = await self._run_job(record, document, live)
            if outcome is None:
                await self._hand_back(record)
            else:
                await self._finish(replace(record, execution_ms=_since(began)), document, outcome)
        finally:
            self._current = self._run = None
        if outcome is not None and (outcome.refresh_worker or self._refresh):
            await self._restart()

    async def _run_job(self, record: JobRecord, document: Mapping[str, Any], live: LiveJob) -> JobOutcome | None:
        """Run it; None if it is to go back into the queue."""
        outcome = JobOutcome("CANCELLED", {}, CANCELLED)
        if self._reason is None:
            self._run = asyncio.create_task(self._runner.run(record.id, document, on_progress=live.note))
            done, _ = await asyncio.wait({self._run}, timeout=max(record.expires_at - time.time(), 0))
            if not done:
                self._interrupt("expired")
                await asyncio.wait({self._run})
            outcome = _outcome_of(self._run, record.id)
        if outcome.state == "CANCELLED":  # else it ended before an interrupt came
            if self._reason == "stopping":
                return None
            if self._reason == "expired":
                return JobOutcome("TIMED_OUT", {}, "its time to live (policy.ttl) ended while it ran")
        return outcome

    def _interrupt(self, reason: Reason) -> None:
        if self._current is not None and self._reason is None:
            self._reason = reason
            if self._run is not None:
                self._run.cancel()

    async def _hand_back(self, record: JobRecord) -> None:
        log.info("job %s: interrupted and handed back to the queue, since the worker ends", record.id)
        try:
            await self._store.call(Store.hand_back, record.id)
        except StorageFailed as error:
            log.error("job %s will count as cut off: %s", record.id, error)

    async def _finish(self, record: JobRecord, document: Mapping[str, Any], outcome: JobOutcome) -> None:
        output, outcome = await asyncio.to_thread(_json_of, outcome)
        ended = replace(record, state=outcome.state, error=outcome.error, output=output, finished_at=time.time())
        try:
            counts = await self._store.call(Store.finish, ended)
        except StorageFailed as error:
            log.error("job %s: its result is kept in memory only: %s", record.id, error)
            self.unsaved[record.id] = ended
            counts = True
        if not counts:
            return
        waited_s, ran_s = (record.delay_ms or 0) / 1000, (record.execution_ms or 0) / 1000
        self._stats.finished(outcome.state, waited_s, ran_s)
        log.info("job %s: %s after %.2f s%s", record.id, outcome.state, ran_s, _why(outcome))
        self._live.end(record.id, keep_secrets=outcome.state in {"FAILED", "TIMED_OUT"})
        if self._on_end is not None:
            self._on_end(ended, document)

    async def _restart(self) -> None:
        try:
            await self._backend.restart()
        except ComfyCpuError as error:
            log.error("the back end could not be started again: %s", error)


def _since(began: float) -> int:
    return round(1000 * (time.monotonic() - began))


def _document(text: bytes, live: LiveJob) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text)
    return document if live.secrets is None else with_secrets(document, live.secrets)


def _outcome_of(run: asyncio.Task[JobOutcome], job_id: str) -> JobOutcome:
    try:
        return run.result()
    except asyncio.CancelledError:
        return JobOutcome("CANCELLED", {}, CANCELLED)
    except Exception as error:  # whoever waits for the job must hear of it, whatever it is
        log.exception("job %s: the worker failed", job_id)
        return JobOutcome("FAILED", {}, f"the worker failed: {type(error).__name__}; its log says more")


def _json_of(outcome: JobOutcome) -> tuple[bytes | None, JobOutcome]:
    """The output as JSON text; an output that JSON cannot hold makes the job fail."""
    if not outcome.output:
        return None, outcome
    try:
        return json.dumps(outcome.output, allow_nan=False, separators=(",", ":")).encode(), outcome
    except (TypeError, ValueError, RecursionError) as error:
        return None, replace(outcome, state="FAILED", output={}, error=f"the output is no JSON: {error}")


def _why(outcome: JobOutcome) -> str:
    # What a node says may have line breaks in it, which would look like lines of ours.
    return f": {' '.join(outcome.error.split())[:500]}" if outcome.error else ""
