"""What a worker counts while it lives."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence

from comfy_cpu_worker.outcome import FinalState

__all__ = ["Histogram", "WorkerStats"]

#: Upper bounds in seconds: from a small node to the longest job that RunPod allows by default and beyond.
_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)

#: Jobs whose mean says when a place in a full queue may be free.
_RECENT = 20


class Histogram:
    """How often values fell below each of some bounds."""

    def __init__(self, bounds: Sequence[float] = _BOUNDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, int]]:
        """(upper bound, values up to it) of each bucket, as Prometheus has them."""
        found, total = [], 0
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            found.append((bound, total))
        return found


class WorkerStats:
    """Counters of one worker. Used in the event loop's thread alone.

    Attributes:
        ended: jobs by the state in which they ended.
        retried: jobs that were queued again on request.
        cut_off: jobs that were queued again because the worker had died.
        refused: jobs that were not accepted, by the error's code.
        waiting, execution: seconds that jobs waited and ran.
    """

    def __init__(self) -> None:
        self.ended: Counter[FinalState] = Counter()
        self.refused: Counter[str] = Counter()
        self.retried = 0
        self.cut_off = 0
        self.waiting = Histogram()
        self.execution = Histogram()
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def finished(self, state: FinalState, waiting_s: float, execution_s: float) -> None:
        """Count a job that ran."""
        self.ended[state] += 1
        self.waiting.observe(waiting_s)
        self.execution.observe(execution_s)
        self._recent.append(execution_s)

    @property
    def retry_after_s(self) -> float:
        """When a place in a full queue may be free: as long as a job took of late; between 1 and 60 s."""
        mean = sum(self._recent) / len(self._recent) if self._recent else 1.0
        return min(max(mean, 1.0), 60.0)
