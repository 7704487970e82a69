"""A job on its way through ComfyUI: the client's blocking calls, in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

from comfy_cpu_client import Client, Run
from comfy_cpu_core.errors import DeadlineExceeded, TargetError
from comfy_cpu_core.results import EventSink, Result
from comfy_cpu_worker.failures import failure_result
from comfy_cpu_worker.work import Work

__all__ = ["ComfyUIRun"]


class ComfyUIRun:
    """Hands a job to ComfyUI and gives its events and its result back to the event loop that made this.

    Args:
        on_event: called in the loop's thread.

    Attributes:
        done: its result, whatever happens.
        broken: whether that result is that ComfyUI could not be talked to.
        may_go_on: whether ComfyUI may still be at it although there is a result.
    """

    def __init__(self, client: Client, work: Work, on_event: EventSink) -> None:
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Result] = self._loop.create_future()
        self.broken = False
        self.may_go_on = True
        self._client = client
        self._work = work
        self._on_event = on_event
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._cancelled = False

    def start(self) -> None:
        """Begin. A daemon, since a library may hold it up for as long as it likes."""
        threading.Thread(target=self._do, name="comfy-cpu-job", daemon=True).start()

    def cancel(self) -> None:
        """Have ComfyUI interrupt it; also one that is not yet with ComfyUI."""
        with self._lock:
            self._cancelled = True
            if self._run is not None:
                self._run.cancel()

    def _do(self) -> None:
        try:
            result = self._result()
            self.may_go_on = result.status in {"cancelled", "timed_out"}
        except BaseException as error:  # whatever it is, the worker waits for a result
            self.broken = isinstance(error, TargetError) and not isinstance(error, DeadlineExceeded)
            result = failure_result(error)
        self._tell(self.done.set_result, result)

    def _result(self) -> Result:
        work = self._work
        run = self._client.submit(
            work.workflow,
            inputs=work.inputs,
            files=work.files,
            set=work.values,
            convert=work.convert,
            timeout_s=work.timeout_s,
            comfy_org_api_key=work.comfy_org_api_key,
            on_event=lambda event: self._tell(self._on_event, event),
        )
        with self._lock:
            self._run = run
            if self._cancelled:
                run.cancel()
        return run.wait()

    def _tell(self, call: Callable[[Any], None], what: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(call, what)
