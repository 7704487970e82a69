"""The state machine of a run: single turns, and whole runs against a server that does anything a server may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from comfy_cpu_client.comfyui.messages import Message
from comfy_cpu_client.comfyui.protocol import HistoryEntry, Place
from comfy_cpu_client.comfyui.run import STOP_SECONDS, PromptRun
from comfy_cpu_client.errors import TargetRefused, TargetUnreachable
from comfy_cpu_core.results import Progress

PROMPT = {"1": {"class_type": "Load", "inputs": {}}, "2": {"class_type": "Save", "inputs": {"x": ["1", 0]}}}
SUCCESS = HistoryEntry(
    True, [Message("execution_start", {"timestamp": 0}), Message("execution_success", {"timestamp": 7})]
)
INTERRUPTED = HistoryEntry(False, [Message("execution_interrupted", {})])
DOWN = TargetUnreachable("down")


def new(**options: Any) -> PromptRun:
    return PromptRun(PROMPT, "p", where="http://host", now=0.0, **options)


def message(kind: str, **data: Any) -> Message:
    return Message(kind, {"prompt_id": "p", **data})


def feed(run: PromptRun, kind: str, now: float, **data: Any) -> list[str]:
    return [event.kind for event in run.receive(message(kind, **data), now)]


def entry(run: PromptRun, found: HistoryEntry | None, now: float) -> None:
    list(run.told_history(found, now))


# --- single turns ---------------------------------------------------------------------------------------------------


def test_a_run_that_the_websocket_follows_asks_once() -> None:
    run = new()
    assert run.next(0)[0] is None
    assert feed(run, "executing", 1, node="1") == ["started"]
    assert run.status == "running"
    feed(run, "execution_success", 3)
    assert run.next(3) == ("history", 0.0)
    entry(run, SUCCESS, 3)
    assert (run.over, run.status, run.queue_seconds, run.execution_seconds) == (True, "completed", 1, 0.007)


def test_messages_of_another_prompt_are_none_of_its_business() -> None:
    run = new()
    assert list(run.receive(Message("execution_success", {"prompt_id": "q"}), 1)) == []
    assert list(run.receive(Message("status", {}), 1)) == []
    assert run.next(1)[0] is None


def test_the_websocket_alone_never_ends_it() -> None:
    run = new()
    for kind in ("execution_success", "execution_error", "execution_interrupted"):
        feed(run, kind, 1)
        assert not run.over
    feed(run, "executing", 1, node=None)
    assert not run.over


def test_a_history_that_is_late_is_asked_for_again() -> None:
    run = new()
    feed(run, "execution_success", 0)
    now, asks = 0.0, []
    while now < 10:
        ask, wait = run.next(now)
        if ask == "history":
            asks.append(now)
            entry(run, None, now)
        elif ask == "queue":
            run.told_queue("running", now)
        now += wait
    assert 5 < len(asks) < 30
    assert asks[1] - asks[0] < 0.1


def test_without_a_websocket_it_looks_by_itself_and_tries_to_connect() -> None:
    run = new(live=False)
    ask, wait = run.next(0)
    assert ask is None
    assert wait <= 0.2
    assert run.next(0.2)[0] == "history"
    entry(run, None, 0.2)
    assert run.next(0.2)[0] == "queue"
    run.told_queue("pending", 0.2)
    assert run.status == "queued"
    assert run.next(0.3) == (None, pytest.approx(0.1))
    assert [run.next(0.5)[0], run.next(0.5)[0]] == ["history", "connect"]
    run.disconnected(0.5)
    run.told_queue("running", 0.6)
    assert run.status == "running"


def test_where_there_can_be_no_websocket_it_does_not_try() -> None:
    run = new(live=False, websocket=False)
    asks = set()
    now = 0.0
    for _ in range(50):
        ask, wait = run.next(now)
        asks.add(ask)
        now += wait
        if ask == "history":
            entry(run, None, now)
        elif ask == "queue":
            run.told_queue("running", now)
    assert asks == {None, "history", "queue"}


def test_a_websocket_that_comes_back_makes_it_look() -> None:
    run = new()
    run.disconnected(1)
    assert run.next(1)[0] == "history"
    entry(run, None, 1)
    run.connected(2)
    assert run.next(2)[0] in {"history", "queue"}


def test_a_prompt_that_is_nowhere_is_lost() -> None:
    run = new(live=False)
    now = 1.0
    for _ in range(20):
        ask, wait = run.next(now)
        now += wait
        if ask == "history":
            entry(run, None, now)
        elif ask == "queue":
            run.told_queue(None, now)
    assert run.over
    assert "no longer knows the prompt p" in str(run.error)
    assert now < 3


def test_a_prompt_that_ended_between_two_questions_is_not_lost() -> None:
    run = new(live=False)
    entry(run, None, 1)
    run.told_queue(None, 1)
    entry(run, SUCCESS, 1)
    assert (run.error, run.status) == (None, "completed")


def test_only_what_runs_is_interrupted() -> None:
    run = new()
    run.cancel(1)
    assert run.next(1)[0] == "queue"
    run.told_queue("pending", 1)
    assert run.next(1)[0] == "delete"
    run.told_stopped("delete", 1)
    assert run.next(1)[0] == "queue"
    run.told_queue("running", 1)  # it began in the meantime
    assert run.next(1.2)[0] == "history"
    entry(run, None, 1.2)
    now = 1.2
    while (turn := run.next(now))[0] != "queue":
        now += turn[1]
        if turn[0] == "history":
            entry(run, None, now)
    run.told_queue("running", now)
    assert run.next(now)[0] == "interrupt"
    run.told_stopped("interrupt", now)
    entry(run, INTERRUPTED, now + 1)
    assert run.status == "cancelled"
    assert run.failures[0].message == "the run was cancelled"


def test_one_that_waits_is_taken_out_of_the_queue() -> None:
    run = new()
    run.cancel(1)
    run.told_queue("pending", 1)
    run.told_stopped("delete", 1)
    run.told_queue(None, 1)
    entry(run, None, 1)
    assert (run.status, run.failures[0].message) == ("cancelled", "the run was cancelled before it began")


def test_one_that_completed_all_the_same_is_completed() -> None:
    run = new()
    run.cancel(1)
    entry(run, SUCCESS, 1)
    assert run.status == "completed"


def test_one_that_somebody_else_interrupted() -> None:
    run = new()
    entry(run, INTERRUPTED, 1)
    assert (run.status, run.failures[0].message) == ("cancelled", "the run was interrupted on the server")


def test_the_deadline_interrupts() -> None:
    run = new(deadline=5.0)
    assert run.next(0)[1] == 5
    assert run.next(5)[0] == "queue"
    run.told_queue("running", 5)
    assert run.next(5)[0] == "interrupt"
    run.told_stopped("interrupt", 5)
    entry(run, INTERRUPTED, 5.1)
    assert (run.status, run.failures[0].code) == ("timed_out", "deadline")


def test_the_deadline_is_kept_where_nothing_ends() -> None:
    run = new(deadline=5.0)
    run.told_queue("running", 5)
    run.next(5)
    assert run.next(5 + STOP_SECONDS) == (None, 0.0)
    assert (run.over, run.status) == (True, "timed_out")
    assert "http://host may still be at it" in run.failures[0].message


def test_a_server_that_is_away_for_a_while() -> None:
    run = new(live=False, websocket=False, patience_s=10)
    run.failed("history", DOWN, 1)
    run.failed("history", DOWN, 10)
    assert not run.over
    entry(run, None, 11)
    run.failed("history", DOWN, 12)
    run.failed("history", DOWN, 21)
    assert not run.over
    run.failed("history", DOWN, 22)
    assert run.error is DOWN


@pytest.mark.parametrize(("status", "over"), [(401, True), (404, True), (500, False), (503, False)])
def test_a_refusal_is_final_unless_it_is_the_server_s_trouble(status: int, over: bool) -> None:
    run = new()
    run.failed("history", TargetRefused("no", status=status), 1)
    assert run.over is over


# --- whole runs -----------------------------------------------------------------------------------------------------


@dataclass
class World:
    """A server and a network, in virtual time.

    Attributes:
        starts, ends: when the prompt runs.
        ending: what the history says then.
        late_s: how long after the messages the history has it.
        heard: how many of its messages arrive.
        drops: when the websocket breaks.
        away: from when to when the server does not answer.
        restarts: when it loses everything; None for never.
        cancels: when somebody cancels; None for never.
        obeys_s: how long an interrupt takes; None if it is not obeyed.
    """

    starts: float
    ends: float
    ending: str
    late_s: float
    heard: list[bool]
    drops: list[float]
    away: tuple[float, float]
    restarts: float | None
    cancels: float | None
    obeys_s: float | None
    deadline: float | None
    rtt: float

    deleted: bool = False
    stopped: bool = False
    log: list[str] = field(default_factory=list)

    def place(self, now: float) -> Place | None:
        if self.deleted or (self.restarts is not None and now >= self.restarts):
            return None
        if now < self.starts:
            return "pending"
        return "running" if now < self.ends + self.late_s else None

    def history(self, now: float) -> HistoryEntry | None:
        if self.deleted or (self.restarts is not None and now >= self.restarts) or now < self.ends + self.late_s:
            return None
        if self.stopped:
            return INTERRUPTED
        return SUCCESS if self.ending == "success" else HistoryEntry(False, [Message("execution_error", {})])

    def stop(self, now: float) -> None:
        assert self.log[-1] == "queue:running", "whatever else runs must not be interrupted"
        if self.place(now) == "running" and self.obeys_s is not None and now + self.obeys_s < self.ends:
            self.ends, self.stopped = now + self.obeys_s, True

    def messages(self) -> list[tuple[float, Message]]:
        middle = (self.starts + self.ends) / 2
        last = "execution_success" if self.ending == "success" else "execution_error"
        told = [
            (self.starts, message("execution_start")),
            (self.starts, message("executing", node="1")),
            (middle, message("executing", node="2")),
            (self.ends, message("execution_interrupted" if self.stopped else last)),
            (self.ends + self.late_s, message("executing", node=None)),
        ]
        return [item for item, arrives in zip(told, self.heard, strict=True) if arrives]


def simulate(world: World) -> tuple[PromptRun, float, list[Progress]]:
    """Drive a run to its end; gives it, when that was, and its events."""
    run = new(deadline=world.deadline, patience_s=30.0)
    now, asks, live, events = 0.0, 0, True, []  # type: float, int, bool, list[Progress]
    told: set[int] = set()
    while not run.over:
        assert now < 200
        if world.cancels is not None and now >= world.cancels:
            run.cancel(now)
        for when in world.drops:
            if live and now >= when and when not in told:
                told.add(when)  # type: ignore[arg-type]
                live = False
                run.disconnected(now)
        for index, (when, what) in enumerate(world.messages()):
            if when <= now and index not in told:
                told.add(index)
                if live:
                    events.extend(run.receive(what, now))
        if run.over:
            break
        ask, wait = run.next(now)
        if ask is None:
            coming = [w for w, _ in world.messages() if w > now] + [d for d in world.drops if d > now]
            coming += [world.cancels] if world.cancels is not None and world.cancels > now else []
            now = min([now + wait, *coming]) if not run.over else now
            continue
        asks += 1
        assert asks < 60 + 8 * now, "it must not ask without end"
        now += world.rtt
        if world.away[0] <= now < world.away[1]:
            if ask == "connect":
                run.disconnected(now)
            else:
                run.failed(ask, DOWN, now)
            continue
        match ask:
            case "connect":
                live = True
                run.connected(now)
            case "history":
                found = world.history(now)
                world.log.append("history")
                events.extend(run.told_history(found, now))
            case "queue":
                place = world.place(now)
                world.log.append(f"queue:{place}")
                run.told_queue(place, now)
            case "interrupt":
                world.stop(now)
                run.told_stopped(ask, now)
            case "delete":
                assert world.log[-1] == "queue:pending"
                world.deleted = world.deleted or world.place(now) == "pending"
                run.told_stopped(ask, now)
    return run, now, events


TIME = st.floats(0, 20)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    starts = draw(TIME)
    gone = draw(st.floats(0, 40))
    return World(
        starts=starts,
        ends=starts + draw(TIME),
        ending=draw(st.sampled_from(["success", "error"])),
        late_s=draw(st.sampled_from([0.0, 0.01, 3.0])),
        heard=draw(st.lists(st.booleans(), min_size=5, max_size=5)),
        drops=draw(st.lists(TIME, max_size=3)),
        away=(gone, gone + draw(st.sampled_from([0.0, 0.0, 5.0, 100.0]))),
        restarts=draw(st.none() | TIME),
        cancels=draw(st.none() | TIME),
        obeys_s=draw(st.none() | st.floats(0, 3)),
        deadline=draw(st.none() | st.floats(0.1, 30)),
        rtt=draw(st.floats(0.001, 0.5)),
    )


QUIET: dict[str, Any] = {
    "starts": 0.0, "ends": 5.0, "ending": "success", "late_s": 0.0, "heard": [False] * 5, "drops": [],
    "away": (0.0, 0.0), "restarts": None, "cancels": None, "obeys_s": None, "deadline": None, "rtt": 0.01,
}  # fmt: skip


@given(worlds())
@example(World(**QUIET))
@example(World(**{**QUIET, "restarts": 1.0}))
@settings(max_examples=300, deadline=None)
def test_every_run_ends_as_the_server_s_history_says(world: World) -> None:
    run, now, events = simulate(world)
    done = [event.done for event in events]
    assert done == sorted(done)
    if world.deadline is not None:
        assert now <= world.deadline + STOP_SECONDS + world.rtt + 0.001
    if run.error is not None:
        away = world.away[1] - world.away[0] > 30
        assert away if run.error is DOWN else world.restarts is not None
        return
    if run.status == "timed_out":
        assert world.deadline is not None
        assert now >= world.deadline
        return
    if run.status == "cancelled":
        assert world.cancels is not None or world.stopped
        assert world.deleted or world.stopped or world.restarts is not None
        return
    assert run.status == ("completed" if world.ending == "success" else "failed")
    assert world.history(now) is not None, "nothing ends before the history has it"
    assert not world.stopped
