"""What a back end is asked to run, and what a back end is: the line between the worker and what does the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from comfy_cpu_client import FileInput
from comfy_cpu_core.results import EventSink, Result

__all__ = ["Backend", "BackendHealth", "BackendState", "Work"]

#: ``starting`` until it has answered once (and is warm, where warm-up is on), ``restarting`` after a crash, ``closed``
#: for good.
BackendState = Literal["starting", "ready", "busy", "restarting", "closed"]


@dataclass(frozen=True)
class Work:
    """One job, ready for a back end: everything is decoded, downloaded and checked.

    Attributes:
        job_id: the job's name, for logs.
        workflow: in API or UI format.
        files: name → bytes of the files that the workflow names already (``images`` of a job).
        inputs: ``NODE.INPUT`` → the file for it.
        values: ``NODE.INPUT`` → the value for it.
        convert: whether to convert the workflow for a CPU.
        timeout_s: seconds that the run may take; None for no limit.
        comfy_org_api_key: for ComfyUI's paid nodes; secret; the engine has none of them and ignores it.
    """

    job_id: str
    workflow: Mapping[str, Any] = field(repr=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    inputs: Mapping[str, FileInput] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    convert: bool = True
    timeout_s: float | None = None
    comfy_org_api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class BackendHealth:
    """How a back end is.

    Attributes:
        state: see `BackendState`.
        restarts: how often its process was started again, since the worker began.
        pid: of the process that does the work; None while there is none.
        problem: why it is not ready, or what did not work in its warm-up, in one line; or empty.
        remedy: what to do about it, or None.
    """

    state: BackendState
    restarts: int = 0
    pid: int | None = None
    problem: str = ""
    remedy: str | None = None

    @property
    def ready(self) -> bool:
        """Whether it can take a job, now or when the present one ends."""
        return self.state in {"ready", "busy"}


class Backend(Protocol):
    """What runs workflows, in a process of its own that may die without taking the worker along.

    One job at a time: a CPU has no use for more.
    """

    @property
    def name(self) -> str:
        """``engine`` or ``comfyui``."""

    async def start(self) -> None:
        """Start its process and come back when it is ready.

        Raises:
            TargetError: it did not become ready; the message has the last lines of its log.
        """

    async def run(self, work: Work, *, on_event: EventSink) -> Result:
        """Run a job to its end. `on_event` is called in the event loop's thread.

        Whatever happens is in the result: a workflow that does not validate, a missing model, a node that failed, a
        process that was killed (code ``worker_crashed``), ran out of memory (``memory``), hung (``worker_hung``) or
        passed its deadline (``timed_out``). The process is started again behind it, so that the next job finds one.

        If the task is cancelled, the run is interrupted, in the end with SIGKILL, before `CancelledError` is passed on.
        """

    async def restart(self) -> None:
        """Start a fresh process before the next job (``refresh_worker``)."""

    def health(self) -> BackendHealth:
        """How it is now."""

    async def close(self) -> None:
        """End its process and clean up what it left. May be called twice."""
