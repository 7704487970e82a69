"""How a process ended, in words. Reads nothing itself."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ProcessEnding", "judge_ending"]

# What programs write before they end for want of memory: Python, C++, glibc.
_OUT_OF_MEMORY = ("MemoryError", "std::bad_alloc", "Cannot allocate memory")


@dataclass(frozen=True)
class ProcessEnding:
    """How a process ended; as text, the end of a sentence that begins with its name.

    Attributes:
        returncode: its exit code, or the number of the signal that killed it, negated.
        out_of_memory: whether it ended because there was not enough memory.
    """

    returncode: int
    out_of_memory: bool = False

    @property
    def signal(self) -> str | None:
        """The signal that killed it, for example ``SIGKILL``; None if it ended by itself."""
        if self.returncode >= 0:
            return None
        try:
            return signal.Signals(-self.returncode).name
        except ValueError:  # a real-time signal
            return f"signal {-self.returncode}"

    def __str__(self) -> str:
        how = f"was killed by {self.signal}" if self.signal else f"ended with exit code {self.returncode}"
        return f"ran out of memory and {how}" if self.out_of_memory else how


def judge_ending(
    returncode: int, oom_kills_before: int | None, oom_kills_after: int | None, log: Sequence[str]
) -> ProcessEnding:
    """Find out why a process ended.

    Args:
        returncode: as `ProcessEnding.returncode`.
        oom_kills_before, oom_kills_after: how many processes of the group the kernel had killed for want of memory when
            it was started, and when it had ended; None where the kernel does not say.
        log: the last lines that it wrote.
    """
    if returncode == -signal.SIGKILL:
        known = oom_kills_before is not None and oom_kills_after is not None
        return ProcessEnding(returncode, known and oom_kills_after > oom_kills_before)  # type: ignore[operator]
    ended_badly = returncode > 0 or returncode == -signal.SIGABRT
    return ProcessEnding(returncode, ended_badly and any(word in line for line in log[-5:] for word in _OUT_OF_MEMORY))
