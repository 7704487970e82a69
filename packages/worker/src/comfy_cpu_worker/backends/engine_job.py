"""The job that the engine's process is at, as the worker sees it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from comfy_cpu_core.results import EventSink, NodeFailure, Progress, Result, Status

__all__ = ["EngineJob", "Fault"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fault:
    """Why a process is to end, or did; what that means for its job.

    Attributes:
        code, message, remedy: as in `NodeFailure`.
        status: how the job ends.
    """

    code: str
    message: str
    remedy: str | None = None
    status: Status = "failed"


class EngineJob:
    """A job under way; `result` is set once, whatever happens.

    Args:
        number: what the process knows it by.
        on_event: gets its events. If it raises, it is not called again.
    """

    def __init__(self, number: int, on_event: EventSink) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.result: asyncio.Future[Result] = loop.create_future()
        self._on_event: EventSink | None = on_event
        self._node: Progress | None = None  # the event that says which node runs
        self._began = loop.time()

    def take_event(self, event: Progress) -> None:
        """Note an event and pass it on."""
        if event.kind == "started":
            self._node = event
        elif event.kind in {"finished", "cached"}:
            self._node = None
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:
            log.exception("progress of a job is no longer reported")
            self._on_event = None

    def end(self, result: Result) -> None:
        """It ended by itself."""
        if not self.result.done():
            self.result.set_result(result)

    def fail(self, fault: Fault) -> None:
        """End it for a reason that the process cannot tell itself."""
        seconds = asyncio.get_running_loop().time() - self._began
        node_id, class_type = (self._node.node_id, self._node.class_type) if self._node else (None, None)
        where = f" while node {node_id} ({class_type}) ran" if self._node else ""
        failure = NodeFailure(fault.code, f"{fault.message}{where}", node_id, class_type, remedy=fault.remedy)
        self.end(Result(fault.status, errors=(failure,), execution_seconds=seconds))
