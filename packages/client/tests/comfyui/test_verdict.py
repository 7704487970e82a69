from __future__ import annotations

from typing import Any

import pytest

from comfy_cpu_client.comfyui.messages import Message
from comfy_cpu_client.comfyui.protocol import HistoryEntry
from comfy_cpu_client.comfyui.verdict import failure_of, judge


def error(kind: str, message: str, **more: Any) -> Message:
    data = {"node_id": "4", "node_type": "Gate", "exception_type": kind, "exception_message": f"{message}\n", **more}
    return Message("execution_error", data)


def test_success() -> None:
    assert judge(HistoryEntry(True)) == ("completed", ())


def test_an_error_is_a_failure_whatever_else_the_history_says() -> None:
    status, (failure,) = judge(HistoryEntry(True, [error("RuntimeError", "boom")], {"9": {"images": []}}))
    assert status == "failed"
    assert (failure.code, failure.message, failure.node_id, failure.class_type) == (
        "node_failed", "RuntimeError: boom", "4", "Gate",
    )  # fmt: skip


@pytest.mark.parametrize("succeeded", [None, False])
def test_what_is_unclear_is_a_failure(succeeded: bool | None) -> None:
    status, (failure,) = judge(HistoryEntry(succeeded))
    assert (status, failure.code) == ("failed", "failed")


def test_an_interrupt() -> None:
    status, (failure,) = judge(HistoryEntry(False, [Message("execution_interrupted", {"node_id": "4"})]))
    assert (status, failure.code) == ("cancelled", "cancelled")


def test_a_blocker_that_only_the_websocket_told_of_is_an_error() -> None:
    heard = [error("ExecutionBlocked", "Execution Blocked: not today")]
    status, (failure,) = judge(HistoryEntry(True), heard)
    assert (status, failure.code, failure.message) == ("failed", "node_failed", "not today")
    status, (failure,) = judge(
        HistoryEntry(True), [error("ExecutionBlocked", "Execution Blocked: Content blocked by x")]
    )
    assert (status, failure.message) == ("blocked", "Content blocked by x")
    assert judge(HistoryEntry(True), [error("RuntimeError", "of another time")]) == ("completed", ())


@pytest.mark.parametrize(
    ("kind", "message", "code", "says"),
    [
        ("ValueError", "Content blocked by safety gate: NSFW", "blocked", "Content blocked by safety gate: NSFW"),
        ("comfy_cpu_core.errors.ContentBlocked", "no", "blocked", "no"),
        ("RuntimeError", "Content blocked by me", "node_failed", "RuntimeError: Content blocked by me"),
        ("ValueError", "It was Content blocked by me", "node_failed", "ValueError: It was Content blocked by me"),
        ("pack.ContentBlocked", "no", "node_failed", "ContentBlocked: no"),
        ("comfy_cpu_core.errors.ModelMissing", "x is not there", "model", "x is not there"),
        ("comfy_cpu_core.errors.WorkflowError", "bad", "input", "bad"),
        ("comfy_cpu_core.errors.UsageError", "odd", "node_failed", "odd"),
        ("pack.ModelMissing", "x", "node_failed", "ModelMissing: x"),
        ("MemoryError", "", "memory", "not enough memory"),
        ("torch.OutOfMemoryError", "3 GB", "memory", "not enough memory: 3 GB"),
        (
            "RuntimeError",
            "DefaultCPUAllocator: can't allocate memory",
            "memory",
            "not enough memory: DefaultCPUAllocator: can't allocate memory",
        ),
        (
            "OSError",
            "[Errno 28] No space left on device: 'x'",
            "disk",
            "no space left to write to: [Errno 28] No space left on device: 'x'",
        ),
        ("OSError", "[Errno 5] Input/output error", "node_failed", "OSError: [Errno 5] Input/output error"),
        ("KeyError", "two\n lines ", "node_failed", "KeyError: two lines"),
        ("KeyError", "", "node_failed", "KeyError"),
    ],
)
def test_failures_in_the_words_of_the_engine(kind: str, message: str, code: str, says: str) -> None:
    failure = failure_of(error(kind, message))
    assert (failure.code, failure.message) == (code, says)
    assert (failure.remedy is not None) == (code in {"memory", "disk"})


def test_the_traceback_is_kept_but_a_block_has_none() -> None:
    lines = ['  File "a.py", line 1, in f\n', "    boom()\n"]
    assert failure_of(error("KeyError", "x", traceback=lines)).details == (
        'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    boom()\nKeyError: x\n'
    )
    assert failure_of(error("KeyError", "x", traceback="?")).details == ""
    assert failure_of(error("ValueError", "Content blocked by x", traceback=lines)).details == ""


def test_an_error_without_anything_in_it() -> None:
    failure = failure_of(Message("execution_error", {}))
    assert (failure.code, failure.message, failure.node_id) == ("node_failed", "Exception", None)
