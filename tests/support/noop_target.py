"""A plugin with a target that does nothing, as quickly as it can or with every fault that is asked for.

`noop_environment` makes it known to a child process, as an installed distribution would be. A target's name says how it
behaves: ``noop://NAME?delay=0.01&faults=0.05&log=FILE``.

- ``delay``: seconds that a job takes.
- ``faults``: the share of jobs that go wrong, 0 to 1: a third each cannot be submitted, crash, and pass their deadline.
- ``seed``: for the faults.
- ``log``: a file to which each job appends a line when it is submitted: its idempotency key, or ``-``.
- ``output``: bytes of the file that each job makes; 0 for none.
- ``keys``: 1 if it takes idempotency keys.
- ``down``: 1 if it can never be reached.
"""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from comfy_cpu_core.errors import DeadlineExceeded, TargetError
from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.results import EventSink, JobStatus, NodeFailure, Output, Result, RunRequest, TargetType

__all__ = ["NoopTarget", "noop_environment"]


def noop_environment(directory: Path) -> dict[str, str]:
    """Write the metadata of a distribution that brings this plugin; gives the variables to set in the child."""
    site = directory / "noop-target"
    info = site / "noop_target-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: noop-target\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[comfy_cpu]\nnoop = noop_target\n")
    paths = [str(site), str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


class NoopJob:
    """A job that ends by itself after a time."""

    def __init__(self, result: Result, delay: float) -> None:
        self.id = uuid.uuid4().hex
        self._result = result
        self._delay = delay
        self._began = time.monotonic()
        self._cancelled = threading.Event()

    def status(self) -> JobStatus:
        return "running" if time.monotonic() - self._began < self._delay else self._result.status

    def wait(self, timeout_s: float | None = None) -> Result:
        left = self._delay - (time.monotonic() - self._began)
        if timeout_s is not None and left > timeout_s:
            self._cancelled.wait(timeout_s)
            raise DeadlineExceeded(f"job {self.id} was still running after {timeout_s:g} s")
        if (left > 0 and self._cancelled.wait(left)) or self._cancelled.is_set():
            return Result("cancelled", errors=(NodeFailure("cancelled", "the run was cancelled"),))
        return self._result

    def cancel(self) -> None:
        self._cancelled.set()


class NoopTarget:
    """See this module; takes no idempotency keys."""

    has_idempotency_keys = False

    def __init__(self, name: str) -> None:
        options = {key: values[-1] for key, values in parse_qs(urlsplit(name).query).items()}
        self._delay = float(options.get("delay", 0))
        self._faults = float(options.get("faults", 0))
        self._down = options.get("down") == "1"
        self._size = int(options.get("output", 0))
        self._random = random.Random(options.get("seed"))
        self._log = os.open(options["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT) if "log" in options else None

    def submit(self, request: RunRequest, *, on_event: EventSink | None = None) -> NoopJob:
        return self._submit(request, (request.idempotency_key if self.has_idempotency_keys else None) or "-")

    def health(self) -> Mapping[str, Any]:
        return {"ready": not self._down}

    def close(self) -> None:
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def _submit(self, request: RunRequest, key: str) -> NoopJob:
        if self._down:
            raise TargetError("nobody listens there")
        fault = self._random.random()
        if fault < self._faults / 3:
            raise TargetError("the connection was refused")
        if self._log is not None:
            os.write(self._log, f"{key}\n".encode())
        if fault < self._faults * 2 / 3:
            return NoopJob(Result("failed", errors=(NodeFailure("worker_crashed", "the engine died"),)), self._delay)
        if fault < self._faults:
            return NoopJob(Result("timed_out", errors=(NodeFailure("deadline", "it took too long"),)), self._delay)
        outputs = (Output("9", "Noop", "file", "out.bin", "application/octet-stream", b"\0" * self._size),)
        return NoopJob(
            Result(
                "completed", outputs=outputs if self._size else (), queue_seconds=0.0, execution_seconds=self._delay
            ),
            self._delay,
        )


class KeyedNoopTarget(NoopTarget):
    """One that takes idempotency keys."""

    has_idempotency_keys = True


def _open(name: str, options: Mapping[str, Any]) -> NoopTarget:
    return KeyedNoopTarget(name) if "keys=1" in name else NoopTarget(name)


@hookimpl
def comfy_cpu_targets() -> list[TargetType]:
    """The target ``noop``."""
    return [TargetType("noop", _open, "does nothing, for tests")]
