"""What is kept of jobs: the shapes in which the store takes and gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from comfy_cpu_worker.outcome import FinalState

__all__ = ["FINAL_STATES", "JobRecord", "JobState", "NewJob", "Recovered", "Started"]

#: RunPod's names for where a job stands.
JobState = Literal["IN_QUEUE", "IN_PROGRESS"] | FinalState

FINAL_STATES: frozenset[FinalState] = frozenset(get_args(FinalState))


@dataclass(frozen=True)
class JobRecord:
    """What is kept of a job.

    Attributes:
        attempts: how often it was started.
        cut_off: whether the worker died while it ran, and it was queued again.
        queued_at, expires_at, finished_at: seconds since 1970, as this machine's clock has them.
        delay_ms, execution_ms: measured while it waited and ran; None before its end.
        has_secrets: whether secrets belong to it, which are never in the database.
        error: one line, or None.
        output: the JSON text of its output, where it was asked for and there is one.
    """

    id: str
    state: JobState
    attempts: int
    cut_off: bool
    queued_at: float
    expires_at: float
    finished_at: float | None
    delay_ms: int | None
    execution_ms: int | None
    has_secrets: bool
    error: str | None
    output: bytes | None = field(default=None, repr=False)

    @property
    def ended(self) -> bool:
        """Whether it is in one of the final states."""
        return self.state in FINAL_STATES


@dataclass(frozen=True)
class NewJob:
    """A job that is to be queued.

    Attributes:
        document: the JSON text of the job, without secrets.
        has_secrets: whether any were taken out.
        ttl_s: seconds that it may live, waiting and running.
        keep_s: seconds that its result is kept.
        idempotency_key: two submissions with the same key are one job.
        digest: tells whether two submissions with the same key say the same.
    """

    id: str
    document: bytes = field(repr=False)
    has_secrets: bool
    ttl_s: float
    keep_s: float
    idempotency_key: str | None
    digest: str


@dataclass(frozen=True)
class Started:
    """A job that was taken from the queue."""

    record: JobRecord
    document: bytes = field(repr=False)


@dataclass(frozen=True)
class Recovered:
    """What became of the jobs that the worker left when it ended.

    Attributes:
        waiting: all that wait now: id → when they were queued.
        cut_off: those among them that ran when the worker died.
        failed: those that cannot be run again: id → why.
    """

    waiting: Mapping[str, float]
    cut_off: Sequence[str]
    failed: Mapping[str, str]
