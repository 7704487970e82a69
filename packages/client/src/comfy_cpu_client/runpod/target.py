"""The targets ``runpod://ENDPOINT`` and ``worker+http(s)://HOST:PORT``: a queue of jobs somewhere else."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from comfy_cpu_client.errors import TargetRefused
from comfy_cpu_client.runpod import protocol
from comfy_cpu_client.runpod.address import Endpoint, parse_endpoints
from comfy_cpu_client.runpod.document import LEAST_EXECUTION_S, encode_job
from comfy_cpu_client.runpod.job import Channel, Order, QueueJob
from comfy_cpu_client.runpod.limits import RunLimits
from comfy_cpu_client.runpod.protocol import Answer, Request, parse_job
from comfy_cpu_client.runpod.run import JobRun
from comfy_cpu_client.runpod.settings import QueueSettings
from comfy_cpu_client.runpod.transport import Transport
from comfy_cpu_core.errors import TargetError, UsageError
from comfy_cpu_core.results import EventSink, RunRequest

__all__ = ["CLOSE_SECONDS", "QueueTarget", "open_queue"]

#: How long `QueueTarget.close` waits until what is under way is cancelled.
CLOSE_SECONDS = 5.0

# Jobs that are over within this many seconds are submitted with ``runsync``.
_SHORT_SECONDS = 2.0
# How long a job that is too large for ``run`` waits in its ``runsync``.
_LARGE_WAIT_SECONDS = 5.0
# Beyond what the endpoint was told: what it may need to say so.
_SLACK_SECONDS = 60.0
# How long a job lives where nobody says anything else: a day.
_LIFE_SECONDS = 86_400.0
_HEALTH_SECONDS = 10.0
# After so many seconds at an endpoint to fall back on, the first is tried again.
_RETURN_SECONDS = 60.0


class QueueTarget:
    """Runs workflows on one or more endpoints. Safe to use from several threads; each job has a thread of its own.

    Args:
        endpoints: where, in the order in which they are tried.
        settings: see `QueueSettings`.
    """

    def __init__(self, endpoints: Sequence[Endpoint], settings: QueueSettings) -> None:
        self._endpoints = tuple(endpoints)
        self._settings = settings
        self._transport = Transport(settings)
        self._channel = Channel(self._transport, settings)
        self._lock = threading.Lock()
        self._jobs: set[QueueJob] = set()
        self._typical_s: float | None = None
        self._last: tuple[Endpoint, float] = (self._endpoints[0], 0.0)
        self._closed = False

    @property
    def has_idempotency_keys(self) -> bool:
        """Whether every endpoint tells by a key that it was asked to run the same job before."""
        return all(endpoint.keyed for endpoint in self._endpoints)

    def submit(self, request: RunRequest, *, on_event: EventSink | None = None) -> QueueJob:
        """Submit a job, and come back when the endpoint has it, or when it is to be tried again later.

        The seconds of ``timeout_s`` begin now and include the time in the queue.

        Raises:
            InputError: it is too large.
            TargetError: no endpoint takes it. `SubmissionUnknown`: it was sent, and the answer was lost.
            UsageError: the target is closed, or the time is not above 0.
        """
        timeout_s = request.timeout_s
        if timeout_s is not None and not timeout_s > 0:
            raise UsageError(f"timeout_s is {timeout_s!r}; it must be above 0, or None for no limit")
        body = encode_job(request, self._settings)
        sync, wait_s = self._sync(len(body), on_event)
        now = time.monotonic()
        life_s = (self._settings.ttl_s or _LIFE_SECONDS) + _SLACK_SECONDS
        limits = RunLimits(
            deadline=now + timeout_s if timeout_s is not None else None,
            queue_limit_s=self._settings.queue_limit_s,
            execution_limit_s=max(timeout_s, LEAST_EXECUTION_S) + _SLACK_SECONDS if timeout_s is not None else None,
            life_s=life_s,
            patience_s=self._settings.patience_s,
        )
        run = JobRun(self._in_order(now), limits, now=now, sync=sync, stream=self._streams(on_event))
        order = Order(body, request.idempotency_key or uuid.uuid4().hex, wait_s)
        return self._start(run, order, on_event)

    def attach(self, job_id: str, *, on_event: EventSink | None = None) -> QueueJob:
        """Follow a job that was submitted before, by this process or another one.

        Raises:
            UsageError: the target is closed.
        """
        limits = RunLimits(patience_s=self._settings.patience_s, queue_limit_s=self._settings.queue_limit_s)
        now = time.monotonic()
        run = JobRun(self._endpoints, limits, now=now, job_id=job_id, stream=self._streams(on_event))
        return self._start(run, None, on_event)

    def retry(self, job_id: str, *, on_event: EventSink | None = None) -> QueueJob:
        """Have a job run again that FAILED or TIMED_OUT, under its id, and follow it.

        Raises:
            TargetError: the endpoint does not do it.
        """
        for last, endpoint in zip((False,) * (len(self._endpoints) - 1) + (True,), self._endpoints, strict=True):
            try:
                parse_job(self._ask(endpoint, protocol.retry(job_id)), job_id)
                break
            except TargetRefused as error:
                if last or error.status != 404:
                    raise
        return self.attach(job_id, on_event=on_event)

    def purge(self) -> int:
        """End every job that waits, of whoever it is; gives how many there were.

        Raises:
            TargetError: an endpoint does not do it.
        """
        return sum(protocol.parse_purge(self._ask(endpoint, protocol.purge_queue())) for endpoint in self._endpoints)

    def health(self) -> Mapping[str, Any]:
        """Whether an endpoint answers, and how many jobs and workers it has.

        ``{"ready": bool, "target": "runpod" | "worker", "endpoints": [{"where", "ready", "jobs"?, "workers"?,
        "problem"?, "remedy"?}]}``
        """
        endpoints = [self._health(endpoint) for endpoint in self._endpoints]
        ready = not self._closed and any(found["ready"] for found in endpoints)
        return {"ready": ready, "target": self._endpoints[0].kind, "endpoints": endpoints}

    def close(self) -> None:
        """Cancel what is under way, and wait `CLOSE_SECONDS` at most until the endpoint knows. May be called twice."""
        with self._lock:
            self._closed = True
            jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        end = time.monotonic() + CLOSE_SECONDS
        for job in jobs:
            job.join(max(0.0, end - time.monotonic()))
        self._transport.close()

    def _start(self, run: JobRun, order: Order | None, on_event: EventSink | None) -> QueueJob:
        job = QueueJob(run, order, self._channel, on_event=on_event, on_end=self._forget)
        with self._lock:
            if self._closed:
                raise UsageError(f"the target {self._endpoints[0].where} is closed")
            self._jobs.add(job)
        job.start()
        try:
            job.handed_over()
        except BaseException:  # Ctrl-C too: what may have been accepted meanwhile must not run on
            job.cancel()
            raise
        return job

    def _forget(self, job: QueueJob) -> None:
        with self._lock:
            self._jobs.discard(job)
            if job.submissions and job.id:
                self._last = (job.endpoint, time.monotonic())
            if job.submissions == 1 and job.id:
                known = self._typical_s
                self._typical_s = job.seconds if known is None else 0.7 * known + 0.3 * job.seconds

    def _in_order(self, now: float) -> tuple[Endpoint, ...]:
        """The endpoints, with the one first that took a job lately: those before it would only be asked in vain."""
        last, when = self._last
        if last == self._endpoints[0] or now - when > _RETURN_SECONDS:
            return self._endpoints
        return (last, *(endpoint for endpoint in self._endpoints if endpoint != last))

    def _streams(self, on_event: EventSink | None) -> bool:
        if on_event is None:
            return False
        return self._settings.stream if self._settings.stream is not None else self._endpoints[0].kind == "worker"

    def _sync(self, size: int, on_event: EventSink | None) -> tuple[bool, float]:
        """Whether to submit with ``runsync``, and how long that waits."""
        if size > self._settings.run_bytes:
            return True, _LARGE_WAIT_SECONDS
        known = self._typical_s
        if self._settings.sync == "auto":
            short = known is not None and known <= _SHORT_SECONDS and on_event is None
            return short, 2 * (known or 0.0) + 1
        return bool(self._settings.sync), _LARGE_WAIT_SECONDS

    def _health(self, endpoint: Endpoint) -> dict[str, Any]:
        about: dict[str, Any] = {"where": endpoint.where}
        try:
            health = protocol.parse_health(self._ask(endpoint, protocol.get_health()))
        except TargetError as error:
            return {**about, "ready": False, "problem": str(error), "remedy": error.remedy}
        workers = health.workers
        if endpoint.kind == "worker":
            ready = workers.get("ready", 0) > 0
        else:  # without a worker it starts one when there is a job; with none but broken ones it does not help
            ready = not workers.get("unhealthy", 0) or any(
                workers.get(name, 0) for name in ("idle", "ready", "running")
            )
        return {**about, "ready": ready, "jobs": dict(health.jobs), "workers": dict(workers)}

    def _ask(self, endpoint: Endpoint, request: Request) -> Answer:
        time.sleep(self._channel.turn(request))
        until = time.monotonic() + _HEALTH_SECONDS
        return self._transport.send(endpoint, request, read_timeout_s=_HEALTH_SECONDS, until=until)


def open_queue(name: str, options: Mapping[str, Any]) -> QueueTarget:
    """Open the target ``runpod://ID[,ID…]`` or ``worker+http(s)://HOST[:PORT][/v2/ID]``.

    Args:
        options: the attributes of `QueueSettings`.

    Raises:
        UsageError: the name or an option makes no sense, or there is no API key.
    """
    import os

    settings = QueueSettings.of(options)
    endpoints: list[Endpoint] = []
    for target in (name, *settings.fallback):
        endpoints += parse_endpoints(
            target,
            api_key=settings.api_key,
            token=settings.token,
            base_url=settings.base_url,
            environ=os.environ,
        )
    return QueueTarget(endpoints, settings)
