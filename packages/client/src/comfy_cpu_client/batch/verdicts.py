"""What the end of a job means for its input and for the target that ran it. Pure.

- A block, a bad input, a workflow that does not validate and a node that fails would come out the same again: they are
  the input's result.
- A target that cannot be reached or that answers nonsense, a worker that crashed or ran out of memory or disk, a job past
  its deadline: the input is tried again, and the target gets less to do.
- A target that says that it is too busy is left alone for a while; that is no failure of anybody.
- A target that refuses everything (a wrong key, a missing model) gets nothing any more.
- Where it is not known whether a job was accepted, it is asked for again under the same key if the target knows keys.
  If not, the input's result is ``ambiguous``: a second job could be one too many.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from comfy_cpu_core.errors import (
    ComfyCpuError,
    ContentBlocked,
    DeadlineExceeded,
    InputError,
    Interrupted,
    ModelError,
    NodeError,
    TargetError,
    UsageError,
    WorkflowError,
    WorkflowInvalid,
)
from comfy_cpu_core.results import Result, Status

__all__ = ["Stage", "Verdict", "judge_error", "judge_result"]

#: How far a job was: nothing was sent; it was, and the answer was awaited; the target has it.
Stage = Literal["prepared", "submitted", "accepted"]

#: Codes of failures that are the machine's and not the input's.
_MACHINE = frozenset({"worker_crashed", "stuck", "memory", "disk"})

#: HTTP statuses that hold for every request: a wrong key, the wrong address.
_NEVER = frozenset({401, 403, 404, 405})
_BUSY = frozenset({429, 503})


@dataclass(frozen=True)
class Verdict:
    """What the end of a job means.

    Attributes:
        status: as a `Result` has it.
        reason: a stable word for what went wrong; empty if the job completed.
        message, remedy: one line each, for people.
        again: whether the input may be tried again: ``fresh`` as a new job, ``same`` under the same key and at the same
            target, because the first job may be there.
        target: what it says of the target: it is ``good``; it is ``bad`` and should get less; ``busy``: nothing for a
            while; ``gone``: nothing any more; ``unsaid``.
        counts: whether it uses up one of the input's tries.
        retry_after_s: how long a busy target wants to be left alone, in seconds, if it said so.
        error: what made the target ``gone``.
    """

    status: Status
    reason: str = ""
    message: str = ""
    remedy: str | None = None
    again: Literal["no", "fresh", "same"] = "no"
    target: Literal["good", "bad", "busy", "gone", "unsaid"] = "good"
    counts: bool = True
    retry_after_s: float | None = None
    error: ComfyCpuError | None = field(default=None, repr=False, compare=False)


def judge_result(result: Result, *, has_keys: bool = False, resubmit: bool = False) -> Verdict:
    """What a result means; the arguments are those of `judge_error`."""
    if result.ok:
        return Verdict("completed")
    for failure in result.errors:
        if failure.code == "ambiguous":
            return _judge_ambiguous(failure.message, has_keys=has_keys, resubmit=resubmit)
    first = result.errors[0] if result.errors else None
    reason = first.code if first is not None and first.code else result.status
    message = first.message if first is not None else f"the job ended as {result.status} and gave no reason"
    if first is not None and first.node_id:
        message = f"node {first.node_id} ({first.class_type}): {message}"
    remedy = first.remedy if first is not None else None
    if result.status == "timed_out":
        return Verdict("timed_out", "timed_out", message, remedy, "fresh", "bad")
    if result.status == "blocked":
        return Verdict("blocked", "blocked", message, remedy)
    if result.status == "cancelled":
        return Verdict("cancelled", "cancelled", message, remedy, target="unsaid")
    if reason in _MACHINE:
        return Verdict("failed", reason, message, remedy, "fresh", "bad")
    return Verdict("failed", reason, message, remedy)


def judge_error(error: Exception, *, has_keys: bool, stage: Stage = "submitted", resubmit: bool = False) -> Verdict:
    """What an exception means that came out of a job.

    Args:
        has_keys: whether the target takes idempotency keys.
        stage: how far the job was.
        resubmit: try again where nobody knows whether the job was accepted, even without a key.
    """
    message, remedy = str(error) or type(error).__name__, getattr(error, "remedy", None)
    match error:
        case ContentBlocked():
            return Verdict("blocked", "blocked", message, remedy)
        case WorkflowInvalid() | WorkflowError():
            return Verdict("failed", "invalid", message, remedy)
        case InputError():
            return Verdict("failed", "input", message, remedy, target="unsaid")
        case NodeError():
            return Verdict("failed", "node_failed", message, remedy)
        case Interrupted():
            return Verdict("cancelled", "cancelled", message, remedy, target="unsaid")
        case ModelError() | UsageError():
            reason = "model" if isinstance(error, ModelError) else "usage"
            return Verdict("failed", reason, message, remedy, "fresh", "gone", counts=False, error=error)
        case DeadlineExceeded():
            return Verdict("timed_out", "timed_out", message, remedy, "fresh", "bad")
        case TargetError() if getattr(error, "ambiguous", False):
            return _judge_ambiguous(message, has_keys=has_keys, resubmit=resubmit)
        case TargetError() if stage == "submitted" and getattr(error, "sent", False):
            return _judge_ambiguous(message, has_keys=has_keys, resubmit=resubmit)
        case TargetError() if stage == "accepted":
            return _judge_lost(error, message, has_keys=has_keys)
        case TargetError():
            return _judge_refusal(error, message)
    return Verdict("failed", "internal", f"{type(error).__name__}: {message}", remedy, target="bad")


def _judge_refusal(error: TargetError, message: str) -> Verdict:
    """A job that the target certainly has not."""
    remedy = error.remedy
    status = getattr(error, "status", None)
    if status in _NEVER:
        return Verdict("failed", "refused", message, remedy, "fresh", "gone", counts=False, error=error)
    if status in _BUSY:
        pause = getattr(error, "retry_after_s", None)
        return Verdict("failed", "busy", message, remedy, "fresh", "busy", counts=False, retry_after_s=pause)
    if isinstance(status, int) and 400 <= status < 500:
        return Verdict("failed", "refused", message, remedy)
    return Verdict("failed", "unreachable", message, remedy, "fresh", "bad")


def _judge_ambiguous(message: str, *, has_keys: bool, resubmit: bool) -> Verdict:
    remedy = "see at the target whether the job ran; --resubmit-ambiguous submits such a job again"
    again: Literal["no", "fresh", "same"] = "same" if has_keys else "fresh" if resubmit else "no"
    return Verdict("failed", "ambiguous", f"nobody knows whether the job was accepted: {message}", remedy, again, "bad")


def _judge_lost(error: TargetError, message: str, *, has_keys: bool) -> Verdict:
    """A job that the target had, and whose result did not come: the input still needs one."""
    status = getattr(error, "status", None)
    if status in _NEVER - {404}:
        return Verdict("failed", "refused", message, error.remedy, "same", "gone", counts=False, error=error)
    return Verdict("failed", "lost", message, error.remedy, "same" if has_keys else "fresh", "bad")
