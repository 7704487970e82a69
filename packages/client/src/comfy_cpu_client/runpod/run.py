"""One job on a queue, from its submission to its end: a state machine without sockets and without a clock.

What an endpoint answers goes in; what to send next comes out::

    run = JobRun(endpoints, RunLimits(deadline=…), now=monotonic())
    while not run.over:
        ask, wait_s = run.next(monotonic())
        ...                                     # send it, or wait
        run.told(ask, parse_job(answer), monotonic())       # or run.failed(ask, error, monotonic())

A job is sent a second time only where the first is known not to have been accepted, or where the endpoint takes
idempotency keys. Whatever the endpoint says or does not say, the run is over soon after its deadline; without one, when
the job's time to live is over.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from comfy_cpu_client.errors import JobLost, SubmissionUnknown, TargetBusy, TargetRefused, TargetUnreachable
from comfy_cpu_client.runpod.address import Endpoint
from comfy_cpu_client.runpod.failed import Fate, fate_of
from comfy_cpu_client.runpod.limits import RunLimits, Stopping
from comfy_cpu_client.runpod.protocol import JobAnswer
from comfy_cpu_core.errors import TargetError
from comfy_cpu_core.results import Progress

__all__ = ["STOP_SECONDS", "Ask", "JobRun"]

#: What to send next.
Ask = Literal["run", "runsync", "status", "stream", "cancel"]

#: How long after its deadline a run may take to end on the endpoint before it is over here.
STOP_SECONDS = 2.0

# The same where somebody cancels it, in seconds.
_CANCEL_SECONDS = 10.0
# A job is asked for each time that it is so much older than at its last change; in seconds, at least and at most.
_POLL_SHARE = 0.1
_POLL_SECONDS = {"runpod": (0.2, 5.0), "worker": (0.02, 1.0)}
_STOPPING_SECONDS = 0.1
_CANCEL_AGAIN_SECONDS = 2.0
# Until a request that failed is sent again, in seconds: twice as long each time.
_RETRY_SECONDS = (0.2, 10.0)
# So many times must a job be unknown, or completed without an output, before that is believed.
_MISSING, _EMPTY = 4, 3
_AGAIN_SECONDS = (0.25, 2.0)
# An endpoint that says that it is busy is given so many times the patience that one which says nothing is.
_BUSY_PATIENCE = 10.0
# Nothing is lost yet where nobody is there for the first request: the address may be wrong, and somebody waits.
_FIRST_PATIENCE_SECONDS = 5.0


class JobRun:
    """A job.

    Args:
        endpoints: where to submit it, in the order of preference; or where it may be.
        limits: how long it may take.
        now: seconds of a clock that never goes back, as everywhere here.
        sync: whether to submit it with ``runsync``.
        stream: whether to ask for progress.
        job_id: what it is called, if it was submitted before.
        jitter: gives 0 to 1: by how much a wait after a failure is longer.

    Attributes:
        endpoint: where it was submitted, or will be next.
        job_id: what the endpoint calls it, once that is known.
        answer: how it ended, once that is known.
        error: why nobody can tell how it ended, if that is so.
        stopping: why it is to end before the job has, if that is so.
        ambiguous: whether it was sent and nobody knows whether it was accepted.
        confirmed: whether the endpoint said that the job has ended.
        submissions: how often it was sent.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        limits: RunLimits,
        *,
        now: float,
        sync: bool = False,
        stream: bool = False,
        job_id: str | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.endpoint = endpoints[0]
        self.job_id = job_id
        self.answer: JobAnswer | None = None
        self.error: TargetError | None = None
        self.stopping: Stopping | None = None
        self.ambiguous = False
        self.confirmed = False
        self.submissions = 0
        self._endpoints = list(endpoints)
        self._limits = limits
        self._poll: Ask = "stream" if stream else "status"
        self._jitter = jitter
        self._over = False
        self._started = self._changed = self._ended = now
        self._began: float | None = None
        self._in_flight = False
        self._agenda: tuple[Ask, float] = (self._poll if job_id else "runsync" if sync else "run", now)
        self._tried: list[Endpoint] = []
        self._refusals: list[TargetError] = []
        self._wait_s = 0.0
        self._away_since: float | None = None
        self._missing = self._empty = 0
        self._stop_until = self._cancel_again = now
        self._last_progress: Progress | None = None

    # --- what comes out ---------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether it has ended, or cannot be followed any further."""
        return self._over

    @property
    def running(self) -> bool:
        """Whether the job was seen to run, and not to wait again since."""
        return self._began is not None

    @property
    def queue_seconds(self) -> float:
        """How long it waited, as seen from here."""
        return (self._began if self._began is not None else self._ended) - self._started

    @property
    def execution_seconds(self) -> float:
        """How long it ran, as seen from here."""
        return self._ended - (self._began if self._began is not None else self._ended)

    @property
    def seconds(self) -> float:
        """How long it took in all, as seen from here."""
        return self._ended - self._started

    def idle_s(self, now: float) -> float:
        """Seconds until `tick` has something to do; 0 if it is over."""
        return 0.0 if self._over else max(0.0, self._next_end() - now)

    @property
    def until(self) -> float | None:
        """When a request that is under way is of no use any more; None for never."""
        deadline = self._limits.deadline
        return deadline + STOP_SECONDS if deadline is not None else None

    def next(self, now: float) -> tuple[Ask | None, float]:
        """What to send now; or None, and how many seconds until this is to be called again."""
        self.tick(now)
        if self._over:
            return None, 0.0
        ask, due = self._agenda
        if due <= now:
            self._in_flight = True
            self.submissions += ask in {"run", "runsync"}
            return ask, 0.0
        return None, max(0.0, min([due, self._next_end()]) - now)

    def tick(self, now: float) -> None:
        """Keep the limits. May be called at any time, also while a request is under way that does not end."""
        if self._over:
            return
        if self.stopping is None and (why := self._limits.overdue(now, self._started, self._began)) is not None:
            self._stop(why, now)
        if self.stopping is not None and now >= self._stop_until:
            self.ambiguous = self.job_id is None
            self._finish(now)

    # --- what goes in -----------------------------------------------------------------------------------------------

    def told(self, ask: Ask, answer: JobAnswer, now: float) -> Sequence[Progress]:
        """Take the answer to a request; gives the progress that is new."""
        self._in_flight = False
        self.job_id = self.job_id or answer.id
        if self._over:
            return ()
        self.ambiguous = False
        self._away_since, self._wait_s, self._missing = None, 0.0, 0
        progress = tuple(self._new(answer.progress))
        if answer.ended:
            self._told_end(ask, answer, now)
            return progress
        if (answer.state == "IN_QUEUE" and self.running) or (answer.state == "IN_PROGRESS" and not self.running):
            # It may go back: the endpoint's worker died, and the job waits for another.
            self._began = now if answer.state == "IN_PROGRESS" else None
            self._changed = now
        if ask in {"run", "runsync"}:
            self._changed = now
        if self.stopping is None:
            self._agenda = (self._poll, now + self._poll_s(now))
        elif ask != "cancel" and now >= self._cancel_again:
            self._agenda = ("cancel", now)
        else:
            self._cancel_again = now + _CANCEL_AGAIN_SECONDS if ask == "cancel" else self._cancel_again
            self._agenda = ("status", now + _STOPPING_SECONDS)
        return progress

    def failed(self, ask: Ask, error: TargetError, now: float) -> None:
        """A request had no answer, or one that is of no use."""
        self._in_flight = False
        if self._over:
            return
        if self.job_id is None:
            self._not_submitted(ask, error, now)
        elif isinstance(error, TargetRefused) and error.status == 404:
            self._not_there(now)
        elif ask == "stream" and isinstance(error, TargetRefused) and error.status in {400, 405, 501}:
            self._poll = "status"  # not every such server has it
            self._agenda = ("status", now)
        elif ask != "cancel" and fate_of(error, keyed=True) in {"rejected", "refused"}:
            self._fail(error, now)
        elif self.stopping is not None:
            refused = ask == "cancel" and isinstance(error, TargetRefused) and error.status < 500
            again: Ask = "cancel" if not refused and now >= self._cancel_again else "status"
            self._agenda = (again, now + min(self._backoff(error), _CANCEL_AGAIN_SECONDS))
        elif self._impatient(error, now):
            self._fail(self._given_up(error), now)
        else:
            self._agenda = (ask, now + self._backoff(error))

    def cancel(self, now: float) -> None:
        """Somebody wants it to end."""
        if self.stopping is None and not self._over:
            self._stop("cancelled", now)

    # --- submitting -------------------------------------------------------------------------------------------------

    def _not_submitted(self, ask: Ask, error: TargetError, now: float) -> None:
        fate: Fate = fate_of(error, keyed=self.endpoint.keyed)
        self.ambiguous = self.ambiguous or fate == "unknown"
        if fate == "rejected":  # the same job is always rejected: it was not accepted before, either
            self.ambiguous = False
            self._fail(error, now)
        elif self.ambiguous and (not self.endpoint.keyed or fate == "refused" or self._impatient(error, now)):
            self._unknown(error, now)
        elif self.ambiguous:  # with the same key, to the same worker: that is the same job
            self._agenda = (ask, now + self._backoff(error))
        elif self.stopping is not None:
            self._finish(now)
        else:
            self._elsewhere(ask, error, fate, now)

    def _unknown(self, error: TargetError, now: float) -> None:
        if self.stopping is not None:
            self._finish(now)
            return
        self._fail(
            SubmissionUnknown(
                f"the job was sent to {self.endpoint.where} and the answer was lost, so it may run: {error}",
                remedy="see in the endpoint's console, or by what the workflow writes, whether it runs, before you run "
                "it again",
            ),
            now,
        )

    def _elsewhere(self, ask: Ask, error: TargetError, fate: Fate, now: float) -> None:
        """It was not accepted: on to the next endpoint, and after the last one to the first again, after a while."""
        impatient = self._impatient(error, now)
        if fate == "refused":
            self._refusals.append(error)
            self._endpoints.remove(self.endpoint)
        else:
            self._tried.append(self.endpoint)
        if not self._endpoints:
            self._fail(self._refusals[0], now)
            return
        untried = [endpoint for endpoint in self._endpoints if endpoint not in self._tried]
        if untried:
            self.endpoint = untried[0]
            self._agenda = (ask, now)
        elif impatient:
            self._fail(error, now)
        else:
            self._tried.clear()
            self.endpoint = self._endpoints[0]
            self._agenda = (ask, now + self._backoff(error))

    # --- following --------------------------------------------------------------------------------------------------

    def _told_end(self, ask: Ask, answer: JobAnswer, now: float) -> None:
        """It has ended; only the status is sure to say everything, and even that may come before the output is there."""
        whole = ask in {"status", "runsync"} or answer.state == "CANCELLED"
        if whole and answer.state == "COMPLETED" and answer.output is None:
            self._empty += 1
            whole = self._empty >= _EMPTY
        if whole:
            self.answer, self.confirmed = answer, True
            self._finish(now)
        else:
            self._agenda = ("status", now if not self._empty else now + self._again(self._empty))

    def _not_there(self, now: float) -> None:
        self._missing += 1
        if self.submissions == 0 and len(self._endpoints) > 1:  # it was submitted before, and not here
            self._endpoints.remove(self.endpoint)
            self.endpoint = self._endpoints[0]
            self._missing, self._agenda = 0, (self._poll, now)
        elif self.stopping is not None:
            self.confirmed = True
            self._finish(now)
        elif self._missing >= _MISSING:
            self._fail(
                JobLost(
                    f"{self.endpoint.where} no longer knows the job {self.job_id}: its time to live is over, its result "
                    "was kept too long, or the queue was lost",
                    job_id=str(self.job_id),
                    remedy="run it again",
                ),
                now,
            )
        else:  # a job that was accepted this moment may not be known everywhere yet
            self._agenda = ("status", now + self._again(self._missing))

    def _given_up(self, error: TargetError) -> TargetError:
        return TargetUnreachable(f"{error}; the job {self.job_id} may still be at work", remedy=error.remedy)

    def _new(self, progress: Sequence[Progress]) -> Iterator[Progress]:
        for event in progress:
            if event != self._last_progress:
                self._last_progress = event
                yield event

    # --- time -------------------------------------------------------------------------------------------------------

    def _next_end(self) -> float:
        """When `tick` has something to do."""
        return self._stop_until if self.stopping is not None else self._limits.next_end(self._started, self._began)

    def _stop(self, why: Stopping, now: float) -> None:
        self.stopping = why
        deadline = self._limits.deadline
        self._stop_until = now + (STOP_SECONDS if why == "timed_out" else _CANCEL_SECONDS)
        if deadline is not None:
            self._stop_until = min(self._stop_until, deadline + STOP_SECONDS)
        if self.job_id is not None:
            self._agenda = ("cancel", now)
        elif self.ambiguous:
            self._agenda = (self._agenda[0], now)
        elif not self._in_flight:
            self._finish(now)

    def _impatient(self, error: TargetError, now: float) -> bool:
        self._away_since = self._away_since if self._away_since is not None else now
        patience_s = self._limits.patience_s
        if isinstance(error, TargetBusy):
            patience_s *= _BUSY_PATIENCE
        elif self.job_id is None and not self.ambiguous:
            patience_s = min(patience_s, _FIRST_PATIENCE_SECONDS)
        return now - self._away_since >= patience_s

    def _backoff(self, error: TargetError) -> float:
        shortest, longest = _RETRY_SECONDS
        self._wait_s = min(max(self._wait_s * 2, shortest), longest)
        wanted = error.retry_after_s if isinstance(error, TargetBusy) else None
        return max(self._wait_s, wanted or 0.0) * (1 + 0.25 * self._jitter())

    def _again(self, times: int) -> float:
        shortest, longest = _AGAIN_SECONDS
        return min(shortest * (1 << times), longest)

    def _poll_s(self, now: float) -> float:
        shortest, longest = _POLL_SECONDS[self.endpoint.kind]
        return float(min(max((now - self._changed) * _POLL_SHARE, shortest), longest))

    def _fail(self, error: TargetError, now: float) -> None:
        self.error = error
        self._finish(now)

    def _finish(self, now: float) -> None:
        self._over, self._ended = True, now
