"""A back end whose process is started again whenever it ends: what the engine and a ComfyUI have in common."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, Protocol

from comfy_cpu_core.errors import TargetError
from comfy_cpu_core.results import EventSink, Progress, Result
from comfy_cpu_worker.backends.running import Fault
from comfy_cpu_worker.backends.warmup import LOAD_IMAGE_INPUTS, warm_up
from comfy_cpu_worker.backoff import Backoff
from comfy_cpu_worker.failures import failed
from comfy_cpu_worker.work import BackendHealth, BackendState, Work

__all__ = ["KeptBackend", "WorkProcess"]

log = logging.getLogger(__name__)

_FRESH = Fault("cancelled", "a fresh process was asked for", status="cancelled")
_CLOSING = Fault("cancelled", "the worker is shutting down", status="cancelled")


class WorkProcess(Protocol):
    """A process that is ready for jobs, or has ended. Runs one job at a time."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def alive(self) -> bool:
        """Whether a job may be given to it."""

    @property
    def busy(self) -> bool:
        """Whether it is at a job."""

    @property
    def fault(self) -> Fault:
        """Why it ended: why the worker ended it, or what the system says."""

    def call_at_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the process has ended, before its job gets its result; at once if it has."""

    async def wait(self) -> None:
        """Wait until it has ended and what it left is gone."""

    async def stop(self, fault: Fault) -> None:
        """End it at once; a job that runs fails with `fault`."""

    async def image_inputs(self) -> Mapping[str, Collection[str]] | None:
        """class_type → the names of its inputs that take a picture; None if it cannot say."""

    async def run(self, work: Work, on_event: EventSink) -> Result:
        """Run a job to its end; whatever happens is in the result.

        If the task is cancelled, the run is interrupted, in the end by force, before that is passed on.
        """


def _ignore(event: Progress) -> None:
    pass


class KeptBackend(ABC):
    """Implements `comfy_cpu_worker.work.Backend`. Belongs to the event loop in which `start` is called.

    Args:
        workflows: name → what is run once by `start`, so that its models are loaded; empty for no warm-up. A process
            that is started later is not warmed up: whoever waits for it wants one workflow, not all.
        wait_s: how long a job waits for a process that is being started again, in seconds.
        backoff: how long to wait before a process that ended is started again.
    """

    #: See `Backend.name`.
    name: ClassVar[str]
    #: What messages call the process.
    what: ClassVar[str]

    def __init__(
        self,
        *,
        workflows: Mapping[str, Mapping[str, Any]] | None = None,
        wait_s: float,
        backoff: Backoff | None = None,
    ) -> None:
        self._workflows = workflows or {}
        self._wait_s = wait_s
        self._backoff = backoff or Backoff()
        self._turn = asyncio.Lock()
        self._available = asyncio.Event()
        self._process: WorkProcess | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._started = False
        self._closed = False
        self._restarts = 0
        self._problem = ""
        self._remedy: str | None = None

    @abstractmethod
    async def _start_process(self) -> WorkProcess:
        """Start a process and wait until it is ready.

        Raises:
            TargetError: it did not become ready; the message has the last lines of its log.
        """

    async def start(self) -> None:
        """See `Backend.start`. A workflow that fails to warm up is in `health`, and keeps nothing from starting."""
        process = await self._start_process()
        self._present(process)
        self._keeper = asyncio.create_task(self._keep(process))
        if self._workflows:
            inputs = await process.image_inputs()
            problems = await warm_up(
                self._warm_up_run, self._workflows, LOAD_IMAGE_INPUTS if inputs is None else inputs
            )
            self._problem = "; ".join(problems)
        self._started = True

    async def run(self, work: Work, *, on_event: EventSink) -> Result:
        """See `Backend.run`."""
        async with self._turn:
            process = await self._take()
            while process is not None and not process.alive:  # it is on its way out
                await process.wait()
                process = await self._take()
            if process is None:
                return self._unavailable()
            return await process.run(work, on_event)

    async def restart(self) -> None:
        """See `Backend.restart`. Comes back when the old process is gone."""
        async with self._turn:
            if self._process is not None and self._process.alive:
                await self._process.stop(_FRESH)

    def health(self) -> BackendHealth:
        """See `Backend.health`."""
        pid = self._process.pid if self._process is not None else None
        return BackendHealth(self._state(), self._restarts, pid, self._problem, self._remedy)

    async def close(self) -> None:
        """See `Backend.close`. A job that runs ends as cancelled."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        if self._process is not None:
            await self._process.stop(_CLOSING)
            self._process = None
        self._available.set()  # whoever waits for a process learns that there will be none

    def _state(self) -> BackendState:
        if self._closed:
            return "closed"
        if not self._started:
            return "starting"
        if self._process is None:
            return "restarting"
        return "busy" if self._process.busy else "ready"

    async def _warm_up_run(self, work: Work) -> Result:
        return await self.run(work, on_event=_ignore)

    async def _take(self) -> WorkProcess | None:
        """The process as soon as there is one; None if there is none for too long, or for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._wait_s):
                await self._available.wait()
        return self._process

    def _unavailable(self) -> Result:
        if self._closed:
            return failed(_CLOSING.code, _CLOSING.message, status=_CLOSING.status)
        return failed(
            "worker_unavailable",
            f"no process of {self.what} was ready within {self._wait_s:g} s: {self._problem or 'it is starting'}",
            remedy=self._remedy or "try again later",
        )

    async def _keep(self, process: WorkProcess) -> None:
        """See to it that there is a process, for ever."""
        while True:
            await process.wait()
            fault = process.fault
            if fault.status == "failed":
                self._problem, self._remedy = fault.message, fault.remedy
                delay = self._backoff.crashed()
                log.error("%s; a new one starts in %.1f s", fault.message, delay)
            else:  # it was ended on purpose: a deadline, a cancellation, a restart
                delay = 0.0
                log.info("%s; a new one starts", fault.message)
            process = await self._start_again(delay)
            self._present(process)

    async def _start_again(self, delay: float) -> WorkProcess:
        while True:
            await asyncio.sleep(delay)
            try:
                process = await self._start_process()
            except TargetError as error:
                self._problem, self._remedy = str(error), error.remedy
                delay = self._backoff.crashed()
                log.error("%s; the next try is in %.1f s", error, delay)
                continue
            self._restarts += 1
            self._problem, self._remedy = "", None
            return process

    def _present(self, process: WorkProcess) -> None:
        """Give a process to the jobs until it ends."""

        def gone() -> None:
            self._process = None
            self._available.clear()

        self._backoff.started()
        self._process = process
        self._available.set()
        process.call_at_end(gone)
