"""What a node's exception means for its run.

- `ContentBlocked`, and a ``ValueError`` that begins with "Content blocked by " (how the gates of existing node packs
  say it): ``blocked``.
- `Interrupted`, ComfyUI's ``InterruptProcessingException``, or anything after the user cancelled: ``cancelled``.
- `DeadlineExceeded` once the deadline has passed: ``timed_out``.
- Everything else: ``failed``; the failure's code says of what kind: ``input``, ``model``, ``memory``,
  ``disk``, ``node_failed``.
"""

from __future__ import annotations

import errno
import traceback

from comfy_cpu_core.errors import (
    ComfyCpuError,
    ContentBlocked,
    DeadlineExceeded,
    InputError,
    Interrupted,
    ModelError,
)
from comfy_cpu_core.files import is_no_space
from comfy_cpu_core.results import NodeFailure, Status
from comfy_cpu_engine.limits import Limits

__all__ = ["explain"]

_BLOCK_PREFIX = "Content blocked by "
_INTERRUPT = "InterruptProcessingException"
# How torch, onnxruntime and C++ say that there is not enough memory, in a RuntimeError.
_ALLOCATION = ("can't allocate memory", "Failed to allocate memory", "bad_alloc", "bad allocation")
_REMEDIES = {
    "memory": "use smaller pictures or fewer at once, or a machine with more memory",
    "disk": "free some space where the run keeps its files, or make its pictures smaller or fewer",
}


def explain(error: BaseException, node_id: str, class_type: str, limits: Limits) -> tuple[Status, NodeFailure]:
    """The run's status, and the failure to report; its message is one line, its details are the traceback."""
    status, code = _judge(error, limits)
    remedy = error.remedy if isinstance(error, ComfyCpuError) else _REMEDIES.get(code)
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
    for kind, code in ((InputError, "input"), (ModelError, "model")):
        if isinstance(error, kind):
            return "failed", code
    if _is_no_memory(error):
        return "failed", "memory"
    if isinstance(error, OSError) and is_no_space(error):
        return "failed", "disk"
    return "failed", "node_failed"


def _is_no_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    native = isinstance(error, RuntimeError) and any(words in str(error) for words in _ALLOCATION)
    return native or isinstance(error, MemoryError)


def _message(error: BaseException, code: str) -> str:
    text = " ".join(str(error).split())
    name = type(error).__name__
    match error:
        case _ if code == "cancelled":
            return "the run was cancelled"
        case SystemExit():
            return f"the node tried to end the program (exit code {text or 0})"
        case _ if code == "memory":
            return f"not enough memory{f': {text}' if text else ''}"
        case OSError() if code == "disk":
            return f"no space left to write to: {text}"
        case ComfyCpuError() if text:
            return text
        case _ if code == "blocked":
            return text
        case _:
            return f"{name}: {text}" if text else name
