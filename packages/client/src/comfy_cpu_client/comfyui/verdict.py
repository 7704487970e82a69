"""How a prompt ended: from ComfyUI's history to a status and failures as every other target has them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from comfy_cpu_client.comfyui.messages import Message
from comfy_cpu_client.comfyui.protocol import HistoryEntry
from comfy_cpu_core.files import is_no_space
from comfy_cpu_core.results import NodeFailure, Status

__all__ = ["failure_of", "judge"]

_BLOCK_PREFIX = "Content blocked by "
# ComfyUI's way for a node to stop what follows, without an end of the run; its message has this before it.
_EXECUTION_BLOCKED, _EXECUTION_BLOCKED_PREFIX = "ExecutionBlocked", "Execution Blocked: "
_OUR_ERRORS = "comfy_cpu_core.errors."
_NO_MEMORY = ("can't allocate memory", "Failed to allocate memory", "bad_alloc", "bad allocation")
_ERRNO = re.compile(r"\[Errno (\d+)\]")

# The class of an exception → what the engine calls such a failure.
_CODES = {
    "InputError": "input",
    "WorkflowError": "input",
    "WorkflowInvalid": "input",
    "ModelError": "model",
    "ModelMissing": "model",
    "ModelCorrupt": "model",
    "HubError": "model",
}


def judge(entry: HistoryEntry, heard: Sequence[Message] = ()) -> tuple[Status, tuple[NodeFailure, ...]]:
    """The status and the failures of a prompt that has ended.

    The history decides. Of what the websocket said, only an ``ExecutionBlocked`` counts: it is an error that ComfyUI
    does not write down. Whoever takes a run for completed must be able to rely on it, so anything unclear is a failure.

    Args:
        heard: messages ``execution_error`` from the websocket.
    """
    if entry.message("execution_interrupted") is not None:
        return "cancelled", (NodeFailure("cancelled", "the run was interrupted on the server"),)
    blocks = [message for message in heard if message.data.get("exception_type") == _EXECUTION_BLOCKED]
    if errors := [*(m for m in entry.messages if m.type == "execution_error"), *blocks]:
        failures = tuple(failure_of(message) for message in errors)
        return "blocked" if failures[0].code == "blocked" else "failed", failures
    if entry.succeeded:
        return "completed", ()
    said = "its history does not say how" if entry.succeeded is None else "it does not say why"
    return "failed", (NodeFailure("failed", f"ComfyUI ended the run without success, and {said}"),)


def failure_of(message: Message) -> NodeFailure:
    """What a message ``execution_error`` says, in the words of the engine."""
    data = message.data
    kind = str(data.get("exception_type") or "Exception")
    text = " ".join(str(data.get("exception_message") or "").removeprefix(_EXECUTION_BLOCKED_PREFIX).split())
    name = kind.rpartition(".")[2]
    node_id, class_type = _text(data.get("node_id")), _text(data.get("node_type"))
    ours = kind.startswith(_OUR_ERRORS)
    if (ours and name == "ContentBlocked") or (
        text.startswith(_BLOCK_PREFIX) and kind in {"ValueError", _EXECUTION_BLOCKED}
    ):
        return NodeFailure("blocked", text, node_id, class_type)
    details = _details(data.get("traceback"), kind, text)
    if _is_no_memory(name, text):
        remedy = "use smaller pictures or fewer at once, or a machine with more memory"
        says = f"not enough memory{f': {text}' if text else ''}"
        return NodeFailure("memory", says, node_id, class_type, details, remedy)
    if kind == "OSError" and (number := _ERRNO.match(text)) and is_no_space(OSError(int(number[1]), "")):
        remedy = "free some space on the disk of the ComfyUI"
        return NodeFailure("disk", f"no space left to write to: {text}", node_id, class_type, details, remedy)
    code = _CODES.get(name, "node_failed") if ours else "node_failed"
    says = text if (ours or kind == _EXECUTION_BLOCKED) and text else f"{name}: {text}" if text else name
    return NodeFailure(code, says, node_id, class_type, details)


def _is_no_memory(name: str, text: str) -> bool:
    native = name == "RuntimeError" and any(words in text for words in _NO_MEMORY)
    return native or name in {"MemoryError", "OutOfMemoryError"}


def _details(lines: Any, kind: str, text: str) -> str:
    if not isinstance(lines, list) or not lines:
        return ""
    trace = "".join(str(line) for line in lines).rstrip("\n")
    return f"Traceback (most recent call last):\n{trace}\n{kind}: {text}\n"


def _text(value: Any) -> str | None:
    return str(value) if value is not None else None
