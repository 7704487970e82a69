"""How long to wait before a process is started again. Knows no process."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    """Delays that double from crash to crash and begin anew once a process ran well for a while.

    Args:
        first_s: the delay after the first crash, in seconds.
        longest_s: no delay is longer.
        well_s: a process that ran that long did well: what came before it is forgotten.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        *,
        first_s: float = 0.1,
        longest_s: float = 15.0,
        well_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._well_s = well_s
        self._clock = clock
        self._crashes = 0
        self._since: float | None = None

    def started(self) -> None:
        """The process is ready."""
        self._since = self._clock()

    def crashed(self) -> float:
        """The process ended, or did not become ready; gives the seconds to wait before the next one."""
        if self._since is not None and self._clock() - self._since >= self._well_s:
            self._crashes = 0
        self._since = None
        self._crashes += 1
        return min(self._first_s * 2.0 ** min(self._crashes - 1, 30), self._longest_s)
