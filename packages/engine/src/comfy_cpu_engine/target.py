"""The target ``embedded``: runs workflows in this process, one after the other."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from comfy_cpu_core.errors import DeadlineExceeded, UsageError
from comfy_cpu_core.results import EventSink, JobStatus, NodeFailure, Result, RunRequest
from comfy_cpu_core.tree import ModelTree, default_models_dir
from comfy_cpu_engine.engine import CACHE_BYTES, Engine

__all__ = ["CLOSE_SECONDS", "EmbeddedJob", "EmbeddedTarget", "open_embedded"]

#: How long `EmbeddedTarget.close` waits for the run that it cancelled.
CLOSE_SECONDS = 1.0


class EmbeddedJob:
    """A run that waits, is under way, or has ended."""

    def __init__(self, request: RunRequest, on_event: EventSink | None) -> None:
        self.id = uuid.uuid4().hex
        self._request = request
        self._on_event = on_event
        self._submitted = time.monotonic()
        self._cancel = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._running = False
        self._result: Result | None = None
        self._error: BaseException | None = None

    def status(self) -> JobStatus:
        """Where it stands now; a request that was refused is ``failed``."""
        with self._lock:
            if self._result is not None:
                return self._result.status
            if self._error is not None:
                return "failed"
            return "running" if self._running else "queued"

    def wait(self, timeout_s: float | None = None) -> Result:
        """Wait for its end.

        Raises:
            DeadlineExceeded: it was still under way after `timeout_s` seconds; the job goes on.
            InputError, ModelError, UsageError: the request was refused (see `Engine.run`).
        """
        if not self._ended.wait(timeout_s):
            raise DeadlineExceeded(f"job {self.id} was still {self.status()} after {timeout_s:g} s")
        if self._error is not None:
            raise self._error
        assert self._result is not None  # noqa: S101  # ended: one of the two is set
        return self._result

    def cancel(self) -> None:
        """Ask it to end; if it still waits, it ends at once. Does nothing after the end."""
        self._cancel.set()
        with self._lock:
            if self._running or self._ended.is_set():
                return
            failure = NodeFailure("cancelled", "the run was cancelled before it began")
            self._result = Result("cancelled", errors=(failure,), queue_seconds=time.monotonic() - self._submitted)
            self._ended.set()

    def run(self, engine: Engine) -> None:
        """Carry it out, unless it was cancelled before."""
        with self._lock:
            if self._ended.is_set():
                return
            self._running = True
        waited = time.monotonic() - self._submitted
        result: Result | None = None
        error: BaseException | None = None
        try:
            result = engine.run(
                self._request.prompt,
                files=self._request.files,
                on_event=self._on_event,
                cancel=self._cancel,
                timeout_s=self._request.timeout_s,
            )
        except BaseException as raised:  # whoever waits must get it, whatever it is
            error = raised
        with self._lock:
            self._result = replace(result, queue_seconds=waited) if result is not None else None
            self._error = error
            self._ended.set()


class EmbeddedTarget:
    """Runs one workflow at a time, in the order in which they were submitted, in a thread of its own.

    Args:
        engine: what runs them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._queue: deque[EmbeddedJob] = deque()
        self._current: EmbeddedJob | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(self, request: RunRequest, *, on_event: EventSink | None = None) -> EmbeddedJob:
        """Queue a run. `on_event` is called from the target's thread.

        Raises:
            UsageError: the target is closed.
        """
        job = EmbeddedJob(request, on_event)
        with self._changed:
            if self._closed:
                raise UsageError("the embedded target is closed")
            self._queue.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="comfy-cpu-embedded", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return job

    def health(self) -> Mapping[str, Any]:
        """Whether it takes runs, and what it is doing."""
        with self._changed:
            queued = sum(job.status() == "queued" for job in self._queue)
            return {
                "ready": not self._closed,
                "target": "embedded",
                "queued": queued,
                "running": int(self._current is not None),
                "models": str(self._engine.models.root),
            }

    def close(self) -> None:
        """Cancel what waits and what runs, and wait until the thread has ended. May be called twice.

        Waits no longer than `CLOSE_SECONDS`: a library that is at something that cannot be stopped (loading a large
        model) would hold up who wants to leave. The thread then ends by itself when the library is done, and the run's
        directory goes with it, or with the process.
        """
        with self._changed:
            self._closed = True
            jobs = [*self._queue, *([self._current] if self._current is not None else [])]
            thread = self._thread
            self._changed.notify_all()
        for job in jobs:
            job.cancel()
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._current = None
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                self._current = self._queue.popleft()
            self._current.run(self._engine)


def open_embedded(name: str, options: Mapping[str, Any]) -> EmbeddedTarget:
    """Open the target ``embedded``.

    Args:
        name: always ``embedded``.
        options: ``models`` (a directory or a `ModelTree`; else as `default_models_dir` says), ``cache_bytes``
            (memory for results of earlier runs), ``workdir`` (where runs make their directories).

    Raises:
        UsageError: another name or option.
    """
    import os

    from comfy_cpu_core.plugins import get_plugins
    from comfy_cpu_core.registry import get_registry

    if name != "embedded":
        raise UsageError(f"unknown target {name!r}", remedy="the target in this process is called `embedded`")
    known = {"models", "cache_bytes", "workdir"}
    if strange := set(options) - known:
        raise UsageError(f"the target embedded has no option {min(strange)!r}; it has {', '.join(sorted(known))}")
    models = options.get("models")
    if models is None:
        models = default_models_dir(os.environ)
    tree = models if isinstance(models, ModelTree) else ModelTree(Path(models))
    workdir = options.get("workdir")
    return EmbeddedTarget(
        Engine(
            get_registry(),
            get_plugins(),
            tree,
            cache_bytes=int(options.get("cache_bytes", CACHE_BYTES)),
            workdir=Path(workdir) if workdir is not None else None,
        )
    )
