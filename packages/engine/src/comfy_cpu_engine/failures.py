"""What a node's exception means for its run.

- `ContentBlocked`, and a ``ValueError`` that begins with "Content blocked by " (how the gates of existing node packs
  say it): ``blocked``.
- `Interrupted`, ComfyUI's ``InterruptProcessingException``, or anything after the user cancelled: ``cancelled``.
- `DeadlineExceeded` once the deadline has passed: ``timed_out``.
- Everything else: ``failed``; the failure's code says of what kind: ``input``, ``model``, ``memory``, ``node_failed``.
"""

from __future__ import annotations

import traceback

from comfy_cpu_core.errors import (
    ComfyCpuError,
    ContentBlocked,
    DeadlineExceeded,
    InputError,
    Interrupted,
    ModelError,
)
from comfy_cpu_core.results import NodeFailure, Status
from comfy_cpu_engine.limits import Limits

__all__ = ["explain"]

_BLOCK_PREFIX = "Content blocked by "
_INTERRUPT = "InterruptProcessingException"


def explain(error: BaseException, node_id: str, class_type: str, limits: Limits) -> tuple[Status, NodeFailure]:
    """The run's status, and the failure to report; its message is one line, its details are the traceback."""
    status, code = _judge(error, limits)
    remedy = error.remedy if isinstance(error, ComfyCpuError) else None
    if code == "memory":
        remedy = "use smaller pictures or fewer at once, or a machine with more memory"
    # A block is not a fault, and its message is what front ends show.
    details = "" if status == "blocked" else "".join(traceback.format_exception(error))
    return status, NodeFailure(code, _message(error, code), node_id, class_type, details, remedy)


def _judge(error: BaseException, limits: Limits) -> tuple[Status, str]:
    if isinstance(error, ContentBlocked) or (isinstance(error, ValueError) and str(error).startswith(_BLOCK_PREFIX)):
        return "blocked", "blocked"
    interrupt = any(base.__name__ == _INTERRUPT for base in type(error).__mro__)
    if isinstance(error, Interrupted) or interrupt or limits.cancelled:
        return "cancelled", "cancelled"
    if isinstance(error, DeadlineExceeded) and limits.expired:
        return "timed_out", "deadline"
    for kind, code in ((InputError, "input"), (ModelError, "model"), (MemoryError, "memory")):
        if isinstance(error, kind):
            return "failed", code
    return "failed", "node_failed"


def _message(error: BaseException, code: str) -> str:
    text = " ".join(str(error).split())
    name = type(error).__name__
    match error:
        case _ if code == "cancelled":
            return "the run was cancelled"
        case SystemExit():
            return f"the node tried to end the program (exit code {text or 0})"
        case MemoryError():
            return f"not enough memory{f': {text}' if text else ''}"
        case ComfyCpuError() if text:
            return text
        case _ if code == "blocked":
            return text
        case _:
            return f"{name}: {text}" if text else name
