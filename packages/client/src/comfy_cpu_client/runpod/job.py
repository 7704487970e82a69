"""A job on an endpoint: a thread that follows it, and what callers see of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from comfy_cpu_client.errors import TargetUnreachable
from comfy_cpu_client.payload import Received
from comfy_cpu_client.runpod import protocol
from comfy_cpu_client.runpod.address import Endpoint
from comfy_cpu_client.runpod.pacing import Pacer
from comfy_cpu_client.runpod.protocol import JobAnswer, Request, parse_job
from comfy_cpu_client.runpod.run import Ask, JobRun
from comfy_cpu_client.runpod.settings import QueueSettings
from comfy_cpu_client.runpod.transport import Transport
from comfy_cpu_client.runpod.verdict import conclude, with_figures
from comfy_cpu_core.errors import DeadlineExceeded, TargetError
from comfy_cpu_core.results import EventSink, JobStatus, Progress, Result

__all__ = ["Channel", "Order", "QueueJob"]

#: How long an answer to a question about a job may stand still; the job is then asked for again.
_ASK_SECONDS = 20.0
#: How long a job is given to be cancelled that nobody waits for any more.
_LEFTOVER_SECONDS = 5.0


class Channel:
    """How the jobs of a target reach the network: what they share.

    Args:
        transport: sends requests.
        settings: the target's.
    """

    def __init__(self, transport: Transport, settings: QueueSettings) -> None:
        self.transport = transport
        self.settings = settings
        self._pacer = Pacer()
        self._lock = threading.Lock()

    def turn(self, request: Request) -> float:
        """Take the next turn of an operation; gives how many seconds to wait for it."""
        with self._lock:
            return self._pacer.reserve(request.operation, time.monotonic())


@dataclass(frozen=True)
class Order:
    """What is to be submitted.

    Attributes:
        body: the job's document, as JSON.
        key: its idempotency key.
        wait_s: how long a ``runsync`` waits for the end.
    """

    body: bytes = field(repr=False)
    key: str = field(repr=False)
    wait_s: float = 1.0


class QueueJob:
    """A job that is submitted, waits, runs, or has ended.

    Args:
        run: what is known of it.
        order: what to submit; None if it was submitted before.
        channel: how to reach the endpoint.
        on_event: called from the job's thread.
        on_end: called at the end, from the job's thread, too.
    """

    def __init__(
        self,
        run: JobRun,
        order: Order | None,
        channel: Channel,
        *,
        on_event: EventSink | None = None,
        on_end: Callable[[QueueJob], None] = lambda job: None,
    ) -> None:
        self._run = run
        self._order = order
        self._channel = channel
        self._on_event = on_event
        self._on_end = on_end
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._handed_over = threading.Event()
        self._ended = threading.Event()
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._raised: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, name="comfy-cpu-job", daemon=True)

    # --- what callers see -------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """What the endpoint calls it; empty as long as that is not known."""
        return self._run.job_id or ""

    @property
    def endpoint(self) -> Endpoint:
        """Where it was submitted, or will be next."""
        return self._run.endpoint

    @property
    def submissions(self) -> int:
        """How often it was sent; 0 for one that was submitted before."""
        return self._run.submissions

    @property
    def seconds(self) -> float:
        """How long it took in all."""
        return self._run.seconds

    def start(self) -> None:
        """Begin to follow it."""
        self._thread.start()

    def handed_over(self) -> None:
        """Wait until the endpoint has taken it, or does not at first.

        Raises:
            TargetError: it did not, and will not.
        """
        self._await(self._handed_over, None)
        with self._lock:
            if self._error is not None:
                raise self._error

    def status(self) -> JobStatus:
        """Where it stands now; a job that nobody can tell anything of is ``failed``."""
        with self._lock:
            self._tick()
            if self._result is not None:
                return self._result.status
            if self._error is not None:
                return "failed"
            return "running" if self._run.running else "queued"

    def wait(self, timeout_s: float | None = None) -> Result:
        """Wait for its end.

        Raises:
            DeadlineExceeded: it was still under way after `timeout_s` seconds; the job goes on.
            TargetError: nobody can tell how it ended: `SubmissionUnknown`, `JobLost`, the endpoint refuses or is away.
        """
        end = time.monotonic() + timeout_s if timeout_s is not None else None
        if not self._await(self._ended, end):
            raise DeadlineExceeded(f"the job {self.id} was still {self.status()} after {timeout_s:g} s")
        with self._lock:
            if self._error is not None:
                raise self._error
            assert self._result is not None  # noqa: S101  # ended: one of the two is set
            return self._result

    def cancel(self) -> None:
        """Ask it to end. Does nothing after the end."""
        with self._lock:
            self._run.cancel(time.monotonic())
        self._wake.set()

    def join(self, timeout_s: float) -> None:
        """Wait until its thread has ended."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    # --- the thread -------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        try:
            while True:
                with self._lock:
                    ask, wait_s = self._run.next(time.monotonic())
                    if self._run.over:
                        break
                if ask is None:
                    self._handed_over.set()
                    self._wake.wait(wait_s)
                    self._wake.clear()
                    continue
                if ask == "runsync":
                    self._handed_over.set()
                self._carry_out(ask)
                if self._run.job_id is not None:
                    self._handed_over.set()
            self._settle()
        except BaseException as error:  # whoever waits must get it, whatever it is
            self._set(None, error)
        finally:
            self._handed_over.set()
            self._cancel_leftover()
            self._on_end(self)

    def _carry_out(self, ask: Ask) -> None:
        run = self._run
        request = self._request(ask)
        try:
            if not self._await_turn(request):
                raise TargetUnreachable("the job is to end before it was its turn", sent=False)
            read_s = self._order.wait_s + _ASK_SECONDS if self._order and ask == "runsync" else None
            answer = self._channel.transport.send(
                run.endpoint,
                request,
                read_timeout_s=read_s or (None if ask == "run" else _ASK_SECONDS),
                until=run.until,
            )
            told: JobAnswer = parse_job(answer, None if ask in {"run", "runsync"} else run.job_id)
        except TargetError as error:
            with self._lock:
                run.tick(time.monotonic())
                run.failed(ask, error, time.monotonic())
            return
        with self._lock:
            run.tick(time.monotonic())
            progress = run.told(ask, told, time.monotonic())
            self._order = None  # megabytes that are not needed any more
        for event in progress:
            self._emit(event)

    def _request(self, ask: Ask) -> Request:
        run, order = self._run, self._order
        if ask in {"run", "runsync"}:
            assert order is not None  # noqa: S101  # only what was not submitted before is submitted
            key = order.key if run.endpoint.keyed else None
            return protocol.submit(order.body, key=key, wait_s=order.wait_s if ask == "runsync" else None)
        assert run.job_id is not None  # noqa: S101  # it was submitted
        if ask == "cancel":
            return protocol.cancel(run.job_id)
        return protocol.get_stream(run.job_id) if ask == "stream" else protocol.get_status(run.job_id)

    def _await_turn(self, request: Request) -> bool:
        """Wait until the endpoint may be asked; False if the job is to end before, and was not sent."""
        turn = time.monotonic() + self._channel.turn(request)
        submits = request.operation in {"run", "runsync"}
        while (left := turn - time.monotonic()) > 0:
            with self._lock:
                self._run.tick(time.monotonic())
                if self._run.over or (submits and self._run.stopping is not None):
                    return False
            self._wake.wait(min(left, 0.1))
            self._wake.clear()
        return True

    def _emit(self, event: Progress) -> None:
        if self._on_event is None or self._raised is not None:
            return
        try:
            self._on_event(event)
        except BaseException as error:  # it is the caller's, and the caller gets it
            self._raised = error
            self.cancel()

    def _await(self, event: threading.Event, end: float | None) -> bool:
        """Wait for an event; False if it is not there at `end`. A request that never ends keeps nobody for ever."""
        while not (event.is_set() or self._ended.is_set()):
            with self._lock:
                self._tick()
                run, now = self._run, time.monotonic()
                if run.over:  # what is left is to fetch the outputs
                    pause = run.until - now if run.until is not None else threading.TIMEOUT_MAX
                else:
                    pause = run.idle_s(now)
            if end is not None and now >= end:
                return event.is_set()
            event.wait(max(min(pause, end - now if end is not None else threading.TIMEOUT_MAX), 0.001))
        return True

    def _tick(self) -> None:
        """Keep the deadline although the thread may be in a request that does not end."""
        now = time.monotonic()
        self._run.tick(now)
        if self._run.over and not self._ended.is_set() and self._thread.is_alive():
            late = self._run.until is not None and now >= self._run.until
            if self._run.error is None and (self._run.answer is None or late):
                self._conclude(late=late)

    def _settle(self) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            if self._run.error is not None:
                self._set(None, self._run.error)
                return
            found = conclude(self._run)
        if isinstance(found, Received):
            data = [self._channel.transport.fetch(part.url, until=self._run.until) for part in found.remote]
            found = found.complete(data)
        self._set(found, None)

    def _conclude(self, *, late: bool) -> None:
        """End it without what the thread is waiting for."""
        if self._run.answer is not None and late:  # its outputs are still on their way
            self._set(None, DeadlineExceeded("the run's outputs did not arrive before its deadline"))
            return
        found = conclude(self._run)
        self._set(found if isinstance(found, Result) else found.complete(), None)

    def _set(self, result: Result | None, error: BaseException | None) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            if self._raised is not None:
                result, error = None, self._raised
            price = self._channel.settings.price_per_second
            self._result = with_figures(result, self._run, price) if result is not None else None
            self._error = error
            self._ended.set()

    def _cancel_leftover(self) -> None:
        """A job that nobody waits for any more, and that the endpoint may have, must not run on."""
        run = self._run
        if run.job_id is None or run.confirmed or run.stopping is None:
            return
        until = time.monotonic() + _LEFTOVER_SECONDS
        with suppress(TargetError):  # the result says already that nobody confirmed its end
            self._channel.transport.send(
                run.endpoint, protocol.cancel(run.job_id), read_timeout_s=_LEFTOVER_SECONDS, until=until
            )
