"""A child process under supervision: it ends when this process does, its log is kept, and its end has a reason.

::

    process = await SupervisedProcess.start(["python", "main.py"], name="comfyui", environ=child_environ(os.environ))
    ...
    ending = await process.stop(grace_s=5)
    print(ending, process.log_tail)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Self

from comfy_cpu_core.resources import read_oom_kills
from comfy_cpu_worker.endings import ProcessEnding, judge_ending
from comfy_cpu_worker.logtail import LogTail

__all__ = ["SupervisedProcess", "child_environ"]

_LAUNCHER = Path(__file__).with_name("launch.py")

#: Bytes of log that are still read after a process has ended: what it left in the pipe, not what a stray descendant
#: goes on to write.
_LAST_LOG_BYTES = 1024 * 1024

#: Parts of the names of variables that hold secrets, between underscores.
_SECRET_WORDS = frozenset(
    {"APIKEY", "CREDENTIAL", "CREDENTIALS", "KEY", "PASSWD", "PASSWORD", "SECRET", "SECRETS", "TOKEN", "TOKENS"}
)
#: How variables begin that are for this process alone: they hold secrets, or where they are good for.
_OWN_PREFIXES = ("AWS_", "BUCKET_", "RUNPOD_")


def child_environ(environ: Mapping[str, str], **more: str) -> dict[str, str]:
    """The environment for a child that runs workflows: nodes are anybody's code and get no secrets.

    Left out are RunPod's, the bucket's and AWS's variables, and every variable with a name like a secret's
    (``COMFY_CPU_TOKEN``, ``HF_TOKEN``, ``COMFY_ORG_API_KEY``).

    Args:
        environ: this process's.
        more: what is added, or takes the place of what is there.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not name.upper().startswith(_OWN_PREFIXES) and _SECRET_WORDS.isdisjoint(name.upper().split("_"))
    }
    # Written through at once, with a traceback when native code crashes: the log is all that is left of it then.
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **more}


class SupervisedProcess:
    """A running child process, or one that has ended. Made by `start`; belongs to the event loop that made it.

    The process leads a session and a process group of its own, so that no Ctrl-C of a terminal reaches it and all that
    it starts ends with it.
    """

    def __init__(self, name: str, logger: logging.Logger, log_lines: int) -> None:
        self.name = name
        self._logger = logger
        self._tail = LogTail(log_lines)
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[ProcessEnding] = self._loop.create_future()
        self._lock = threading.Lock()  # the pid is the process's until it is reaped
        self._reaped = False
        self._log: int | None = None
        self._pid = 0

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        *,
        name: str,
        environ: Mapping[str, str],
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
        memory_bytes: int | None = None,
        log_lines: int = 50,
        logger: logging.Logger | None = None,
    ) -> Self:
        """Start a process. It runs when this comes back, which says nothing of whether it is ready.

        Args:
            argv: the command and its arguments; never secrets, every user of the machine can see them.
            name: what messages and the log call it.
            environ: its whole environment (see `child_environ`).
            cwd: its working directory; None for this process's.
            pass_fds: file descriptors that it inherits under the same numbers.
            memory_bytes: the most memory that it may allocate; None for no limit.
            log_lines: how many lines of its output `log_tail` keeps.
            logger: gets every line that it writes, at level INFO.

        Raises:
            OSError: it cannot be started. A command that cannot be run is no such error: the process ends at once,
                with exit code 127 and the reason in its log.
        """
        process = cls(name, logger or logging.getLogger(__name__), log_lines)
        process._spawn(argv, environ, cwd, pass_fds, memory_bytes)
        return process

    @property
    def pid(self) -> int:
        """Its process id, also that of its group; another's, perhaps, after the end."""
        return self._pid

    @property
    def ending(self) -> ProcessEnding | None:
        """How it ended; None while it runs."""
        return self._ended.result() if self._ended.done() else None

    @property
    def log_tail(self) -> tuple[str, ...]:
        """The last lines that it wrote to stdout or stderr."""
        return self._tail.lines

    async def wait(self) -> ProcessEnding:
        """Wait until it has ended; all that it wrote before is in `log_tail` then."""
        return await asyncio.shield(self._ended)

    async def stop(self, grace_s: float) -> ProcessEnding:
        """Ask it to end (SIGTERM to its group), and kill it if it has not after `grace_s` seconds."""
        self.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                return await self.wait()
        except TimeoutError:
            self.kill()
            return await self.wait()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it and all of its group at once (SIGKILL); does nothing after the end. `wait` tells when it is gone."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to its group; does nothing after the end."""
        with self._lock:
            if not self._reaped:
                self._signal_group(number)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, number)

    def _spawn(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        cwd: Path | None,
        pass_fds: Sequence[int],
        memory_bytes: int | None,
    ) -> None:
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), str(memory_bytes or 0)]
        self._log, writer = os.pipe()
        os.set_blocking(self._log, False)
        started: Future[int] = Future()
        oom_kills = read_oom_kills()

        def work() -> None:
            """Start the process and wait for its end, all in one thread: the process dies with the thread."""
            try:
                process = subprocess.Popen(
                    [*launcher, *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=writer,
                    stderr=writer,
                    env=dict(environ),
                    cwd=cwd,
                    pass_fds=pass_fds,
                    start_new_session=True,
                )
            except BaseException as error:
                started.set_exception(error)
                return
            started.set_result(process.pid)
            self._reap(process, oom_kills)

        try:
            threading.Thread(target=work, name=f"comfy-cpu-{self.name}", daemon=True).start()
            self._pid = started.result()  # a few milliseconds: until the launcher runs
        except BaseException:
            os.close(self._log)
            raise
        finally:
            os.close(writer)
        self._loop.add_reader(self._log, self._read_log)

    def _reap(self, process: subprocess.Popen[bytes], oom_kills: int | None) -> None:
        """Wait for the end; runs in a thread of its own."""
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            self._signal_group(signal.SIGKILL)  # what it left behind
            returncode = process.wait()
            self._reaped = True
        try:
            self._loop.call_soon_threadsafe(self._end, returncode, oom_kills)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._close_log()
        # Where this process is the first of a container, what the child left behind has become our children.
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-process.pid, 0)

    def _end(self, returncode: int, oom_kills: int | None) -> None:
        left = _LAST_LOG_BYTES
        while left > 0 and (count := self._read_log()):
            left -= count
        self._close_log()
        self._forward(self._tail.finish())
        self._ended.set_result(judge_ending(returncode, oom_kills, read_oom_kills(), self.log_tail))

    def _read_log(self) -> int:
        """Take what is in the pipe; gives the number of bytes, 0 if there are none."""
        if self._log is None:
            return 0
        try:
            data = os.read(self._log, 64 * 1024)
        except BlockingIOError:
            return 0
        if not data:
            self._close_log()
        self._forward(self._tail.feed(data))
        return len(data)

    def _forward(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._logger.info("%s: %s", self.name, line)

    def _close_log(self) -> None:
        if self._log is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._log)
            os.close(self._log)
            self._log = None
