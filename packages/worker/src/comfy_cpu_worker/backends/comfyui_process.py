"""One process of ComfyUI, from its start to its end, as the worker sees it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from comfy_cpu_client import Client
from comfy_cpu_core.errors import TargetError
from comfy_cpu_core.results import EventSink, Result
from comfy_cpu_worker.backends.comfyui_files import ComfyUIFiles
from comfy_cpu_worker.backends.comfyui_job import ComfyUIRun
from comfy_cpu_worker.backends.running import Fault, RunningJob, fault_of, hung, not_ready, overdue
from comfy_cpu_worker.backends.warmup import find_image_inputs
from comfy_cpu_worker.process import SupervisedProcess
from comfy_cpu_worker.work import Work
from comfy_cpu_worker.workdir import WorkDirectory

__all__ = ["ComfyUIOptions", "ComfyUIProcess"]

log = logging.getLogger(__name__)

#: How often a process is looked at before it counts as hung.
HANG_LOOKS = 4

_NAME = "ComfyUI"
_HOST = "127.0.0.1"
_READY_SECONDS = 0.1
_PROBE_SECONDS = 5.0
_IDLE_SECONDS = 0.1
_END_SECONDS = 2.0

_UNUSED = Fault("cancelled", "the process did not become ready in time", status="cancelled")


@dataclass(frozen=True)
class ComfyUIOptions:
    """How ComfyUI's process is run. Times are in seconds.

    Attributes:
        root: the directory that has main.py.
        python: the Python that runs it.
        models: a model tree to use besides the one that it has; None for none.
        arguments: more of its arguments.
        log_level: what it logs.
        workdir: where its directories are made; None for the system's place for temporary files.
        memory_bytes: the most memory that it may allocate; None for no limit.
        start_s: what it may take to become ready.
        deadline_grace_s: a run that goes on for that long after its deadline is ended by force.
        cancel_grace_s: a run that goes on for that long after it was cancelled is ended by force.
        hang_s: a process that answers no request for that long is ended by force. Native code that holds Python's lock
            keeps it from answering: longer than any library needs for one step.
        wait_s: how long a job waits for a process that is being started again.
    """

    root: Path
    python: Path
    models: Path | None = None
    arguments: tuple[str, ...] = ()
    log_level: str = "INFO"
    workdir: Path | None = None
    memory_bytes: int | None = None
    start_s: float = 300.0
    deadline_grace_s: float = 10.0
    cancel_grace_s: float = 5.0
    hang_s: float = 120.0
    wait_s: float = 300.0


class ComfyUIProcess:
    """A process of ComfyUI that is ready, or has ended. Made by `start`. Runs one job at a time."""

    def __init__(
        self,
        options: ComfyUIOptions,
        process: SupervisedProcess,
        port: int,
        directory: WorkDirectory,
        files: ComfyUIFiles,
    ) -> None:
        self._options = options
        self._process = process
        self._port = port
        self._directory = directory
        self._files = files
        self._gone = False
        self._fault: Fault | None = None
        self._job: RunningJob | None = None
        self._run: ComfyUIRun | None = None
        self._client: Client | None = None
        self._on_end: Callable[[], None] = lambda: None
        self._watcher: asyncio.Task[None] | None = None
        self._life = asyncio.create_task(self._live())

    @classmethod
    async def start(cls, options: ComfyUIOptions, environ: Mapping[str, str]) -> Self:
        """Start a process and wait until it answers.

        Args:
            environ: its environment (see `comfy_cpu_worker.process.child_environ`).

        Raises:
            TargetError: it did not become ready; the message has the last lines of its log.
            UsageError: the client's libraries for it are not installed.
        """
        try:
            comfyui = await cls._spawn(options, environ)
        except OSError as error:
            raise TargetError(
                f"{_NAME} cannot be started: {error}", remedy="free some space, memory or processes"
            ) from None
        try:
            comfyui._client = await asyncio.to_thread(comfyui._open_client)
            async with asyncio.timeout(options.start_s):
                await comfyui._until_ready()
        except TimeoutError:
            await comfyui.stop(_UNUSED)
            raise comfyui._not_ready(f"was not ready within {options.start_s:g} s") from None
        except BaseException:
            await comfyui.stop(_UNUSED)
            raise
        if comfyui._life.done():
            raise comfyui._not_ready(f"{comfyui._process.ending} before it was ready")
        comfyui._watcher = asyncio.create_task(comfyui._watch())
        return comfyui

    @classmethod
    async def _spawn(cls, options: ComfyUIOptions, environ: Mapping[str, str]) -> Self:
        with contextlib.ExitStack() as undo:
            directory = WorkDirectory(options.workdir)
            undo.callback(directory.remove)
            files = ComfyUIFiles.make(directory.path, options.root, options.models)
            port = _free_port()
            process = await SupervisedProcess.start(
                [
                    str(options.python), "-u", "main.py", "--cpu", "--disable-auto-launch", "--disable-metadata",
                    "--listen", _HOST, "--port", str(port), "--verbose", options.log_level,
                    "--input-directory", str(files.input), "--output-directory", str(files.output),
                    "--temp-directory", str(files.temp),
                    *(("--extra-model-paths-config", str(files.models)) if files.models is not None else ()),
                    *options.arguments,
                ],
                name="comfyui",
                environ={**environ, "TMPDIR": str(directory.path)},
                cwd=options.root,
                memory_bytes=options.memory_bytes,
                logger=log,
            )  # fmt: skip
            undo.pop_all()
            return cls(options, process, port, directory, files)

    def _open_client(self) -> Client:
        # One folder per process: it is none of those that lie in ComfyUI's own input folder.
        return Client(
            f"comfyui+http://{_HOST}:{self._port}",
            proxy=False,
            upload_folder=self._directory.path.name,
            rerun_outputs=True,  # their files are removed behind every job
            patience_s=self._options.hang_s,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

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
        """Wait until it has ended and its directories are gone."""
        await asyncio.wait({self._life})

    async def stop(self, fault: Fault) -> None:
        """End it at once; a job that runs fails with `fault`."""
        self._condemn(fault)
        await self.wait()

    async def image_inputs(self) -> Mapping[str, Collection[str]] | None:
        """class_type → the names of its inputs that take a picture; None if it cannot say."""
        client = self._opened()
        try:
            return find_image_inputs(await asyncio.to_thread(client.signatures))
        except TargetError as error:
            log.warning("%s", error)
            return None

    async def run(self, work: Work, on_event: EventSink) -> Result:
        """Run a job to its end; whatever happens is in the result.

        If the task is cancelled, the run is interrupted, in the end by force, before that is passed on.
        """
        job = self._job = RunningJob(on_event)
        run = self._run = ComfyUIRun(self._opened(), work, job.take_event)
        run.start()
        try:
            await self._until_ended(run, job, work.timeout_s)
        except asyncio.CancelledError:
            await self._interrupt(run, job)
            raise
        finally:
            self._job = self._run = None
            if self.alive:
                await asyncio.shield(asyncio.to_thread(self._files.clean))
        return job.result.result()

    async def _until_ended(self, run: ComfyUIRun, job: RunningJob, timeout_s: float | None) -> None:
        """Wait for a result, and until nothing of the run is left in the process."""
        grace_s = self._options.deadline_grace_s
        limit = timeout_s + grace_s if timeout_s is not None else None
        await asyncio.wait({run.done, job.result}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if not run.done.done() and not job.result.done():  # the client's own deadline comes first, as a rule
            self._condemn(overdue(timeout_s, grace_s))
        elif run.broken:  # why that is so is known when the process has ended
            await asyncio.wait({self._life}, timeout=_END_SECONDS)
        if run.done.done():
            job.end(run.done.result())
            if run.may_go_on and not await self._idle(grace_s):
                self._condemn(_stuck(grace_s))
        await asyncio.wait({job.result})

    async def _interrupt(self, run: ComfyUIRun, job: RunningJob) -> None:
        """Bring a job to its end because nobody wants its result any more."""
        fault = Fault("cancelled", "the run was cancelled, and ended by force", status="cancelled")
        grace_s = self._options.cancel_grace_s
        try:
            run.cancel()
            await asyncio.wait({run.done, job.result}, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
            if not run.done.done() or not await self._idle(grace_s):
                self._condemn(fault)
                await self.wait()
        except asyncio.CancelledError:  # the second: whoever cancels is in a hurry
            self._condemn(fault)
            raise

    async def _idle(self, seconds: float) -> bool:
        """Wait until the process is at no prompt; whether that came about."""
        client = self._opened()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.alive:
                    health = await asyncio.to_thread(client.health)
                    if health["ready"] and not health["running"] and not health["queued"]:
                        return True
                    await asyncio.sleep(_IDLE_SECONDS)
        return False

    def _opened(self) -> Client:
        assert self._client is not None  # noqa: S101  # `start` opens it
        return self._client

    def _condemn(self, fault: Fault) -> None:
        """End the process for a reason; the first one counts."""
        if self._fault is None and self._process.ending is None:
            self._fault = fault
        self._process.kill()

    async def _live(self) -> None:
        """Accompany the process to its end, and clean up behind it."""
        try:
            await self._process.wait()
        finally:
            self._process.kill()
            if self._watcher is not None:
                self._watcher.cancel()
            self._gone = True
            self._on_end()
            if self._client is not None:
                threading.Thread(target=self._client.close, name="comfy-cpu-close", daemon=True).start()
            if self._job is not None and self._run is not None:
                # What ComfyUI said last may still be on its way: which node ran.
                await asyncio.wait({self._run.done}, timeout=_END_SECONDS)
                self._job.fail(self.fault)
            await asyncio.to_thread(self._directory.remove)

    async def _until_ready(self) -> None:
        """Wait until it answers, or has ended."""
        while not self._life.done():
            if await self._answers():
                return
            await asyncio.wait({self._life}, timeout=_READY_SECONDS)

    async def _watch(self) -> None:
        """End the process if it answers nothing for some time.

        Several looks in a row must see nothing: if this process itself was stopped for a while, that is one look.
        """
        every_s = self._options.hang_s / HANG_LOOKS
        silent = 0
        while silent < HANG_LOOKS:
            began = asyncio.get_running_loop().time()
            silent = 0 if await self._answers(every_s) else silent + 1
            await asyncio.sleep(max(0.0, every_s - (asyncio.get_running_loop().time() - began)))
        self._condemn(hung(_NAME, self._options.hang_s))

    async def _answers(self, timeout_s: float = _PROBE_SECONDS) -> bool:
        """Whether it answers a request; without a library, so that none is loaded before it is needed."""
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection(_HOST, self._port)
                try:
                    writer.write(f"GET /system_stats HTTP/1.0\r\nHost: {_HOST}:{self._port}\r\n\r\n".encode())
                    status = await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError):
            return False
        return status.startswith(b"HTTP/1.") and b" 200 " in status

    def _not_ready(self, what: str) -> TargetError:
        return not_ready(_NAME, what, self._process.log_tail, "see its log: a package or a model may be missing")


def _stuck(grace_s: float) -> Fault:
    return Fault("worker_hung", f"the run did not end in the {grace_s:g} s after it was over, and was ended by force")


def _free_port() -> int:
    """A port that nobody listens on: it may be another's a moment later, and then ComfyUI ends and is started again."""
    with socket.socket() as found:
        found.bind((_HOST, 0))
        return int(found.getsockname()[1])
