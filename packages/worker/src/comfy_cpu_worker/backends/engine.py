"""The engine as a back end: in a process of its own that is started again whenever it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from comfy_cpu_core.errors import TargetError
from comfy_cpu_core.results import EventSink, Progress, Result
from comfy_cpu_worker.backends.engine_job import Fault
from comfy_cpu_worker.backends.engine_process import EngineOptions, EngineProcess
from comfy_cpu_worker.backends.warmup import LOAD_IMAGE_INPUTS, warm_up
from comfy_cpu_worker.backoff import Backoff
from comfy_cpu_worker.failures import failed
from comfy_cpu_worker.process import child_environ
from comfy_cpu_worker.work import BackendHealth, BackendState, Work
from comfy_cpu_worker.workdir import sweep

__all__ = ["EngineBackend", "EngineOptions"]

log = logging.getLogger(__name__)

_FRESH = Fault("cancelled", "a fresh process was asked for", status="cancelled")
_CLOSING = Fault("cancelled", "the worker is shutting down", status="cancelled")


def _ignore(event: Progress) -> None:
    pass


class EngineBackend:
    """Implements `comfy_cpu_worker.work.Backend`. Belongs to the event loop in which `start` is called.

    Args:
        options: how the process is run.
        environ: this process's environment; the child gets no secrets of it.
        workflows: name → what is run once by `start`, so that its models are loaded; empty for no warm-up. A process
            that is started later is not warmed up: whoever waits for it wants one workflow, not all.
        backoff: how long to wait before a process that ended is started again.
    """

    name = "engine"

    def __init__(
        self,
        options: EngineOptions,
        *,
        environ: Mapping[str, str],
        workflows: Mapping[str, Mapping[str, Any]] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._options = options
        self._environ = child_environ(environ)
        self._workflows = workflows or {}
        self._backoff = backoff or Backoff()
        self._turn = asyncio.Lock()
        self._available = asyncio.Event()
        self._process: EngineProcess | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._started = False
        self._closed = False
        self._restarts = 0
        self._problem = ""
        self._remedy: str | None = None

    async def start(self) -> None:
        """See `Backend.start`. A workflow that fails to warm up is in `health`, and keeps nothing from starting."""
        await asyncio.to_thread(sweep, self._options.workdir)
        process = await EngineProcess.start(self._options, self._environ)
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

    async def _take(self) -> EngineProcess | None:
        """The process as soon as there is one; None if there is none for too long, or for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.wait_s):
                await self._available.wait()
        return self._process

    def _unavailable(self) -> Result:
        if self._closed:
            return failed(_CLOSING.code, _CLOSING.message, status=_CLOSING.status)
        return failed(
            "worker_unavailable",
            f"no process of the engine was ready within {self._options.wait_s:g} s: {self._problem or 'it is starting'}",
            remedy=self._remedy or "try again later",
        )

    async def _keep(self, process: EngineProcess) -> None:
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

    async def _start_again(self, delay: float) -> EngineProcess:
        while True:
            await asyncio.sleep(delay)
            try:
                process = await EngineProcess.start(self._options, self._environ)
            except TargetError as error:
                self._problem, self._remedy = str(error), error.remedy
                delay = self._backoff.crashed()
                log.error("%s; the next try is in %.1f s", error, delay)
                continue
            self._restarts += 1
            self._problem, self._remedy = "", None
            return process

    def _present(self, process: EngineProcess) -> None:
        """Give a process to the jobs until it ends."""

        def gone() -> None:
            self._process = None
            self._available.clear()

        self._backoff.started()
        self._process = process
        self._available.set()
        process.call_at_end(gone)
