"""When a run ends before it is done: the user's wish to stop, and its deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from comfy_cpu_core.errors import DeadlineExceeded, Interrupted, UsageError

__all__ = ["Limits"]


class Limits:
    """Cancellation and deadline of one run; the time counts from now.

    Args:
        cancel: set from any thread to end the run.
        timeout_s: seconds that the run may take; None for no limit.
        clock: seconds that never go back.

    Raises:
        UsageError: `timeout_s` is not above 0.
    """

    def __init__(
        self,
        cancel: threading.Event | None = None,
        timeout_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if timeout_s is not None and not timeout_s > 0:
            raise UsageError(f"timeout_s is {timeout_s!r}; it must be above 0, or None for no limit")
        self._cancel = cancel or threading.Event()
        self._clock = clock
        self.timeout_s = timeout_s
        self._start = clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    @property
    def cancelled(self) -> bool:
        """Whether the user wants to stop."""
        return self._cancel.is_set()

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.timeout_s is not None and self.elapsed_s > self.timeout_s

    def check(self) -> None:
        """Raise if the run is to end.

        Raises:
            Interrupted: the user wants to stop.
            DeadlineExceeded: the deadline has passed.
        """
        if self.cancelled:
            raise Interrupted("the run was cancelled")
        if self.expired:
            raise DeadlineExceeded(
                f"the run did not end within {self.timeout_s:g} s",
                remedy="give it more time, or make the pictures or models smaller",
            )
