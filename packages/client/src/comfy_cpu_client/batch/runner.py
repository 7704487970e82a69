"""The loop of a batch: what the scheduler decides is written down, then done; what happens is written down, then told.

One thread (the caller's) has the scheduler and the journal; jobs run in threads of their own and tell of their end through
a queue. What happened since the last turn, and what is decided upon it, is one transaction.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from comfy_cpu_client.batch.health import TargetState
from comfy_cpu_client.batch.jobs import Ended, JobRunner
from comfy_cpu_client.batch.journal import Journal, Record, Waiting
from comfy_cpu_client.batch.schedule import Ask, Item, Scheduler, Start
from comfy_cpu_core.errors import ComfyCpuError, InputError, TargetError

__all__ = ["BatchProgress", "BatchRunner", "TargetProgress"]

#: How long cancelled jobs may take to end, in seconds.
GRACE_S = 10.0

#: How often progress is told, in seconds.
_TELL_EVERY = 0.2

#: After so many inputs in a row that were refused, none having ever run, the workflow is at fault.
_ALL_REFUSED = 100


@dataclass(frozen=True)
class TargetProgress:
    """How a target stands.

    Attributes:
        state, health: see `TargetHealth`.
        ended, failed: jobs that it ended in this session, and those among them that were its failures.
    """

    name: str
    state: TargetState
    health: float
    in_flight: int
    ended: int
    failed: int
    problem: str


@dataclass(frozen=True)
class BatchProgress:
    """How the batch stands.

    Attributes:
        inputs: how many there are.
        counts: how many ended in each status; ``retried`` and ``cut_off`` too.
        in_flight: how many jobs are under way.
        ended_here: how many inputs ended in this session.
        seconds: how long this session has lasted.
        last_failure: the label of the input that failed last, and why; None if none has since the last time.
    """

    inputs: int
    counts: Mapping[str, int]
    in_flight: int
    ended_here: int
    seconds: float
    targets: tuple[TargetProgress, ...]
    last_failure: tuple[str, str] | None

    @property
    def ended(self) -> int:
        """How many inputs have a result."""
        return sum(self.counts.get(status, 0) for status in _ENDS)


_ENDS = ("completed", "blocked", "failed", "cancelled", "timed_out")

ProgressSink = Callable[[BatchProgress], None]


@dataclass(frozen=True)
class _Answered:
    target: str
    problem: str | None


@dataclass(frozen=True)
class _Submitted:
    place: int
    job: str


_Event = Ended | _Answered | _Submitted


class BatchRunner:
    """Runs what waits in a journal.

    Args:
        journal: a session of it has begun.
        scheduler: decides.
        runners: name → what runs jobs there.
        limit: end after so many inputs; None for all.
        fail_fast: stop at the first input that fails.
        on_progress: told now and then, in the caller's thread.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        journal: Journal,
        scheduler: Scheduler,
        runners: Mapping[str, JobRunner],
        *,
        limit: int | None = None,
        fail_fast: bool = False,
        on_progress: ProgressSink | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._scheduler = scheduler
        self._runners = runners
        self._left = limit
        self._fail_fast = fail_fast
        self._on_progress = on_progress
        self._clock = clock
        # An event leaves only when the journal has it: an interrupt may come anywhere.
        self._events: deque[_Event] = deque()
        self._happened = threading.Event()
        self._tasks: queue.SimpleQueue[tuple[int, Callable[[], Ended]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._begun: set[int] = set()
        self._closing = False
        self._known: dict[int, Waiting] = {}
        self._flying: dict[int, str] = {}
        self._after = 0
        self._counts = journal.counts()
        self._stop: Literal["no", "failed"] | ComfyCpuError = "no"
        self._refused = 0
        self._ended_here = 0
        self._began = clock()
        self._told = float("-inf")
        self._last_failure: tuple[str, str] | None = None

    def run(self) -> None:
        """Run until every input has a result, or the limit is reached, or an input fails and `fail_fast` is set.

        An interrupt, or whatever else is raised, cancels what is under way first; those inputs wait again.

        Raises:
            ComfyCpuError: nothing can go on: no target is of use, outputs cannot be written, the workflow is refused.
        """
        try:
            self._loop()
        except BaseException:
            self._wind_down()
            raise
        self._wind_down()
        if isinstance(self._stop, ComfyCpuError):
            raise self._stop

    # The loop -------------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            with self._journal.transaction():
                now = self._clock()
                events = list(self._events)
                for event in events:
                    self._take(event, now)
                actions = []
                if self._stop == "no":
                    self._feed()
                    actions = self._scheduler.actions(now)
                    for action in actions:
                        if isinstance(action, Start):
                            self._journal.start(action.item.place, action.target)
            self._drop(events)
            for action in actions:
                self._do(action)
            self._tell()
            if self._stop != "no" or (self._scheduler.idle and not actions):
                return
            if self._scheduler.hopeless(now):
                self._stop = self._no_target()
                return
            self._listen(self._scheduler.wake_at(now))

    def _listen(self, wake_at: float | None) -> None:
        """Wait for something to happen."""
        seconds = 1.0 if self._on_progress is not None else 60.0
        if wake_at is not None:
            seconds = min(seconds, max(0.0, wake_at - self._clock()))
        self._happened.wait(seconds)
        self._happened.clear()

    def _put(self, event: _Event) -> None:
        """Tell the loop what happened; from any thread."""
        self._events.append(event)
        self._happened.set()

    def _drop(self, events: Sequence[_Event]) -> None:
        for event in events:
            if isinstance(event, Ended):
                with self._lock:
                    self._begun.discard(event.place)
            self._events.popleft()

    def _feed(self) -> None:
        wanted = self._scheduler.wants
        # Not one at a time: a query for many costs little more than a query for one.
        if self._left is not None:
            wanted = min(wanted, self._left)
        elif wanted < 64 and self._scheduler.held > 2 * self._scheduler.policy.in_flight:
            return
        if not wanted:
            return
        found = self._journal.waiting(self._after, wanted)
        for one in found:
            self._after = one.place
            self._known[one.place] = one
            bound = one.target if self._may_be_found(one) else None
            if bound is None:
                self._known[one.place] = replace(one, job=None)
            self._scheduler.offer(Item(one.place, one.failures, bound))
        if self._left is not None:
            self._left -= len(found)

    def _may_be_found(self, one: Waiting) -> bool:
        """Whether the job of an input that was cut off can be asked for where it was."""
        runner = self._runners.get(one.target or "")
        return runner is not None and (runner.has_keys or (runner.keeps_jobs and one.job is not None))

    def _take(self, event: _Event, now: float) -> None:
        if isinstance(event, _Answered):
            self._scheduler.answered(event.target, event.problem, now)
            return
        if isinstance(event, _Submitted):
            self._journal.note_job(event.place, event.job)
            return
        one = self._known[event.place]
        self._flying.pop(event.place, None)
        if event.fatal is not None:
            self._stop = event.fatal
            self._journal.hand_back(event.place, started=True)
            return
        again = self._scheduler.ended(event.place, event.verdict, now)
        if again is not None:
            self._journal.retry(event.place, event.record, same=again.same, counts=event.verdict.counts)
            self._counts["retried"] = self._counts.get("retried", 0) + event.verdict.counts
            self._known[event.place] = replace(
                one,
                generation=one.generation + (not again.same),
                failures=again.item.failures,
                target=again.item.target,
                job=None,
            )
            return
        del self._known[event.place]
        self._result(one, event.record)

    def _result(self, one: Waiting, record: Record) -> None:
        self._journal.finish(one.place, record)
        self._counts[record.status] = self._counts.get(record.status, 0) + 1
        self._ended_here += 1
        if record.status == "completed":
            return
        self._last_failure = (one.label, record.message)
        if record.status != "blocked" and self._fail_fast and self._stop == "no":
            self._stop = "failed"
        self._refused = self._refused + 1 if record.reason in {"input", "invalid"} else 0
        if self._refused >= _ALL_REFUSED and not self._counts.get("completed"):
            self._stop = InputError(
                f"the first {self._refused} inputs were refused, the last one because: {record.message}",
                remedy="mend the workflow or the inputs; --retry-failed runs them again",
            )

    def _do(self, action: Start | Ask) -> None:
        runner = self._runners[action.target]
        if isinstance(action, Ask):
            target = action.target
            threading.Thread(
                target=lambda: self._put(_Answered(target, runner.health())), name="comfy-cpu-ask", daemon=True
            ).start()
            return
        one = self._known[action.item.place]
        self._flying[one.place] = action.target
        if len(self._flying) > len(self._threads):
            # Daemons: what cannot be stopped must not hold up who wants to leave.
            thread = threading.Thread(target=self._work, name="comfy-cpu-batch", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._tasks.put((one.place, lambda: runner.run(one, lambda job: self._put(_Submitted(one.place, job)))))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            place, run = task
            with self._lock:
                if self._closing:
                    continue
                self._begun.add(place)
            self._put(run())

    def _no_target(self) -> ComfyCpuError:
        targets = self._scheduler.targets.values()
        problems = "; ".join(f"{target.name}: {target.problem or 'no answer'}" for target in targets)
        return TargetError(
            f"no target is of use any more: {problems}",
            remedy="the journal keeps what was done: run the same command again when a target is there",
        )

    # The end ----------------------------------------------------------------------------------------------------------

    def _wind_down(self) -> None:
        """Cancel what is under way, write down what ends all the same, and let the rest wait again."""
        with self._lock:
            self._closing = True
            for place in [place for place in self._flying if place not in self._begun]:
                del self._flying[place]
        if self._flying:
            for runner in self._runners.values():
                runner.cancel()
        deadline = self._clock() + GRACE_S
        while True:
            events = list(self._events)
            with self._journal.transaction():
                for event in events:
                    self._put_away(event)
            self._drop(events)
            if not self._flying or self._clock() >= deadline:
                break
            self._listen(deadline)
        # What still does not end stays "running" in the journal: it is cut off.
        with self._journal.transaction():
            for (place,) in self._journal.read("SELECT place FROM inputs WHERE state = 'running'"):
                if place not in self._flying:
                    self._journal.hand_back(place, started=False)
        for _ in self._threads:
            self._tasks.put(None)
        if not self._flying:
            for thread in self._threads:
                thread.join()
        self._tell(last=True)

    def _put_away(self, event: _Event) -> None:
        if isinstance(event, _Answered) or event.place not in self._known:
            return
        if isinstance(event, _Submitted):
            self._journal.note_job(event.place, event.job)
            return
        one = self._known.pop(event.place)
        self._flying.pop(event.place, None)
        if event.fatal is not None or event.verdict.status == "cancelled" or event.verdict.target == "gone":
            self._journal.hand_back(event.place, started=True)
        elif event.verdict.again != "no":
            self._journal.retry(
                event.place, event.record, same=event.verdict.again == "same", counts=event.verdict.counts
            )
        else:
            self._result(one, event.record)

    def _tell(self, *, last: bool = False) -> None:
        now = self._clock()
        if self._on_progress is None or (now - self._told < _TELL_EVERY and not last):
            return
        self._told = now
        failure, self._last_failure = self._last_failure, None
        self._on_progress(
            BatchProgress(
                self._counts["inputs"],
                dict(self._counts),
                len(self._flying),
                self._ended_here,
                now - self._began,
                tuple(
                    TargetProgress(t.name, t.state, t.health, t.in_flight, t.ended, t.failed, t.problem)
                    for t in self._scheduler.targets.values()
                ),
                failure,
            )
        )
