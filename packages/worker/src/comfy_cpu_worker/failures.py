"""From an exception to the result that says what it means for a job: codes, nodes, remedies. Nothing escapes."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from comfy_cpu_core.errors import (
    ComfyCpuError,
    ContentBlocked,
    DeadlineExceeded,
    InputError,
    Interrupted,
    ModelError,
    TargetError,
    UsageError,
    WorkflowError,
    WorkflowInvalid,
)
from comfy_cpu_core.files import is_no_space
from comfy_cpu_core.results import NodeFailure, Result, Status

__all__ = ["failed", "failure_result"]

_KINDS: tuple[tuple[type[ComfyCpuError], Status, str], ...] = (
    (ContentBlocked, "blocked", "blocked"),
    (Interrupted, "cancelled", "cancelled"),
    (DeadlineExceeded, "timed_out", "deadline"),
    (WorkflowInvalid, "failed", "invalid"),
    (InputError, "failed", "input"),
    (ModelError, "failed", "model"),
    (UsageError, "failed", "usage"),
    (TargetError, "failed", "target"),
)


def failed(code: str, message: str, *, remedy: str | None = None, status: Status = "failed", **more: Any) -> Result:
    """A result with one failure, which belongs to no node.

    Args:
        code: see `NodeFailure`.
        more: other attributes of the result.
    """
    return Result(status, errors=(NodeFailure(code, message, remedy=remedy),), **more)


def failure_result(error: BaseException) -> Result:
    """What an exception means that a run raised, or that kept it from beginning.

    A workflow that does not validate has one failure for each error of each node. Only an exception that nobody raised
    on purpose has a traceback.
    """
    if isinstance(error, WorkflowInvalid) and error.node_errors:
        return Result("failed", errors=tuple(_node_failures(error)))
    text = " ".join(str(error).split())
    for kind, status, code in _KINDS:
        if isinstance(error, kind):
            node_id = error.node_id if isinstance(error, WorkflowError) else None
            return Result(status, errors=(NodeFailure(code, text, node_id, remedy=error.remedy),))
    if isinstance(error, MemoryError):
        return failed(
            "memory",
            f"not enough memory{f': {text}' if text else ''}",
            remedy="use smaller pictures or fewer at once, or a machine with more memory",
        )
    if isinstance(error, OSError) and is_no_space(error):
        return failed(
            "disk",
            f"no space left to write to: {text}",
            remedy="free some space where runs keep their files, or make the pictures smaller or fewer",
        )
    if isinstance(error, ComfyCpuError):
        return failed("failed", text, remedy=error.remedy)
    return Result(
        "failed",
        errors=(
            NodeFailure(
                "internal",
                f"{type(error).__name__}: {text}" if text else type(error).__name__,
                details="".join(traceback.format_exception(error)),
                remedy="this is a fault of comfy-cpu or of a plugin: report it with the details",
            ),
        ),
    )


def _node_failures(error: WorkflowInvalid) -> Iterator[NodeFailure]:
    remedy = error.remedy  # belongs to the first
    for node_id, entry in error.node_errors.items():
        for problem in entry.get("errors", ()):
            yield NodeFailure("invalid", _says(problem), node_id, entry.get("class_type"), remedy=remedy)
            remedy = None


def _says(problem: Mapping[str, Any]) -> str:
    parts = (str(problem.get(key) or "") for key in ("message", "details"))
    return " ".join(": ".join(filter(None, parts)).split())
