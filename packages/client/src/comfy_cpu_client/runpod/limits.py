"""How long a run may take, in all its ways. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["RunLimits", "Stopping"]

#: Why a run is to end before the job has: somebody cancelled it; its deadline; it waited too long; it runs, or says so,
#: long after the endpoint should have ended it.
Stopping = Literal["cancelled", "timed_out", "queue_limit", "stuck"]


@dataclass(frozen=True)
class RunLimits:
    """How long a run may take. All moments are of one clock that never goes back.

    Attributes:
        deadline: when it is to be over; None for never.
        queue_limit_s: how long it may wait until it begins.
        execution_limit_s: how long it may run: what the endpoint was told, and a while.
        life_s: how long it may take in all: the time to live that the endpoint was told, and a while.
        patience_s: how long the endpoint may be away.
    """

    deadline: float | None = None
    queue_limit_s: float | None = None
    execution_limit_s: float | None = None
    life_s: float = 86_460.0
    patience_s: float = 60.0

    def overdue(self, now: float, started: float, began: float | None) -> Stopping | None:
        """Which limit is over; None if none is.

        Args:
            started: when the run was begun here.
            began: when the job began to run; None while it waits.
        """
        ends = self._ends(started, began)
        return next((why for why, end in ends if now >= end), None)

    def next_end(self, started: float, began: float | None) -> float:
        """When the first of the limits will be over."""
        return min(end for _, end in self._ends(started, began))

    def _ends(self, started: float, began: float | None) -> list[tuple[Stopping, float]]:
        ends: list[tuple[Stopping, float]] = []
        if self.deadline is not None:
            ends.append(("timed_out", self.deadline))
        if began is None and self.queue_limit_s is not None:
            ends.append(("queue_limit", started + self.queue_limit_s))
        if began is not None and self.execution_limit_s is not None:
            ends.append(("stuck", began + self.execution_limit_s))
        return [*ends, ("stuck", started + self.life_s)]
