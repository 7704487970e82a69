from __future__ import annotations

from typing import Any

import pytest

from comfy_cpu_client.batch.verdicts import judge_error, judge_result
from comfy_cpu_client.errors import SubmissionUnknown
from comfy_cpu_core.errors import (
    ContentBlocked,
    DeadlineExceeded,
    InputError,
    ModelMissing,
    NodeError,
    TargetError,
    UsageError,
    WorkflowInvalid,
)
from comfy_cpu_core.results import NodeFailure, Result


class Refused(TargetError):
    def __init__(self, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(f"it answered {status}")
        self.status = status
        self.retry_after_s = retry_after_s


class Unreachable(TargetError):
    def __init__(self, sent: bool) -> None:
        super().__init__("the connection broke")
        self.sent = sent


@pytest.mark.parametrize(
    ("result", "status", "reason", "again", "target"),
    [
        (Result("completed"), "completed", "", "no", "good"),
        (Result("blocked", errors=[NodeFailure("blocked", "no")]), "blocked", "blocked", "no", "good"),
        (Result("timed_out", errors=[NodeFailure("deadline", "late")]), "timed_out", "timed_out", "fresh", "bad"),
        (Result("cancelled"), "cancelled", "cancelled", "no", "unsaid"),
        (Result("failed", errors=[NodeFailure("node_failed", "x")]), "failed", "node_failed", "no", "good"),
        (Result("failed", errors=[NodeFailure("input", "x")]), "failed", "input", "no", "good"),
        (Result("failed", errors=[NodeFailure("invalid", "x")]), "failed", "invalid", "no", "good"),
        (Result("failed", errors=[NodeFailure("worker_crashed", "x")]), "failed", "worker_crashed", "fresh", "bad"),
        (Result("failed", errors=[NodeFailure("memory", "x")]), "failed", "memory", "fresh", "bad"),
        (Result("failed"), "failed", "failed", "no", "good"),
    ],
)
def test_results(result: Result, status: str, reason: str, again: str, target: str) -> None:
    verdict = judge_result(result)
    assert (verdict.status, verdict.reason, verdict.again, verdict.target) == (status, reason, again, target)


@pytest.mark.parametrize(
    ("error", "status", "reason", "again", "target", "counts"),
    [
        (ContentBlocked("no"), "blocked", "blocked", "no", "good", True),
        (InputError("gone"), "failed", "input", "no", "unsaid", True),
        (WorkflowInvalid("bad"), "failed", "invalid", "no", "good", True),
        (NodeError("bad"), "failed", "node_failed", "no", "good", True),
        (ModelMissing("none"), "failed", "model", "fresh", "gone", False),
        (UsageError("closed"), "failed", "usage", "fresh", "gone", False),
        (DeadlineExceeded("late"), "timed_out", "timed_out", "fresh", "bad", True),
        (TargetError("nobody there"), "failed", "unreachable", "fresh", "bad", True),
        (Refused(401), "failed", "refused", "fresh", "gone", False),
        (Refused(404), "failed", "refused", "fresh", "gone", False),
        (Refused(429, 7.0), "failed", "busy", "fresh", "busy", False),
        (Refused(413), "failed", "refused", "no", "good", True),
        (Refused(500), "failed", "unreachable", "fresh", "bad", True),
        (Unreachable(sent=False), "failed", "unreachable", "fresh", "bad", True),
        (Unreachable(sent=True), "failed", "ambiguous", "no", "bad", True),
        (ZeroDivisionError("a bug"), "failed", "internal", "no", "bad", True),
    ],
)
def test_errors(error: Exception, status: str, reason: str, again: str, target: str, counts: bool) -> None:
    verdict = judge_error(error, has_keys=False)
    assert (verdict.status, verdict.reason, verdict.again, verdict.target, verdict.counts) == (
        status,
        reason,
        again,
        target,
        counts,
    )


def test_a_busy_target_says_for_how_long() -> None:
    assert judge_error(Refused(503, 7.0), has_keys=False).retry_after_s == 7.0


def test_an_answer_that_was_lost_is_asked_for_again_where_keys_tell() -> None:
    assert judge_error(Unreachable(sent=True), has_keys=True).again == "same"
    assert judge_error(Unreachable(sent=True), has_keys=False, resubmit=True).again == "fresh"


def test_before_anything_was_sent_nothing_is_ambiguous() -> None:
    verdict = judge_error(Unreachable(sent=True), has_keys=False, stage="prepared")
    assert (verdict.reason, verdict.again) == ("unreachable", "fresh")


@pytest.mark.parametrize("stage", ["submitted", "accepted"])
def test_what_the_client_calls_ambiguous_is(stage: Any) -> None:
    error = SubmissionUnknown("the answer was lost")
    assert judge_error(error, has_keys=False, stage=stage).again == "no"
    assert judge_error(error, has_keys=True, stage=stage).again == "same"
    late = Result("timed_out", errors=[NodeFailure("deadline", "late"), NodeFailure("ambiguous", "it may run")])
    assert judge_result(late).reason == "ambiguous"


@pytest.mark.parametrize("error", [Unreachable(sent=False), Refused(404), Refused(500), TargetError("nonsense")])
def test_a_job_whose_result_is_lost_is_run_again(error: TargetError) -> None:
    keyed, plain = (judge_error(error, has_keys=keys, stage="accepted") for keys in (True, False))
    assert (keyed.reason, keyed.again) == ("lost", "same")
    assert (plain.reason, plain.again) == ("lost", "fresh")


def test_the_node_that_failed_is_named() -> None:
    failure = NodeFailure("node_failed", "it broke", "4", "Cut", remedy="mend it")
    verdict = judge_result(Result("failed", errors=[failure]))
    assert verdict.message == "node 4 (Cut): it broke"
    assert verdict.remedy == "mend it"
