"""One process of the engine, from its start to its end, as the worker sees it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import socket
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from comfy_cpu_core.errors import TargetError
from comfy_cpu_core.results import EventSink, Result
from comfy_cpu_worker.backends.engine_messages import EngineSetup, read_event, read_result, work_message
from comfy_cpu_worker.backends.running import Fault, RunningJob, crashed, fault_of, hung, not_ready, overdue
from comfy_cpu_worker.endings import ProcessEnding
from comfy_cpu_worker.failures import failed
from comfy_cpu_worker.frames import Decoder, FrameError, Message, encode
from comfy_cpu_worker.process import SupervisedProcess
from comfy_cpu_worker.work import Work
from comfy_cpu_worker.workdir import WorkDirectory

__all__ = ["EngineOptions", "EngineProcess"]

log = logging.getLogger(__name__)

#: How long a process whose socket is closed may take to end by itself, in seconds.
EXIT_SECONDS = 2.0

#: How often a process is looked at before it counts as hung.
HANG_LOOKS = 4

_NAME = "the engine's process"
_UNUSED = Fault("cancelled", "the process did not become ready in time", status="cancelled")


@dataclass(frozen=True)
class EngineOptions:
    """How the engine's process is run. Times are in seconds.

    Attributes:
        models: the model tree; None for the default.
        workdir: where its directory is made; None for the system's place for temporary files.
        cache_bytes: memory for results of earlier runs; None for the engine's own default.
        memory_bytes: the most memory that it may allocate; None for no limit.
        prefetch: whether it imports what most workflows need before the first one comes.
        start_s: what it may take to become ready.
        deadline_grace_s: a run that goes on for that long after its deadline is ended by force.
        cancel_grace_s: a run that goes on for that long after it was cancelled is ended by force.
        heartbeat_s: time between two signs of life.
        hang_s: a process that gives no sign of life for that long is ended by force. Native code that holds Python's
            lock keeps it from giving one: longer than any library needs for one step.
        wait_s: how long a job waits for a process that is being started again.
    """

    models: Path | None = None
    workdir: Path | None = None
    cache_bytes: int | None = None
    memory_bytes: int | None = None
    prefetch: bool = True
    start_s: float = 60.0
    deadline_grace_s: float = 10.0
    cancel_grace_s: float = 5.0
    heartbeat_s: float = 1.0
    hang_s: float = 120.0
    wait_s: float = 60.0


class EngineProcess:
    """A process of the engine that is ready, or has ended. Made by `start`. Runs one job at a time."""

    def __init__(
        self, options: EngineOptions, process: SupervisedProcess, connection: socket.socket, directory: WorkDirectory
    ) -> None:
        self._options = options
        self._process = process
        self._connection = connection
        self._directory = directory
        self._loop = asyncio.get_running_loop()
        self._heard = False
        self._gone = False
        self._fault: Fault | None = None
        self._job: EngineJob | None = None
        self._numbers = 0
        self._outbox: asyncio.Queue[list[bytes]] = asyncio.Queue()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._described: asyncio.Future[Mapping[str, Collection[str]]] = self._loop.create_future()
        self._on_end: Callable[[], None] = lambda: None
        self._life = asyncio.create_task(self._live())

    @classmethod
    async def start(cls, options: EngineOptions, environ: Mapping[str, str]) -> Self:
        """Start a process and wait until it is ready.

        Args:
            environ: its environment (see `comfy_cpu_worker.process.child_environ`).

        Raises:
            TargetError: it did not become ready; the message has the last lines of its log.
        """
        try:
            engine = await cls._spawn(options, environ)
        except OSError as error:
            raise TargetError(
                f"{_NAME} cannot be started: {error}", remedy="free some space, memory or processes"
            ) from None
        try:
            await _either(engine._ready, engine._life, timeout_s=options.start_s)
        except BaseException:
            await engine.stop(_UNUSED)
            raise
        if engine._ready.done():
            return engine
        if engine._life.done():
            raise engine._not_ready(f"{engine.ending} before it was ready")
        await engine.stop(_UNUSED)
        raise engine._not_ready(f"was not ready within {options.start_s:g} s")

    @classmethod
    async def _spawn(cls, options: EngineOptions, environ: Mapping[str, str]) -> Self:
        with contextlib.ExitStack() as undo:
            directory = WorkDirectory(options.workdir)
            undo.callback(directory.remove)
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            setup = EngineSetup(
                fd=theirs.fileno(),
                workdir=str(directory.path),
                models=str(options.models.absolute()) if options.models is not None else None,
                cache_bytes=options.cache_bytes,
                heartbeat_s=options.heartbeat_s,
                prefetch=options.prefetch,
            )
            with theirs:
                process = await SupervisedProcess.start(
                    [
                        *(sys.executable, "-P", "-m", "comfy_cpu_worker.backends.engine_child"),
                        json.dumps(dataclasses.asdict(setup)),
                    ],
                    name="engine",
                    environ={**environ, "TMPDIR": str(directory.path)},
                    cwd=directory.path,
                    pass_fds=[theirs.fileno()],
                    memory_bytes=options.memory_bytes,
                    logger=log,
                )
            ours.setblocking(False)
            undo.pop_all()
            return cls(options, process, ours, directory)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ending(self) -> ProcessEnding | None:
        """How it ended; None while it runs."""
        return self._process.ending

    @property
    def alive(self) -> bool:
        """Whether a job may be given to it."""
        return self._fault is None and self._process.ending is None

    @property
    def busy(self) -> bool:
        """Whether it is at a job."""
        return self._job is not None

    @property
    def fault(self) -> Fault:
        """Why it ended: why the worker ended it, or what the system says."""
        return self._fault or fault_of(_NAME, self._process.ending)

    def call_at_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the process has ended, before its job gets its result; at once if it has."""
        self._on_end = callback
        if self._gone:
            callback()

    async def wait(self) -> None:
        """Wait until it has ended and its directory is gone."""
        await asyncio.wait({self._life})

    async def stop(self, fault: Fault) -> None:
        """End it at once; a job that runs fails with `fault`."""
        self._condemn(fault)
        await self.wait()

    async def image_inputs(self) -> Mapping[str, Collection[str]] | None:
        """class_type → the names of its inputs that take a picture; None if it ended before it could say."""
        self._send(Message("describe"))
        await _either(self._described, self._life)
        return self._described.result() if self._described.done() else None

    async def run(self, work: Work, on_event: EventSink) -> Result:
        """Run a job to its end; whatever happens is in the result.

        If the task is cancelled, the run is interrupted, in the end by force, before that is passed on.
        """
        self._numbers += 1
        job = self._job = EngineJob(self._numbers, on_event)
        try:
            self._send(work_message(job.number, work))
        except FrameError as error:
            self._job = None
            return failed("too_large", f"the job cannot be passed on: {error}")
        options = self._options
        limit = work.timeout_s + options.deadline_grace_s if work.timeout_s is not None else None
        try:
            await asyncio.wait({job.result}, timeout=limit)
            if not job.result.done():
                self._condemn(overdue(work.timeout_s, options.deadline_grace_s))
                await asyncio.wait({job.result})
        except asyncio.CancelledError:
            await self._interrupt(job)
            raise
        finally:
            self._job = None
        return job.result.result()

    async def _interrupt(self, job: EngineJob) -> None:
        """Bring a job to its end because nobody wants its result any more."""
        fault = Fault("cancelled", "the run was cancelled, and ended by force", status="cancelled")
        try:
            self._send(Message("cancel", {"job": job.number}))
            await asyncio.wait({job.result}, timeout=self._options.cancel_grace_s)
            if not job.result.done():
                self._condemn(fault)
                await asyncio.wait({job.result})
        except asyncio.CancelledError:  # the second: whoever cancels is in a hurry
            self._condemn(fault)
            raise

    def _send(self, message: Message) -> None:
        # A task of its own writes: one that was cancelled in the middle of a message would spoil the stream.
        self._outbox.put_nowait(encode(message))

    def _condemn(self, fault: Fault) -> None:
        """End the process for a reason; the first one counts."""
        if self._fault is None and self._process.ending is None:
            self._fault = fault
        self._process.kill()

    async def _live(self) -> None:
        """Accompany the process to its end, and clean up behind it."""
        reader = asyncio.create_task(self._read())
        helpers = [asyncio.create_task(self._write()), asyncio.create_task(self._watch())]
        try:
            await self._process.wait()
            # What it said last may still be on its way; a process that it forked may hold the socket open.
            await asyncio.wait({reader}, timeout=EXIT_SECONDS)
        finally:
            self._process.kill()
            for task in (reader, *helpers):
                task.cancel()
            await asyncio.gather(reader, *helpers, return_exceptions=True)
            self._connection.close()
            self._gone = True
            self._on_end()
            if self._job is not None:
                self._job.fail(self.fault)
            await asyncio.to_thread(self._directory.remove)

    async def _read(self) -> None:
        decoder = Decoder()
        try:
            while data := await self._loop.sock_recv(self._connection, 256 * 1024):
                self._heard = True
                decoder.receive(data)
                while (message := decoder.next_message()) is not None:
                    self._take(message)
        except FrameError as error:
            self._condemn(crashed(f"{_NAME} sent nonsense: {error}"))
        except OSError as error:
            log.debug("the engine's socket broke: %s", error)
        # Without its socket it is of no use. The system closes that when a process ends, a moment before it tells of it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXIT_SECONDS):
                await self._process.wait()
        self._condemn(crashed(f"{_NAME} closed its socket"))

    def _take(self, message: Message) -> None:
        job = self._job
        ours = job is not None and message.body.get("job") == job.number
        match message.kind:
            case "ready" if not self._ready.done():
                self._ready.set_result(None)
            case "described" if not self._described.done():
                self._described.set_result(message.body.get("image_inputs", {}))
            case "event" if ours and job is not None:
                job.take_event(read_event(message.body))
            case "result" if ours and job is not None:
                job.end(read_result(message))

    async def _write(self) -> None:
        with contextlib.suppress(OSError):  # the reader tells
            while True:
                for part in await self._outbox.get():
                    await self._loop.sock_sendall(self._connection, part)

    async def _watch(self) -> None:
        """End the process if it gives no sign of life for some time.

        Several looks in a row must see nothing: if this process itself was stopped for a while, that is one look.
        """
        await asyncio.wait({self._ready})
        silent = 0
        while silent < HANG_LOOKS:
            self._heard = False
            await asyncio.sleep(self._options.hang_s / HANG_LOOKS)
            silent = 0 if self._heard else silent + 1
        self._condemn(hung(_NAME, self._options.hang_s))

    def _not_ready(self, what: str) -> TargetError:
        return not_ready(_NAME, what, self._process.log_tail, "see its log, and `comfy-cpu doctor`")


class EngineJob(RunningJob):
    """A job that the engine's process is at.

    Attributes:
        number: what the process knows it by.
    """

    def __init__(self, number: int, on_event: EventSink) -> None:
        super().__init__(on_event)
        self.number = number


async def _either(first: asyncio.Future[Any], second: asyncio.Future[Any], *, timeout_s: float | None = None) -> None:
    await asyncio.wait({first, second}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
