"""One job, from its document to its outcome: the same for RunPod's queue and for ours."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from comfy_cpu_client.payload import result_to_output
from comfy_cpu_core.errors import ComfyCpuError
from comfy_cpu_core.results import NodeFailure, Progress, Result, Status
from comfy_cpu_worker.delivery import Delivery, DeliveryPolicy
from comfy_cpu_worker.errors import UrlFailed, WorkerError
from comfy_cpu_worker.inputs import prepare_work
from comfy_cpu_worker.job import JobInput, JobLimits, parse_job
from comfy_cpu_worker.jobsecrets import hide_secrets, without_secrets
from comfy_cpu_worker.outcome import FinalState, JobOutcome, ProgressSink
from comfy_cpu_worker.shelf import Shelf
from comfy_cpu_worker.throttle import Throttle
from comfy_cpu_worker.urls import UrlClient, UrlPolicy
from comfy_cpu_worker.wire import Deadline, Resolver, system_resolver
from comfy_cpu_worker.work import Backend, Work

if TYPE_CHECKING:
    from comfy_cpu_worker.settings import WorkerSettings

__all__ = ["JobRunner"]

log = logging.getLogger(__name__)

_STATES: Mapping[Status, FinalState] = {
    "completed": "COMPLETED",
    "blocked": "FAILED",
    "failed": "FAILED",
    "cancelled": "CANCELLED",
    "timed_out": "TIMED_OUT",
}


class JobRunner:
    """Runs jobs on a back end, which is somebody else's to start, to restart and to close.

    Args:
        backend: what does the work.
        shelf: the workflows that jobs may name.
        limits: what a job may ask for.
        urls: where files may be fetched from; None if they may not be named by URL.
        delivery: how outputs leave.
        comfy_org_api_key: for ComfyUI's paid nodes, where a job brings none; secret.
        resolver: gives the addresses of hosts.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        shelf: Shelf,
        limits: JobLimits,
        urls: UrlPolicy | None,
        delivery: DeliveryPolicy,
        comfy_org_api_key: str | None = None,
        resolver: Resolver = system_resolver,
    ) -> None:
        self._backend = backend
        self._shelf = shelf
        self._limits = limits
        self._urls = UrlClient(urls, resolver=resolver) if urls is not None else None
        self._delivery = Delivery(delivery, resolver=resolver)
        self._comfy_org_api_key = comfy_org_api_key

    @classmethod
    def from_settings(cls, settings: WorkerSettings, backend: Backend, shelf: Shelf | None = None) -> Self:
        """A runner as the settings say.

        Args:
            shelf: the workflows; None for those in the directory of the settings.
        """
        return cls(
            backend,
            shelf=shelf if shelf is not None else Shelf(settings.workflows),
            limits=settings.limits,
            urls=settings.urls,
            delivery=settings.delivery,
            comfy_org_api_key=settings.comfy_org_api_key,
        )

    async def run(
        self, job_id: str, document: Mapping[str, Any], *, on_progress: ProgressSink | None = None
    ) -> JobOutcome:
        """Run a job to its end.

        Whatever goes wrong is in the outcome. If the task is cancelled, the run is interrupted before `CancelledError` is
        passed on.

        Args:
            document: the job, with its secrets.
            on_progress: called in the event loop's thread, some times a second at most.
        """
        run = _Run(job_id)
        throttle = Throttle(run.hiding(on_progress)) if on_progress is not None else None
        try:
            try:
                work = await asyncio.to_thread(self._prepare, run, document)
                result = await self._backend.run(work, on_event=throttle or _ignore)
            except Exception as error:  # who waits for the job must hear of it, whatever it is
                result = run.failed(error)
            if throttle is not None:
                throttle.flush()
            output = await asyncio.to_thread(self._deliver, run, result)
        finally:
            run.given_up.set()
            if throttle is not None:
                throttle.close()
        return _outcome(run, output)

    def _prepare(self, run: _Run, document: Mapping[str, Any]) -> Work:
        _, secrets = without_secrets(document)
        run.secrets = [*(secrets or {}).values(), self._comfy_org_api_key]
        job = parse_job(document, self._limits)
        self._delivery.check(job)
        run.job = replace(job, comfy_org_api_key=job.comfy_org_api_key or self._comfy_org_api_key)
        run.deadline = Deadline(job.timeout_s, run.given_up)
        return prepare_work(
            run.id, run.job, shelf=self._shelf, limits=self._limits, urls=self._urls, deadline=run.deadline
        )

    def _deliver(self, run: _Run, result: Result) -> dict[str, Any]:
        if run.job is None:  # it could not even be read
            return result_to_output(result)
        try:
            return self._delivery.deliver(run.id, run.job, result, cancel=run.given_up)
        except Exception as error:
            return result_to_output(replace(result, status="failed", outputs=(), errors=run.failed(error).errors))


@dataclass
class _Run:
    """What is known of a job while it runs.

    Attributes:
        job: None until it was read.
        secrets: what must not be repeated.
        deadline: when it has to be over; None until it was read.
        given_up: set when nobody waits for it any more.
    """

    id: str
    job: JobInput | None = None
    secrets: Sequence[Any] = field(default=(), repr=False)
    deadline: Deadline | None = None
    given_up: threading.Event = field(default_factory=threading.Event)

    def failed(self, error: Exception) -> Result:
        """The result of a run that ended with an exception."""
        if self.job is not None and self.deadline is not None and self.deadline.over and _is_late(error):
            message = f"the job's files did not arrive within its {self.job.timeout_s:g} s"
            return Result("timed_out", errors=(NodeFailure("deadline", message, remedy="give the job more time"),))
        if isinstance(error, ComfyCpuError):
            code = error.code if isinstance(error, WorkerError) else "worker"
            return Result("failed", errors=(NodeFailure(code, str(error), remedy=error.remedy),))
        trace = hide_secrets("".join(traceback.format_exception(error)), self.secrets)
        log.error("job %s: the worker failed\n%s", self.id, trace)
        message = f"the worker failed: {type(error).__name__}; its log says more"
        return Result("failed", errors=(NodeFailure("worker", message),))

    def hiding(self, sink: ProgressSink) -> ProgressSink:
        """A sink that gets no secrets."""
        return lambda document: sink(hide_secrets(document, self.secrets))


def _is_late(error: Exception) -> bool:
    return isinstance(error, UrlFailed | TimeoutError)


def _ignore(event: Progress) -> None:
    pass


def _outcome(run: _Run, output: dict[str, Any]) -> JobOutcome:
    """The outcome: no error, report or warning repeats a secret; what the nodes made stays as it is."""
    told = {name: output[name] for name in ("errors", "blocked", "result") if name in output}
    output.update(hide_secrets(told, run.secrets))
    status: Status = output["result"]["status"]
    error = None
    if status != "completed":
        lines = [output["blocked"]["message"]] if status == "blocked" else output["errors"]
        error = next((line for line in lines if line), f"the job ended: {status}")
    return JobOutcome(_STATES[status], output, error, refresh_worker=run.job is not None and run.job.refresh_worker)
