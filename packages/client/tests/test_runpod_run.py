"""The state machine of a job on a queue, in virtual time, against a queue that does what production does."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from fake_runpod import FakeQueue, Script
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_cpu_client.errors import JobLost, SubmissionUnknown, TargetBusy, TargetRefused, TargetUnreachable
from comfy_cpu_client.payload import Received
from comfy_cpu_client.runpod.address import Endpoint
from comfy_cpu_client.runpod.limits import RunLimits
from comfy_cpu_client.runpod.protocol import Answer, parse_job
from comfy_cpu_client.runpod.run import STOP_SECONDS, Ask, JobRun
from comfy_cpu_client.runpod.verdict import conclude, with_figures
from comfy_cpu_core.errors import TargetError
from comfy_cpu_core.results import Progress, Result

STEP = {
    "kind": "step", "node_id": "4", "class_type": "Cut", "step": 1, "steps": 2, "nodes_done": 0, "nodes": 1,
    "percent": 50.0, "message": "",
}  # fmt: skip


def unreachable(*, sent: bool) -> TargetError:
    return TargetUnreachable("nothing there", sent=sent)


def refused(status: int) -> TargetError:
    return TargetRefused(f"no ({status})", status=status)


def busy(status: int = 429, retry_after_s: float | None = None) -> TargetError:
    return TargetBusy(f"later ({status})", status=status, retry_after_s=retry_after_s)


@dataclass(frozen=True)
class Trouble:
    """What goes wrong with one request: `error` instead of the answer, which may have been carried out all the same."""

    error: Callable[[], TargetError] | None = None
    carried_out: bool = False
    seconds: float = 0.01


@dataclass
class World:
    """Endpoints, a clock, and what goes wrong."""

    keyed: bool = False
    endpoints: int = 1
    limits: RunLimits = field(default_factory=lambda: RunLimits(life_s=600.0))
    sync: bool = False
    stream: bool = False
    script: Script = field(default_factory=Script)
    trouble: dict[Ask, list[Trouble]] = field(default_factory=dict)
    cancel_at: float = math.inf
    now: float = 1000.0
    asked: list[tuple[float, Ask]] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)

    def __post_init__(self) -> None:
        kind: Any = "worker" if self.keyed else "runpod"
        names = [f"e{number}" for number in range(self.endpoints)]
        self.queues = {name: FakeQueue(name, keyed=self.keyed) for name in names}
        for queue in self.queues.values():
            queue.plan(*[self.script] * 20)
        self.start = self.now
        shifted = self.limits.deadline
        limits = replace(self.limits, deadline=self.now + shifted if shifted is not None else None)
        self.end = limits.deadline + STOP_SECONDS if limits.deadline is not None else math.inf
        self.run = JobRun(
            [Endpoint(kind, f"https://example.com/v2/{name}") for name in names],
            limits,
            now=self.now,
            sync=self.sync,
            stream=self.stream,
            jitter=lambda: 0.5,
        )

    @property
    def accepted(self) -> list[str]:
        return [job.id for queue in self.queues.values() for job in queue.jobs]

    def play(self) -> JobRun:
        """Do what the run asks for until it is over."""
        for _ in range(20_000):
            ask, wait_s = self.run.next(self.now)
            if self.run.over:
                return self.run
            if ask is not None:
                self.exchange(ask)
                continue
            assert wait_s > 0, "it neither sends nor waits"
            self.pass_by(wait_s)
        raise AssertionError("it does not end")

    def pass_by(self, seconds: float) -> None:
        """Let time pass, with somebody who waits for the run in another thread, and perhaps cancels it."""
        until = self.now + seconds
        while self.now < until:
            moments = [until, self.now + (self.run.idle_s(self.now) or math.inf), self.start + self.cancel_at]
            self.now = min(moment for moment in moments if moment > self.now)
            if self.now >= self.start + self.cancel_at:
                self.run.cancel(self.now)
            self.run.tick(self.now)

    def exchange(self, ask: Ask) -> None:
        self.asked.append((self.now - self.start, ask))
        queue = self.queues[self.run.endpoint.url.rpartition("/")[2]]
        planned = self.trouble.get(ask) or []
        trouble = planned.pop(0) if planned else Trouble()
        answered: tuple[int, dict[str, Any]] | None = None
        if trouble.error is None or trouble.carried_out:
            key = "key" if queue.keyed else None
            answered = queue.answer(ask, self.run.job_id, {}, self.now, key=key)
        self.pass_by(trouble.seconds)
        if trouble.error is not None:
            self.run.failed(ask, trouble.error(), self.now)
            return
        assert answered is not None
        status, document = answered
        if status != 200:
            self.run.failed(ask, refused(status), self.now)
            return
        job_id = None if ask in {"run", "runsync"} else self.run.job_id
        try:
            found = parse_job(Answer("it", json.dumps(document).encode()), job_id)
        except TargetError as error:
            self.run.failed(ask, error, self.now)
            return
        self.progress += self.run.told(ask, found, self.now)

    def result(self) -> Result:
        run = self.play()
        assert run.error is None, run.error
        found = conclude(run)
        return with_figures(found.complete() if isinstance(found, Received) else found, run)

    def error(self) -> TargetError:
        run = self.play()
        assert run.error is not None
        return run.error


# --- whatever happens ---------------------------------------------------------------------------------------------------

TROUBLES = st.sampled_from(
    [
        Trouble(),
        Trouble(seconds=25.0),
        Trouble(lambda: unreachable(sent=False)),
        Trouble(lambda: unreachable(sent=True)),
        Trouble(lambda: unreachable(sent=True), carried_out=True),
        Trouble(lambda: unreachable(sent=True), carried_out=True, seconds=60.0),
        Trouble(lambda: TargetError("garbage"), carried_out=True),
        Trouble(lambda: TargetError("garbage")),
        Trouble(busy),
        Trouble(lambda: busy(retry_after_s=7.0)),
        Trouble(lambda: busy(503)),
        Trouble(lambda: refused(500)),
        Trouble(lambda: refused(502), carried_out=True),
        Trouble(lambda: refused(504), carried_out=True, seconds=30.0),
        Trouble(lambda: refused(401)),
        Trouble(lambda: refused(404)),
    ]
)
SECONDS = st.sampled_from([0.0, 0.3, 4.0, 40.0, math.inf])
STATES = st.sampled_from(["IN_QUEUE", "IN_PROGRESS", "RUNNING", "SOMETHING_NEW", "COMPLETED"])


@st.composite
def worlds(draw: st.DrawFn) -> World:
    script = Script(
        queue_s=draw(SECONDS),
        run_s=draw(SECONDS),
        final=draw(st.sampled_from(["COMPLETED", "FAILED", "TIMED_OUT"])),
        output=draw(st.sampled_from([None, {"images": []}])),
        progress=draw(st.sampled_from([None, STEP, "mine"])),
        states=draw(st.lists(STATES, max_size=5)),
        forget_after=draw(st.sampled_from([None, None, None, 0, 1, 3])),
        empty=draw(st.integers(0, 4)),
        says=draw(st.sampled_from([{}, {"delayTime": -5, "executionTime": 10**15}, {"delayTime": "soon"}])),
        ignore_cancel=draw(st.booleans()),
    )
    return World(
        keyed=draw(st.booleans()),
        endpoints=draw(st.integers(1, 3)),
        limits=RunLimits(
            deadline=draw(st.sampled_from([None, 0.5, 5.0, 50.0])),
            queue_limit_s=draw(st.sampled_from([None, 2.0, 30.0])),
            execution_limit_s=draw(st.sampled_from([None, 20.0])),
            life_s=600.0,
            patience_s=draw(st.sampled_from([5.0, 60.0])),
        ),
        sync=draw(st.booleans()),
        stream=draw(st.booleans()),
        script=script,
        trouble={ask: draw(st.lists(TROUBLES, max_size=6)) for ask in ("run", "runsync", "status", "stream", "cancel")},
        cancel_at=draw(st.sampled_from([math.inf, math.inf, 0.001, 0.2, 3.0, 70.0])),
    )


@given(worlds())
@settings(max_examples=600, deadline=None)
def test_whatever_happens(world: World) -> None:
    run = world.play()
    # No second submission unless the first is known not to have been accepted, or the endpoint knows it by its key.
    assert len(world.accepted) <= 1
    # No lost job: one that was accepted is known by its name, or reported as one that may run.
    if world.accepted:
        known = run.job_id in world.accepted
        assert known or run.ambiguous
        assert known or isinstance(run.error, SubmissionUnknown) or run.stopping is not None
    # The deadline is kept, by whatever clock the endpoint goes.
    assert run.seconds <= world.end - world.start + 1e-6
    # Somebody who cancels need not wait.
    if run.stopping == "cancelled":
        assert run.seconds <= world.cancel_at + 10.0 + 0.1
    # It ends anyway.
    assert run.seconds <= 600.0 + 10.0 + 1e-6
    if run.error is not None:
        return
    found = conclude(run)
    result = with_figures(found.complete() if isinstance(found, Received) else found, run, 0.5)
    assert result.ok == (not result.errors)
    assert 0 <= result.queue_seconds <= run.seconds
    assert 0 <= result.execution_seconds <= run.seconds
    assert result.estimated_cost == result.execution_seconds * 0.5
    # Nothing passes for a success that was none.
    if result.ok:
        assert run.stopping != "timed_out"
        assert world.script.output is not None
        assert "COMPLETED" in {world.script.final, *world.script.states}
    if run.ambiguous:
        assert "ambiguous" in {failure.code for failure in result.errors}
    if run.stopping is not None and run.job_id is not None and not run.confirmed:
        assert any("did not confirm" in warning for warning in result.warnings)


@given(st.floats(0, 300), st.floats(0, 300), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_where_nothing_goes_wrong_it_takes_a_tenth_longer_at_most(
    queue_s: float, run_s: float, keyed: bool, stream: bool
) -> None:
    world = World(
        keyed=keyed, stream=stream, script=Script(queue_s=queue_s, run_s=run_s), limits=RunLimits(life_s=86_460)
    )
    assert world.result().ok
    assert world.run.seconds <= (queue_s + run_s) * 1.1 + 0.5
    assert len(world.asked) < 700


# --- submitting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [lambda: unreachable(sent=False), busy, lambda: busy(retry_after_s=3.0)], ids=["refused", "429", "429+"]
)
def test_what_was_not_accepted_is_sent_again(error: Callable[[], TargetError]) -> None:
    world = World(trouble={"run": [Trouble(error), Trouble(error)]})
    assert world.result().ok
    assert [ask for _, ask in world.asked[:3]] == ["run"] * 3
    assert len(world.accepted) == 1


def test_retry_after_is_kept() -> None:
    world = World(trouble={"run": [Trouble(lambda: busy(retry_after_s=7.0))]})
    world.play()
    (first, _), (second, _) = world.asked[:2]
    assert 7.0 <= second - first <= 9.0


@pytest.mark.parametrize("carried_out", [True, False])
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_runpod_is_not_sent_again_what_it_may_have(status: int, carried_out: bool) -> None:
    def error() -> TargetError:
        return busy(503) if status == 503 else refused(status)

    world = World(trouble={"run": [Trouble(error, carried_out)]})
    found = world.error()
    assert isinstance(found, SubmissionUnknown)
    assert found.ambiguous
    assert "may run" in str(found)
    assert len(world.asked) == 1


@pytest.mark.parametrize("carried_out", [True, False])
def test_our_worker_is_sent_it_again_with_the_same_key(carried_out: bool) -> None:
    trouble = [Trouble(lambda: unreachable(sent=True), carried_out), Trouble(lambda: refused(500), carried_out)]
    world = World(keyed=True, endpoints=2, trouble={"run": trouble})
    assert world.result().ok
    assert len(world.accepted) == 1
    assert world.run.endpoint.url.endswith("/e0")


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_job_that_is_rejected_is_not_sent_again_nor_elsewhere(status: int) -> None:
    world = World(endpoints=3, trouble={"run": [Trouble(lambda: refused(status))]})
    assert world.error().status == status  # type: ignore[attr-defined]
    assert len(world.asked) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_an_endpoint_that_lets_nobody_in_is_left_for_the_next(status: int) -> None:
    world = World(endpoints=2, trouble={"run": [Trouble(lambda: refused(status))]})
    assert world.result().ok
    assert world.run.endpoint.url.endswith("/e1")
    alone = World(trouble={"run": [Trouble(lambda: refused(status))]})
    assert alone.error().status == status  # type: ignore[attr-defined]


def test_endpoints_that_are_away_are_tried_in_turn() -> None:
    away = Trouble(lambda: unreachable(sent=False))
    world = World(endpoints=3, trouble={"run": [away, Trouble(busy), away, away]})
    assert world.result().ok
    assert world.run.endpoint.url.endswith("/e1")


def test_the_patience_with_one_that_is_away_has_an_end() -> None:
    world = World(trouble={"run": [Trouble(lambda: unreachable(sent=False))] * 1000})
    assert isinstance(world.error(), TargetUnreachable)
    assert 5 <= world.run.seconds <= 10
    world = World(keyed=True, trouble={"run": [Trouble(lambda: unreachable(sent=True))] * 1000})
    assert isinstance(world.error(), SubmissionUnknown)
    assert 60 <= world.run.seconds <= 80
    world = World(trouble={"run": [Trouble(busy)] * 1000}, limits=RunLimits(life_s=1e6))
    assert isinstance(world.error(), TargetBusy)
    assert 600 <= world.run.seconds <= 630


# --- following ----------------------------------------------------------------------------------------------------------


def test_a_job_that_is_unknown_for_a_moment() -> None:
    world = World(trouble={"status": [Trouble(lambda: refused(404))] * 3})
    assert world.result().ok


def test_a_job_that_nobody_knows_any_more() -> None:
    world = World(script=Script(run_s=100, forget_after=2))
    error = world.error()
    assert isinstance(error, JobLost)
    assert error.job_id == world.accepted[0]


def test_completed_without_output_is_believed_after_a_while() -> None:
    assert World(script=Script(empty=2)).result().ok
    result = World(script=Script(output=None)).result()
    assert (result.status, result.errors[0].code) == ("failed", "no_output")


def test_failed_without_a_reason() -> None:
    result = World(script=Script(final="FAILED", output=None)).result()
    assert result.status == "failed"
    assert "did not say why" in result.errors[0].message


def test_an_exception_of_the_sdk_is_one_line_and_a_traceback() -> None:
    said = {"error_type": "<class 'ValueError'>", "error_message": "bad\nthing", "error_traceback": "Traceback …"}
    result = World(script=Script(final="FAILED", output=None, error=json.dumps(said))).result()
    assert (result.errors[0].message, result.errors[0].details) == ("bad thing", "Traceback …")


def test_a_block_is_blocked() -> None:
    output = {"images": [], "status": "blocked", "blocked": {"node_id": "8", "class_type": "Gate", "message": "no"}}
    said = "Content blocked by NudeNet: no"
    result = World(script=Script(final="FAILED", output={**output, "errors": [said]}, error=said)).result()
    assert result.status == "blocked"


def test_states_that_come_in_any_order() -> None:
    states = ["IN_PROGRESS", "IN_QUEUE", "IN_PROGRESS", "NOBODY_KNOWS", "IN_QUEUE"]
    assert World(script=Script(states=states)).result().ok


def test_stuck_in_the_queue_is_cancelled() -> None:
    world = World(script=Script(queue_s=math.inf), limits=RunLimits(queue_limit_s=30.0))
    result = world.result()
    assert (result.status, result.errors[0].code) == ("timed_out", "queue_limit")
    assert [ask for _, ask in world.asked].count("cancel") == 1
    assert 30 <= world.run.seconds <= 31
    assert result.warnings == ()


def test_stuck_in_progress_is_cancelled_and_failed() -> None:
    world = World(script=Script(run_s=math.inf), limits=RunLimits(execution_limit_s=20.0))
    result = world.result()
    assert (result.status, result.errors[0].code) == ("failed", "stuck")
    assert world.run.confirmed


def test_a_job_that_does_not_let_itself_be_cancelled_is_warned_of() -> None:
    world = World(script=Script(run_s=math.inf, ignore_cancel=True), cancel_at=3.0)
    result = world.result()
    assert result.status == "cancelled"
    assert "did not confirm" in result.warnings[0]
    assert [ask for _, ask in world.asked].count("cancel") > 2


def test_cancelled_before_it_was_sent() -> None:
    world = World(cancel_at=0.1, trouble={"run": [Trouble(lambda: busy(retry_after_s=60.0))]})
    result = world.result()
    assert result.status == "cancelled"
    assert "before it began" in result.errors[0].message
    assert world.accepted == []
    assert world.run.seconds < 1


def test_a_deadline_passes_while_nobody_knows_whether_it_was_accepted() -> None:
    slow = Trouble(lambda: unreachable(sent=True), carried_out=True, seconds=60.0)
    world = World(limits=RunLimits(deadline=5.0), trouble={"run": [slow]})
    result = world.result()
    assert result.status == "timed_out"
    assert [failure.code for failure in result.errors] == ["deadline", "ambiguous"]
    assert world.run.seconds == pytest.approx(5.0 + STOP_SECONDS)


def test_a_key_that_no_longer_fits_ends_it_at_once() -> None:
    world = World(script=Script(run_s=100), trouble={"status": [Trouble(lambda: refused(401))]})
    assert world.error().status == 401  # type: ignore[attr-defined]


def test_an_endpoint_that_stays_away_names_the_job() -> None:
    world = World(script=Script(run_s=100), trouble={"status": [Trouble(lambda: unreachable(sent=True))] * 500})
    error = world.error()
    assert isinstance(error, TargetUnreachable)
    assert world.accepted[0] in str(error)


def test_a_server_without_streams_is_asked_for_the_status() -> None:
    world = World(stream=True, script=Script(run_s=3), trouble={"stream": [Trouble(lambda: refused(405))]})
    assert world.result().ok
    assert [ask for _, ask in world.asked].count("stream") == 1


def test_progress_comes_once() -> None:
    world = World(script=Script(run_s=3, progress=STEP))
    assert world.result().ok
    assert world.progress == [Progress("step", "4", "Cut", 1, 2, 0, 1)]


def test_times_of_a_clock_that_was_set_are_held_within_what_it_took() -> None:
    result = World(script=Script(run_s=3, says={"delayTime": 9e12, "executionTime": -4})).result()
    assert 0 <= result.queue_seconds <= 4
    assert 2 <= result.execution_seconds <= 4


def test_what_completes_behind_the_deadline_has_timed_out_as_everywhere() -> None:
    world = World(script=Script(run_s=5.5, ignore_cancel=True), limits=RunLimits(deadline=5.0))
    result = world.result()
    assert world.run.answer is not None
    assert world.run.answer.state == "COMPLETED"
    assert (result.status, result.outputs) == ("timed_out", ())
    # Who only cancels gets what came of it.
    assert World(script=Script(run_s=5.5, ignore_cancel=True), cancel_at=5.0).result().ok


def test_a_job_that_was_cut_off_says_so() -> None:
    result = World(script=Script(says={"cut_off": True, "attempts": 2})).result()
    assert result.ok
    assert "a second time" in result.warnings[0]
