from __future__ import annotations

import pytest

from comfy_cpu_core.errors import (
    BuildError,
    ContentBlocked,
    DeadlineExceeded,
    HubError,
    InputError,
    Interrupted,
    ModelMissing,
    TargetError,
    UsageError,
    WorkflowError,
    WorkflowInvalid,
)
from comfy_cpu_worker.failures import failed, failure_result


@pytest.mark.parametrize(
    ("error", "status", "code", "message"),
    [
        (ContentBlocked("no"), "blocked", "blocked", "no"),
        (Interrupted("stop"), "cancelled", "cancelled", "stop"),
        (DeadlineExceeded("late"), "timed_out", "deadline", "late"),
        (WorkflowInvalid("no outputs"), "failed", "invalid", "no outputs"),
        (WorkflowError("cut off"), "failed", "input", "cut off"),
        (InputError("bad file"), "failed", "input", "bad file"),
        (ModelMissing("gone"), "failed", "model", "gone"),
        (HubError("down"), "failed", "model", "down"),
        (UsageError("timeout_s is 0"), "failed", "usage", "timeout_s is 0"),
        (TargetError("nobody there"), "failed", "target", "nobody there"),
        (BuildError("odd"), "failed", "failed", "odd"),
        (MemoryError(), "failed", "memory", "not enough memory"),
        (MemoryError("4 GiB"), "failed", "memory", "not enough memory: 4 GiB"),
        (OSError(28, "No space", "/x"), "failed", "disk", "no space left to write to: [Errno 28] No space: '/x'"),
        (OSError(5, "I/O error"), "failed", "internal", "OSError: [Errno 5] I/O error"),
        (KeyError("x\ny"), "failed", "internal", "KeyError: 'x\\ny'"),
        (RuntimeError("two\nlines"), "failed", "internal", "RuntimeError: two lines"),
        (KeyboardInterrupt(), "failed", "internal", "KeyboardInterrupt"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_an_exception_means(error: BaseException, status: str, code: str, message: str) -> None:
    result = failure_result(error)
    assert result.status == status
    (failure,) = result.errors
    assert (failure.code, failure.message, failure.node_id) == (code, message, None)
    assert bool(failure.details) is (code == "internal")


def test_remedies_and_nodes_are_kept() -> None:
    (failure,) = failure_result(WorkflowError("no input", remedy="name another", node_id="4")).errors
    assert (failure.node_id, failure.remedy) == ("4", "name another")


def test_every_error_of_every_node_is_a_failure() -> None:
    problem = {"message": "Value not in list", "details": "provider: 'GPU' not in ['CPU']"}
    error = WorkflowInvalid(
        "two nodes are wrong",
        node_errors={
            "4": {"class_type": "Cut", "errors": [problem, {"message": "Required input is missing", "details": ""}]},
            "9": {"class_type": "Save", "errors": [{"message": "one\nline"}]},
        },
        remedy="look at 4",
    )
    result = failure_result(error)
    assert result.status == "failed"
    assert [(f.code, f.node_id, f.class_type, f.message, f.remedy) for f in result.errors] == [
        ("invalid", "4", "Cut", "Value not in list: provider: 'GPU' not in ['CPU']", "look at 4"),
        ("invalid", "4", "Cut", "Required input is missing", None),
        ("invalid", "9", "Save", "one line", None),
    ]


def test_a_traceback_is_of_the_exception() -> None:
    try:
        raise ZeroDivisionError("oops")
    except ZeroDivisionError as error:
        (failure,) = failure_result(error).errors
    assert failure.details.endswith("ZeroDivisionError: oops\n")


def test_a_failure_of_no_node() -> None:
    result = failed("worker_hung", "it hangs", remedy="try again", execution_seconds=3.0)
    assert (result.status, result.execution_seconds) == ("failed", 3.0)
    assert result.errors[0].remedy == "try again"
