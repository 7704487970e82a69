"""Which input goes to which target, and when: events in, decisions out. Pure: no clock, no thread, no I/O.

Whoever drives it tells what happened (`offer`, `ended`, `answered`) and carries out what `actions` says; `wake_at` is when
to ask again if nothing happens. At most `Scheduler.wants` inputs are held in memory, however many there are.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from comfy_cpu_client.batch.health import Backoff, TargetHealth
from comfy_cpu_client.batch.verdicts import Verdict

__all__ = ["Action", "Again", "Ask", "Item", "Policy", "Scheduler", "Start"]

#: How many inputs are held at least: enough that some may wait to be tried again while others go on.
_HELD = 256


@dataclass(frozen=True)
class Policy:
    """How to go about it.

    Attributes:
        in_flight: how many jobs may be under way at once, at all targets together.
        rate: how many may be started per second; None for no limit.
        retries: how often an input is tried again.
        retry_s, retry_limit_s: how long the first and the last of these tries wait, in seconds.
        down_s, down_limit_s: how long a target that is down is left alone, in seconds.
        give_up_s: when to give up if no target does anything, in seconds.
    """

    in_flight: int = 8
    rate: float | None = None
    retries: int = 3
    retry_s: float = 0.5
    retry_limit_s: float = 60.0
    down_s: float = 1.0
    down_limit_s: float = 60.0
    give_up_s: float = 300.0


@dataclass(frozen=True)
class Item:
    """An input that is to be run.

    Attributes:
        place: its number in the journal.
        failures: how often it was tried in vain.
        target: the only target that it may go to, because a job for it may be there already; None for any.
    """

    place: int
    failures: int = 0
    target: str | None = None


@dataclass(frozen=True)
class Start:
    """Start a job."""

    item: Item
    target: str


@dataclass(frozen=True)
class Ask:
    """Ask a target how it is; the answer goes to `Scheduler.answered`."""

    target: str


Action = Start | Ask


@dataclass(frozen=True)
class Again:
    """An input will be tried again.

    Attributes:
        item: as it will be then.
        at: when, by the caller's clock.
        same: whether under the same key.
    """

    item: Item
    at: float
    same: bool


class Scheduler:
    """The decisions of one batch.

    Args:
        targets: name → weight.
        policy: the bounds.
        random: gives numbers from 0 to 1, for jitter.
    """

    def __init__(self, targets: Mapping[str, float], policy: Policy, random: Callable[[], float]) -> None:
        self.policy = policy
        self._backoff = Backoff(policy.retry_s, policy.retry_limit_s, random)
        down = Backoff(policy.down_s, policy.down_limit_s, random)
        self._targets = {name: TargetHealth(name, down, weight) for name, weight in targets.items()}
        self._ready: deque[Item] = deque()
        self._bound: dict[str, deque[Item]] = {name: deque() for name in targets}
        self._delayed: list[tuple[float, int, Item]] = []
        self._number = itertools.count()
        self._started: dict[int, Start] = {}
        self._next_slot = float("-inf")
        self._trouble_since: float | None = None

    @property
    def targets(self) -> Mapping[str, TargetHealth]:
        """The targets, to be looked at."""
        return self._targets

    @property
    def in_flight(self) -> int:
        """How many jobs are under way."""
        return len(self._started)

    @property
    def held(self) -> int:
        """How many inputs wait here."""
        return len(self._ready) + len(self._delayed) + sum(len(bound) for bound in self._bound.values())

    @property
    def wants(self) -> int:
        """How many inputs more may be offered."""
        return max(0, max(_HELD, 4 * self.policy.in_flight) - self.held)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do until something is offered."""
        return not self.held and not self._started

    # In -------------------------------------------------------------------------------------------------------------

    def offer(self, item: Item) -> None:
        """Take an input that waits."""
        self._queue_of(item).append(item)

    def ended(self, place: int, verdict: Verdict, now: float) -> Again | None:
        """Take the end of a job; gives when the input will be tried again, or None if that was its result."""
        start = self._started.pop(place)
        target = self._targets[start.target]
        target.in_flight -= 1
        self._learn(target, verdict, now)
        item = start.item
        if verdict.again == "no" or (verdict.counts and item.failures >= self.policy.retries):
            return None
        same = verdict.again == "same"
        at = now + self._backoff.delay(item.failures) if verdict.counts else now
        item = Item(place, item.failures + verdict.counts, start.target if same else None)
        heapq.heappush(self._delayed, (at, next(self._number), item))
        return Again(item, at, same)

    def answered(self, target: str, problem: str | None, now: float) -> None:
        """Take a target's answer to `Ask`: None if it is ready, else what is wrong."""
        self._targets[target].answered(now, problem)

    # Out ------------------------------------------------------------------------------------------------------------

    def actions(self, now: float) -> list[Action]:
        """What to do now. Each is done from now on: a job that is to start counts as under way."""
        self._release(now)
        actions: list[Action] = []
        for target in self._targets.values():
            if target.state == "down" and target.until <= now:
                target.ask()
                actions.append(Ask(target.name))
        while self.in_flight < self.policy.in_flight and self._next_slot <= now:
            start = self._next(now)
            if start is None:
                break
            self._started[start.item.place] = start
            self._targets[start.target].in_flight += 1
            if self.policy.rate is not None:
                self._next_slot = max(self._next_slot, now) + 1 / self.policy.rate
            actions.append(start)
        return actions

    def wake_at(self, now: float) -> float | None:
        """When to ask for actions again, if nothing happens before; None: something must happen first."""
        times = [target.until for target in self._targets.values() if target.state in {"up", "down"}]
        if self._delayed:
            times.append(self._delayed[0][0])
        if self._ready or any(self._bound.values()):
            times.append(self._next_slot)
        if self._trouble_since is not None:
            times.append(self._trouble_since + self.policy.give_up_s)
        return min((time for time in times if time > now), default=None)

    def hopeless(self, now: float) -> bool:
        """Whether no target is of any use: all are gone, or none has done anything for too long."""
        alive = [target for target in self._targets.values() if target.state != "gone"]
        if not alive:
            return True
        if self._started or self._trouble_since is None or any(target.takes(now) for target in alive):
            return False
        return now - self._trouble_since >= self.policy.give_up_s

    # Inside -----------------------------------------------------------------------------------------------------------

    def _learn(self, target: TargetHealth, verdict: Verdict, now: float) -> None:
        match verdict.target:
            case "good":
                target.good()
                self._trouble_since = None
                return
            case "unsaid":
                return
            case "bad":
                target.bad(now, verdict.message)
            case "busy":
                target.busy(now, verdict.message, verdict.retry_after_s)
            case "gone":
                target.give_up(verdict.message)
                self._ready.extendleft(reversed(self._bound[target.name]))
                self._bound[target.name].clear()
        if self._trouble_since is None and not any(other.takes(now) for other in self._targets.values()):
            self._trouble_since = now

    def _release(self, now: float) -> None:
        """Let inputs go whose time to wait is over."""
        due = []
        while self._delayed and self._delayed[0][0] <= now:
            due.append(heapq.heappop(self._delayed)[2])
        # In front: an input that was begun should end before others begin.
        for item in reversed(due):
            self._queue_of(item).appendleft(item)

    def _queue_of(self, item: Item) -> deque[Item]:
        target = self._targets.get(item.target) if item.target is not None else None
        return self._ready if target is None or target.state == "gone" else self._bound[target.name]

    def _next(self, now: float) -> Start | None:
        for name, items in self._bound.items():
            if items and self._targets[name].takes(now):
                return Start(items.popleft(), name)
        able = [target for target in self._targets.values() if target.takes(now)]
        if not self._ready or not able:
            return None
        return Start(self._ready.popleft(), min(able, key=lambda target: (target.load, target.ended)).name)
