"""How well a target does, and how much it should get therefore. Pure: all times come from the caller's clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Backoff", "TargetHealth", "TargetState"]

#: ``up``; ``down``: nothing until it is asked again how it is; ``asked``; ``trial``: one job, to see; ``gone``: for good.
TargetState = Literal["up", "down", "asked", "trial", "gone"]

#: How much one outcome changes the health: after five failures in a row a third is left.
_STEP = 0.2
#: What the health never falls below, so that a target can always recover.
_FLOOR = 0.05
#: Failures in a row that take a target down.
_STREAK = 3


@dataclass(frozen=True)
class Backoff:
    """Waiting times that double, with jitter, so that many who wait do not come back at the same moment.

    Attributes:
        first_s, limit_s: the first one and the longest one, in seconds, before jitter takes up to half of it.
        random: gives a number from 0 to 1.
    """

    first_s: float
    limit_s: float
    random: Callable[[], float] = field(repr=False)

    def delay(self, before: int) -> float:
        """How long to wait after `before` times of waiting already, in seconds."""
        return min(self.first_s * 2.0 ** min(before, 60), self.limit_s) * (0.5 + self.random() / 2)


@dataclass
class TargetHealth:
    """One target.

    Attributes:
        name: as the user gave it.
        backoff: how long it is left alone when it is down or busy.
        weight: how much it should get, compared with the others, while all of them do well.
        health: 0 to 1: how its last jobs went.
        until: when it may be asked or used again, if it is down or busy.
        problem: what it last said was wrong.
        ended, failed: how many jobs it ended, and how many of them were its failures.
    """

    name: str
    backoff: Backoff
    weight: float = 1.0
    state: TargetState = "up"
    health: float = 1.0
    in_flight: int = 0
    until: float = float("-inf")
    problem: str = ""
    ended: int = 0
    failed: int = 0
    _streak: int = 0
    _pauses: int = 0

    @property
    def load(self) -> float:
        """How much it would have to do with one job more, by what it should have."""
        return (self.in_flight + 1) / (self.weight * self.health)

    def takes(self, now: float) -> bool:
        """Whether it may get a job."""
        if self.state == "up":
            return self.until <= now
        return self.state == "trial" and self.in_flight == 0

    def good(self) -> None:
        """It answered as it should."""
        self.ended += 1
        self.health += _STEP * (1 - self.health)
        self._streak = self._pauses = 0
        if self.state != "gone":
            self.state = "up"

    def bad(self, now: float, problem: str) -> None:
        """It failed."""
        self.ended += 1
        self.failed += 1
        self.problem = problem
        self.health = max(_FLOOR, self.health * (1 - _STEP))
        self._streak += 1
        if self.state == "trial" or (self.state == "up" and self._streak >= _STREAK):
            self._pause("down", now, None)

    def busy(self, now: float, problem: str, retry_after_s: float | None) -> None:
        """It wants to be left alone; those that were under way already say so too, and count once."""
        self.problem = problem
        if self.state == "trial":
            self.state = "up"
        if self.state == "up" and self.until <= now:
            self._pause("up", now, retry_after_s)

    def give_up(self, problem: str) -> None:
        """It is of no use any more."""
        self.state, self.problem = "gone", problem

    def ask(self) -> None:
        """Somebody asks it how it is."""
        self.state = "asked"

    def answered(self, now: float, problem: str | None) -> None:
        """How it said it is: None for ready."""
        if self.state != "asked":  # a job ended meanwhile, and said more
            return
        if problem is None:
            self.state = "trial"
        else:
            self.problem = problem
            self._pause("down", now, None)

    def _pause(self, state: TargetState, now: float, seconds: float | None) -> None:
        self.state = state
        self.until = now + (self.backoff.delay(self._pauses) if seconds is None else seconds)
        self._pauses += 1
