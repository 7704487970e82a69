from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_client.comfyui.messages import Message
from comfy_cpu_client.comfyui.order import by_execution
from comfy_cpu_client.comfyui.tracker import NodeTracker
from comfy_cpu_core.results import NodeTiming, Progress

PROMPT = {node_id: {"class_type": f"C{node_id}", "inputs": {}} for node_id in "abc"}


def follow(tracker: NodeTracker, *messages: tuple[float, str, dict[str, Any]]) -> list[tuple[Any, ...]]:
    events: list[Progress] = []
    for now, kind, data in messages:
        events.extend(tracker.receive(Message(kind, data), now))
    assert all(event.nodes == 3 and event.class_type == f"C{event.node_id}" for event in events)
    return [(event.kind, event.node_id, event.done) for event in events]


def test_an_old_server_says_only_what_begins() -> None:
    tracker = NodeTracker(PROMPT)
    assert follow(
        tracker,
        (0, "execution_cached", {"nodes": ["a", "strange"]}),
        (1, "executing", {"node": "b"}),
        (2, "progress", {"node": "b", "value": 1, "max": 2}),
        (4, "executing", {"node": "c"}),
        (5, "executing", {"node": None}),
    ) == [
        ("cached", "a", 1), ("started", "b", 1), ("step", "b", 1), ("finished", "b", 2), ("started", "c", 2),
        ("finished", "c", 3),
    ]  # fmt: skip
    assert tracker.timings == (
        NodeTiming("a", "Ca", 0.0, cached=True), NodeTiming("b", "Cb", 3), NodeTiming("c", "Cc", 1),
    )  # fmt: skip


def test_a_newer_one_says_what_ends() -> None:
    def state(**states: tuple[str, float, float]) -> dict[str, Any]:
        return {"nodes": {i: {"state": s, "value": v, "max": m} for i, (s, v, m) in states.items()}}

    tracker = NodeTracker(PROMPT)
    assert follow(
        tracker,
        (0, "progress_state", state(a=("running", 0, 1))),
        (0, "executing", {"node": "a"}),
        (1, "progress_state", state(a=("running", 1, 4), b=("running", 0, 1))),
        (1, "progress", {"node": "a", "value": 1, "max": 4}),
        (2, "executing", {"node": "b"}),
        (3, "progress_state", state(a=("running", 1, 4), b=("finished", 1, 1))),
        (7, "progress_state", state(a=("finished", 4, 4), b=("finished", 1, 1))),
    ) == [
        ("started", "a", 0), ("step", "a", 0), ("started", "b", 0), ("finished", "b", 1), ("finished", "a", 2),
    ]  # fmt: skip
    assert tracker.timings == (NodeTiming("b", "Cb", 2), NodeTiming("a", "Ca", 7))


def test_what_was_missed_is_filled_in_as_far_as_it_is_known() -> None:
    tracker = NodeTracker(PROMPT)
    finished = {"nodes": {"a": {"state": "finished"}, "b": {"state": "finished"}}}
    assert follow(tracker, (5, "progress_state", finished)) == [("finished", "a", 1), ("finished", "b", 2)]
    assert tracker.timings == ()
    assert [event.node_id for event in tracker.cached(["a", "c"])] == ["c"]
    assert {timing.node_id: timing.cached for timing in tracker.timings} == {"a": True, "c": True}


ID = st.sampled_from(["a", "b", "c", "x", None, 3])
NUMBER = st.integers(-1, 5) | st.none() | st.text(max_size=2)
STATE = st.fixed_dictionaries(
    {}, optional={"state": st.sampled_from(["running", "finished", "pending", 7]), "value": NUMBER, "max": NUMBER}
)
MESSAGE = st.one_of(
    st.tuples(st.just("executing"), st.fixed_dictionaries({"node": ID})),
    st.tuples(st.just("progress"), st.fixed_dictionaries({"node": ID, "value": NUMBER, "max": NUMBER})),
    st.tuples(st.just("execution_cached"), st.fixed_dictionaries({"nodes": st.lists(ID) | ID})),
    st.tuples(
        st.just("progress_state"),
        st.fixed_dictionaries(
            {"nodes": st.dictionaries(ID.filter(lambda i: isinstance(i, str)), STATE | st.none()) | ID}
        ),
    ),
    st.tuples(st.sampled_from(["execution_success", "new", "executed"]), st.just({})),
)


@given(st.lists(MESSAGE, max_size=30))
def test_in_any_order_a_node_starts_once_and_ends_once(messages: list[tuple[str, dict[str, Any]]]) -> None:
    tracker = NodeTracker(PROMPT)
    events: list[Progress] = []
    for now, (kind, data) in enumerate(messages):
        events.extend(tracker.receive(Message(kind, data), now))
    done = [event.done for event in events]
    assert done == sorted(done)
    for node_id in PROMPT:
        kinds = [event.kind for event in events if event.node_id == node_id]
        assert kinds.count("started") <= 1
        assert kinds.count("finished") + kinds.count("cached") <= 1
        if "finished" in kinds or "cached" in kinds:
            assert kinds[-1] in {"finished", "cached"}
    ended = [event for event in events if event.kind in {"finished", "cached"}]
    assert (done or [0])[-1] == len(ended)
    assert all(timing.seconds >= 0 for timing in tracker.timings)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [(["d", "c", "b"], ["b", "c", "d"]), (["d", "gone"], ["d"]), ([], [])],
)
def test_outputs_are_in_the_order_in_which_the_engine_runs_nodes(outputs: list[str], expected: list[str]) -> None:
    prompt = {
        "d": {"class_type": "D", "inputs": {"x": ["c", 0], "w": 1}},
        "b": {"class_type": "B", "inputs": {}},
        "c": {"class_type": "C", "inputs": {"x": ["b", 0], "lost": ["nowhere", 0]}},
    }
    assert by_execution(prompt, outputs) == expected


def test_a_cycle_ends() -> None:
    prompt = {i: {"inputs": {"x": [j, 0]}} for i, j in ("ab", "ba")}
    assert sorted(by_execution(prompt, ["a", "b"])) == ["a", "b"]
