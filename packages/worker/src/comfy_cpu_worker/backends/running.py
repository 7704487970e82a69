"""A job that a back end's process is at, and what it means that the process ends: the same for every back end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from comfy_cpu_core.errors import TargetError
from comfy_cpu_core.results import EventSink, NodeFailure, Progress, Result, Status
from comfy_cpu_worker.endings import ProcessEnding

__all__ = ["Fault", "RunningJob", "crashed", "fault_of", "hung", "not_ready", "overdue"]

log = logging.getLogger(__name__)

_CRASH_REMEDY = "try again; if it happens each time, the worker's log has the last words of the process"


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


class RunningJob:
    """A job under way; `result` is set once, whatever happens.

    Args:
        on_event: gets its events. If it raises, it is not called again.
    """

    def __init__(self, on_event: EventSink) -> None:
        loop = asyncio.get_running_loop()
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


def fault_of(name: str, ending: ProcessEnding | None) -> Fault:
    """What it means that a process ended when nobody had asked it to; `name` begins the sentence."""
    message = f"{name} {ending}"
    if ending is not None and ending.out_of_memory:
        return Fault("memory", message, "use smaller pictures or models, or a machine with more memory")
    if ending is not None and ending.signal == "SIGKILL":
        return Fault("worker_crashed", message, "somebody killed it, or the machine ran out of memory; try again")
    return Fault("worker_crashed", message, _CRASH_REMEDY)


def crashed(message: str) -> Fault:
    """What it means that a process does what no process in order does."""
    return Fault("worker_crashed", message, _CRASH_REMEDY)


def overdue(timeout_s: float | None, grace_s: float) -> Fault:
    """What it means that a run did not even end when it was interrupted at its deadline."""
    return Fault(
        "deadline",
        f"the run did not end within {timeout_s:g} s, nor in the {grace_s:g} s after that, and was ended by force",
        "give it more time, or make the pictures or models smaller",
        "timed_out",
    )


def hung(name: str, seconds: float) -> Fault:
    """What it means that a process gives no sign of life."""
    return Fault(
        "worker_hung",
        f"{name} gave no sign of life for {seconds:g} s and was ended by force",
        "try again; if it happens each time, the node that ran hangs",
    )


def not_ready(name: str, what: str, log_tail: Sequence[str], remedy: str) -> TargetError:
    """The error for a process that does not become ready, with the last lines that it wrote."""
    tail = " | ".join(log_tail[-10:]) or "(nothing)"
    return TargetError(f"{name} {what}; the last that it wrote: {tail}", remedy=remedy)
