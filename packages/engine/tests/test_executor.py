"""Running prompts: order, lists, lazy inputs, memory, the cache, and every way to end."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comfy_cpu_core.context import current_run
from comfy_cpu_core.errors import (
    ContentBlocked,
    DeadlineExceeded,
    InputError,
    Interrupted,
    ModelCorrupt,
    ModelMissing,
    UsageError,
)
from comfy_cpu_core.nodes import NodeClass
from comfy_cpu_core.results import ModelUse, Progress, Result
from comfy_cpu_engine.engine import Engine

Toy = Callable[..., NodeClass]
MakeEngine = Callable[..., Engine]


@pytest.fixture
def number(toy: Toy) -> NodeClass:
    return toy("Number", lambda value: (value,), required={"value": ("INT", {})})


@pytest.fixture
def add(toy: Toy) -> NodeClass:
    return toy("Add", lambda a, b: (a + b,), required={"a": ("INT",), "b": ("INT",)})


@pytest.fixture
def show(toy: Toy) -> NodeClass:
    """Shows its input as text."""
    return toy(
        "Show",
        lambda value: {"ui": {"text": [repr(value)]}},
        required={"value": ("*",)},
        returns=(),
        OUTPUT_NODE=True,
    )


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def texts(result: Result) -> list[str]:
    assert result.status == "completed", result.errors
    return [output.text for output in result.outputs]


def test_a_small_sum(make_engine: MakeEngine, number: NodeClass, add: NodeClass, show: NodeClass) -> None:
    prompt = {
        "s": node("Show", value=["c", 0]),
        "c": node("Add", a=["a", 0], b=["b", 0]),
        "a": node("Number", value=2),
        "b": node("Number", value="40"),
    }
    result = make_engine(number, add, show).run(prompt)
    assert texts(result) == ["42"]
    assert [(t.node_id, t.class_type, t.cached) for t in result.timings] == [
        ("a", "Number", False), ("b", "Number", False), ("c", "Add", False), ("s", "Show", False),
    ]  # fmt: skip
    assert all(timing.seconds >= 0 for timing in result.timings)
    assert result.execution_seconds >= sum(timing.seconds for timing in result.timings)
    assert result.errors == ()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=10))
def test_any_graph_gives_what_its_nodes_say_each_run_once(
    make_engine: MakeEngine, toy: Toy, show: NodeClass, links: list[tuple[int, int]]
) -> None:
    ran: list[str] = []

    def combine(a: int, b: int, name: str) -> tuple[int]:
        ran.append(name)
        return (3 * a + b + 1,)

    prompt: dict[str, Any] = {}
    expected: list[int] = []
    for index, (first, second) in enumerate(links):
        sources = [source % index if index else None for source in (first, second)]
        values: list[Any] = [0 if s is None else [str(s), 0] for s in sources]
        prompt[str(index)] = node("Combine", a=values[0], b=values[1], name=str(index))
        a, b = (0 if s is None else expected[s] for s in sources)
        expected.append(3 * a + b + 1)
    prompt["out"] = node("Show", value=[str(len(links) - 1), 0])
    inputs = {"a": ("INT",), "b": ("INT",), "name": ("STRING",)}
    result = make_engine(toy("Combine", combine, required=inputs), show, cache_bytes=0).run(prompt)
    assert texts(result) == [str(expected[-1])]
    assert len(set(ran)) == len(ran)
    assert [t.node_id for t in result.timings] == [*ran, "out"]


def test_lists_in_and_out(make_engine: MakeEngine, toy: Toy) -> None:
    numbers = toy("Numbers", lambda: ([1, 2, 3], 10), returns=("INT", "INT"), OUTPUT_IS_LIST=(True, False))
    double = toy("Add", lambda a, b: (a + b,), required={"a": ("INT",), "b": ("INT",)})
    total = toy(
        "Total",
        lambda values: {"ui": {"text": [str(sum(values)), str(len(values))]}},
        required={"values": ("INT",)},
        returns=(),
        INPUT_IS_LIST=True,
        OUTPUT_NODE=True,
    )
    prompt = {
        "n": node("Numbers"),
        "d": node("Add", a=["n", 0], b=["n", 1]),
        "t": node("Total", values=["d", 0]),
    }
    assert texts(make_engine(numbers, double, total).run(prompt)) == ["36", "3"]


def test_hidden_inputs(make_engine: MakeEngine, toy: Toy) -> None:
    seen: dict[str, Any] = {}
    hidden = {"unique_id": "UNIQUE_ID", "prompt": "PROMPT", "extra": "EXTRA_PNGINFO", "dynamic": "DYNPROMPT"}
    spy = toy(
        "Spy",
        lambda **inputs: seen.update(inputs),
        required={"x": ("INT",)},
        hidden=hidden,
        returns=(),
        OUTPUT_NODE=True,
    )
    prompt = {"5:1": node("Spy", x=3, undeclared=4)}
    make_engine(spy).run(prompt, extra_pnginfo={"workflow": {"nodes": []}})
    assert seen["unique_id"] == "5:1"
    assert seen["prompt"] == prompt
    assert seen["extra"] == {"workflow": {"nodes": []}}
    assert seen["dynamic"].get_node("5:1") == prompt["5:1"]
    assert seen["dynamic"].has_node("6") is False
    assert seen["dynamic"].all_node_ids() == {"5:1"}
    assert seen["dynamic"].get_original_prompt() == prompt
    assert set(seen) == {"x", *hidden}, "a value of an input that is not declared is left out"
    seen["prompt"].clear()
    assert prompt == {"5:1": node("Spy", x=3, undeclared=4)}, "the caller's prompt is not the node's to change"


def test_connections_of_undeclared_inputs_are_passed_on(make_engine: MakeEngine, toy: Toy, number: NodeClass) -> None:
    seen: dict[str, Any] = {}
    spy = toy("Spy", lambda **inputs: seen.update(inputs), returns=(), OUTPUT_NODE=True)
    make_engine(number, spy).run({"n": node("Number", value=5), "s": node("Spy", anything=["n", 0])})
    assert seen == {"anything": 5}


def switch(toy: Toy, **attributes: Any) -> NodeClass:
    def check(self: object, which: bool, a: Any, b: Any) -> list[str]:
        return ["a" if which else "b"]

    return toy(
        "Switch",
        lambda which, a, b: ((a, b),),
        required={"which": ("BOOLEAN",), "a": ("INT", {"lazy": True}), "b": ("INT", {"lazy": True})},
        returns=("*",),
        **{"check_lazy_status": check, **attributes},
    )


@pytest.mark.parametrize(("which", "shown", "ran"), [(True, "(1, None)", ["n1"]), (False, "(None, 2)", ["n2"])])
def test_lazy_inputs_run_only_when_asked_for(
    which: bool, shown: str, ran: list[str], make_engine: MakeEngine, toy: Toy, number: NodeClass, show: NodeClass
) -> None:
    prompt = {
        "n1": node("Number", value=1),
        "n2": node("Number", value=2),
        "w": node("Switch", which=which, a=["n1", 0], b=["n2", 0]),
        "s": node("Show", value=["w", 0]),
    }
    result = make_engine(number, show, switch(toy)).run(prompt)
    assert texts(result) == [shown]
    assert [timing.node_id for timing in result.timings] == [*ran, "w", "s"]


def test_a_lazy_input_that_is_asked_for_but_not_there(
    make_engine: MakeEngine, toy: Toy, number: NodeClass, show: NodeClass
) -> None:
    strange = switch(toy, check_lazy_status=lambda self, **_: ["c"])
    prompt = {
        "n": node("Number", value=1),
        "w": node("Switch", which=True, a=["n", 0], b=["n", 0]),
        "s": node("Show", value=["w", 0]),
    }
    result = make_engine(number, show, strange).run(prompt)
    assert result.status == "failed"
    assert "'c'" in result.errors[0].message


def test_results_go_as_soon_as_nothing_needs_them(make_engine: MakeEngine, toy: Toy, show: NodeClass) -> None:
    class Large:
        pass

    alive: list[weakref.ref[Large]] = []
    counts: list[int] = []

    def make(before: Any = None) -> tuple[Large]:
        gc.collect()
        counts.append(sum(ref() is not None for ref in alive))
        made = Large()
        alive.append(weakref.ref(made))
        return (made,)

    large = toy("Large", make, optional={"before": ("LARGE",)}, returns=("LARGE",))
    prompt = {"0": node("Large"), **{str(n): node("Large", before=[str(n - 1), 0]) for n in range(1, 6)}}
    prompt["s"] = node("Show", value=["5", 0])
    assert make_engine(large, show).run(prompt).ok
    assert counts == [0, 1, 1, 1, 1, 1]
    gc.collect()
    assert all(ref() is None for ref in alive)


def test_a_node_cannot_change_what_others_get(make_engine: MakeEngine, toy: Toy, show: NodeClass) -> None:
    source = toy("Source", lambda: (np.zeros(3),), returns=("IMAGE",))

    def paint(image: np.ndarray) -> None:
        image[0] = 1

    painter = toy("Painter", paint, required={"image": ("IMAGE",)}, returns=(), OUTPUT_NODE=True)
    result = make_engine(source, painter).run({"a": node("Source"), "b": node("Painter", image=["a", 0])})
    assert result.status == "failed"
    assert "read-only" in result.errors[0].message


# --- the cache ---


@pytest.fixture
def counted(toy: Toy) -> tuple[NodeClass, list[Any]]:
    """A node that says how often it ran."""
    ran: list[Any] = []

    def work(value: Any) -> tuple[Any]:
        ran.append(value)
        return (value,)

    return toy("Counted", work, required={"value": ("*",)}, returns=("*",)), ran


def chain(value: int) -> dict[str, Any]:
    return {"c": node("Counted", value=value), "d": node("Add", a=["c", 0], b=1), "s": node("Show", value=["d", 0])}


def test_a_second_run_uses_what_is_kept(
    make_engine: MakeEngine, counted: tuple[NodeClass, list[Any]], add: NodeClass, show: NodeClass
) -> None:
    cls, ran = counted
    engine = make_engine(cls, add, show)
    assert texts(engine.run(chain(1))) == ["2"]
    events: list[Progress] = []
    again = engine.run(chain(1), on_event=events.append)
    assert texts(again) == ["2"]
    assert [(t.node_id, t.cached) for t in again.timings] == [("d", True), ("s", False)]
    assert [(e.kind, e.node_id, e.done, e.nodes) for e in events] == [
        ("cached", "d", 1, 2), ("started", "s", 1, 2), ("finished", "s", 2, 2),
    ]  # fmt: skip
    assert ran == [1]
    assert texts(engine.run(chain(2))) == ["3"]
    assert ran == [1, 2]
    assert texts(engine.run(chain(1))) == ["2"]
    assert ran == [1, 2]


def test_true_and_1_and_1_point_0_are_not_the_same_value(
    make_engine: MakeEngine, counted: tuple[NodeClass, list[Any]], show: NodeClass
) -> None:
    cls, _ = counted
    engine = make_engine(cls, show)
    for value in (True, 1, 1.0, "1"):
        prompt = {"c": node("Counted", value=value), "s": node("Show", value=["c", 0])}
        assert texts(engine.run(prompt)) == [repr(value)]


def test_other_files_are_another_request(
    make_engine: MakeEngine, counted: tuple[NodeClass, list[Any]], add: NodeClass, show: NodeClass
) -> None:
    cls, ran = counted
    engine = make_engine(cls, add, show)
    for data in (b"one", b"two", b"one"):
        engine.run(chain(1), files={"a.txt": data})
    assert ran == [1, 1]


def test_no_cache(
    make_engine: MakeEngine, counted: tuple[NodeClass, list[Any]], add: NodeClass, show: NodeClass
) -> None:
    cls, ran = counted
    engine = make_engine(cls, add, show, cache_bytes=0)
    engine.run(chain(1))
    engine.run(chain(1))
    assert ran == [1, 1]


@pytest.mark.parametrize(
    ("answers", "runs"),
    [(["a", "a"], 1), (["a", "b"], 2), ([float("nan")] * 2, 2), ([object()] * 2, 2), ([None, None], 1)],
)
def test_is_changed(answers: list[Any], runs: int, make_engine: MakeEngine, toy: Toy, show: NodeClass) -> None:
    left = list(answers)
    ran: list[int] = []
    watched = toy(
        "Watched",
        lambda x: (ran.append(x),),
        required={"x": ("INT",)},
        IS_CHANGED=classmethod(lambda cls, x: left.pop(0)),
    )
    engine = make_engine(watched, show)
    for _ in answers:
        engine.run({"w": node("Watched", x=1), "s": node("Show", value=["w", 0])})
    assert len(ran) == runs


def test_is_changed_that_fails_runs_the_node_again(make_engine: MakeEngine, toy: Toy, show: NodeClass) -> None:
    ran: list[int] = []
    broken = toy("Broken", lambda: (ran.append(1),), IS_CHANGED=classmethod(lambda cls: 1 / 0))
    engine = make_engine(broken, show)
    for _ in range(2):
        assert engine.run({"b": node("Broken"), "s": node("Show", value=["b", 0])}).ok
    assert ran == [1, 1]


def test_is_changed_gets_values_but_no_connections(
    make_engine: MakeEngine, toy: Toy, number: NodeClass, show: NodeClass
) -> None:
    seen: list[Any] = []
    watched = toy(
        "Watched",
        lambda a, b: (a + b,),
        required={"a": ("INT",), "b": ("INT",)},
        IS_CHANGED=classmethod(lambda cls, a, b: seen.append((a, b))),
    )
    prompt = {"n": node("Number", value=1), "w": node("Watched", a=["n", 0], b=2), "s": node("Show", value=["w", 0])}
    make_engine(number, watched, show).run(prompt)
    assert seen == [(None, 2)]


@pytest.mark.parametrize(
    ("attributes", "runs"), [({}, 1), ({"NOT_IDEMPOTENT": True}, 2), ({"hidden": {"me": "UNIQUE_ID"}}, 2)]
)
def test_two_nodes_alike_share_their_result(
    attributes: dict[str, Any], runs: int, make_engine: MakeEngine, toy: Toy, show: NodeClass
) -> None:
    ran: list[int] = []
    source = toy("Source", lambda x, me=None: (ran.append(x),), required={"x": ("INT",)}, **attributes)
    prompt = {
        "a": node("Source", x=1),
        "b": node("Source", x=1),
        "s": node("Show", value=["a", 0]),
        "t": node("Show", value=["b", 0]),
    }
    assert len(texts(make_engine(source, show).run(prompt))) == 2
    assert len(ran) == runs


def test_what_must_be_said_of_a_result_is_said_when_it_is_used_again(
    make_engine: MakeEngine, toy: Toy, add: NodeClass, show: NodeClass
) -> None:
    def work() -> tuple[int]:
        run = current_run()
        assert run is not None
        run.model_uses.append(ModelUse("m.onnx", "onnxruntime", "f32", 2, stand_in=True, load_seconds=1.5))
        run.warn("a stand-in was used")
        return (1,)

    prompt = {"m": node("Model"), "d": node("Add", a=["m", 0], b=1), "s": node("Show", value=["d", 0])}
    engine = make_engine(toy("Model", work), add, show)
    first, second = engine.run(prompt), engine.run(prompt)
    assert [timing.cached for timing in second.timings] == [True, False], "the model's node is behind a cached one"
    for result, seconds in ((first, 1.5), (second, 0.0)):
        assert result.stand_in
        assert [(use.name, use.load_seconds) for use in result.models] == [("m.onnx", seconds)]
        assert result.warnings == ("a stand-in was used",)


# --- events ---


def test_events(make_engine: MakeEngine, toy: Toy, show: NodeClass) -> None:
    def work() -> tuple[int]:
        run = current_run()
        assert run is not None
        assert (run.node_id, run.class_type) == ("w", "Worker")
        run.emit(Progress("step", value=1, total=2))
        run.warn("careful")
        return (1,)

    events: list[Progress] = []
    prompt = {"w": node("Worker"), "s": node("Show", value=["w", 0])}
    make_engine(toy("Worker", work), show).run(prompt, on_event=events.append)
    assert events == [
        Progress("started", "w", "Worker", done=0, nodes=2),
        Progress("step", "w", "Worker", value=1, total=2, done=0, nodes=2),
        Progress("notice", "w", "Worker", done=0, nodes=2, message="careful"),
        Progress("finished", "w", "Worker", done=1, nodes=2),
        Progress("started", "s", "Show", done=1, nodes=2),
        Progress("finished", "s", "Show", done=2, nodes=2),
    ]


def test_a_listener_that_raises_does_not_end_the_run(
    make_engine: MakeEngine, number: NodeClass, show: NodeClass
) -> None:
    calls: list[Progress] = []

    def listener(event: Progress) -> None:
        calls.append(event)
        raise RuntimeError("no terminal")

    prompt = {"n": node("Number", value=1), "s": node("Show", value=["n", 0])}
    result = make_engine(number, show).run(prompt, on_event=listener)
    assert result.ok
    assert len(calls) == 1
    assert "no terminal" in result.warnings[0]


# --- ends ---


def raising(toy: Toy, error: BaseException) -> NodeClass:
    def work(**_: Any) -> Any:
        raise error

    return toy("Raises", work, optional={"x": ("*",)}, returns=("*",))


class InterruptProcessingException(Exception):
    """As ComfyUI's."""


@pytest.mark.parametrize(
    ("error", "status", "code", "says"),
    [
        (ContentBlocked("Content blocked by gate: nudity"), "blocked", "blocked", "Content blocked by gate: nudity"),
        (ContentBlocked("no"), "blocked", "blocked", "no"),
        (ValueError("Content blocked by safety gate: NSFW"), "blocked", "blocked", "Content blocked by safety gate: NSFW"),
        (ValueError("not Content blocked by"), "failed", "node_failed", "ValueError: not Content blocked by"),
        (KeyError("x"), "failed", "node_failed", "KeyError: 'x'"),
        (RuntimeError(), "failed", "node_failed", "RuntimeError"),
        (RuntimeError("two\nlines"), "failed", "node_failed", "RuntimeError: two lines"),
        (ModelMissing("m.onnx is missing", remedy="fetch it"), "failed", "model", "m.onnx is missing"),
        (ModelCorrupt("m.onnx is cut off"), "failed", "model", "m.onnx is cut off"),
        (InputError("'a.png' is broken"), "failed", "input", "'a.png' is broken"),
        (UsageError("no run"), "failed", "node_failed", "no run"),
        (DeadlineExceeded("a server did not answer"), "failed", "node_failed", "a server did not answer"),
        (MemoryError(), "failed", "memory", "not enough memory"),
        (MemoryError("4 GiB"), "failed", "memory", "not enough memory: 4 GiB"),
        (OSError(12, "Cannot allocate memory"), "failed", "memory", "not enough memory: [Errno 12] Cannot allocate memory"),
        (RuntimeError("can't allocate memory: 9 bytes"), "failed", "memory", "not enough memory: can't allocate memory: 9 bytes"),
        (OSError(28, "No space", "/x"), "failed", "disk", "no space left to write to: [Errno 28] No space: '/x'"),
        (OSError(2, "No such file", "/x"), "failed", "node_failed", "FileNotFoundError: [Errno 2] No such file: '/x'"),
        (SystemExit(3), "failed", "node_failed", "the node tried to end the program (exit code 3)"),
        (Interrupted("stop"), "cancelled", "cancelled", "the run was cancelled"),
        (InterruptProcessingException(), "cancelled", "cancelled", "the run was cancelled"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)  # fmt: skip
def test_what_a_nodes_exception_means(
    error: BaseException, status: str, code: str, says: str, make_engine: MakeEngine, toy: Toy, show: NodeClass
) -> None:
    prompt = {"r": node("Raises"), "s": node("Show", value=["r", 0])}
    result = make_engine(raising(toy, error), show).run(prompt)
    assert result.status == status
    (failure,) = result.errors
    assert (failure.code, failure.message, failure.node_id, failure.class_type) == (code, says, "r", "Raises")
    assert failure.remedy == getattr(error, "remedy", failure.remedy)
    assert ("Traceback" in failure.details) is (status != "blocked")
    assert result.outputs == ()


@pytest.mark.parametrize("error", [ContentBlocked("Content blocked by gate: x"), RuntimeError("the gate is broken")])
@pytest.mark.parametrize("first", ["gate", "preview"])
def test_after_a_gate_nothing_runs_and_nothing_leaks(
    error: Exception, first: str, make_engine: MakeEngine, toy: Toy, show: NodeClass, png: bytes
) -> None:
    after: list[Any] = []
    sink = toy("Sink", after.append, required={"x": ("*",)}, returns=(), OUTPUT_NODE=True)
    outputs = {
        "gate": {"k": node("Sink", x=["r", 0])},
        "preview": {"p": node("PreviewImage", images=["l", 0]), "t": node("Show", value=["l", 1])},
    }
    prompt = {
        "l": node("LoadImage", image="a.png"),
        "r": node("Raises", x=["l", 0]),
        **(outputs["gate"] | outputs["preview"] if first == "gate" else outputs["preview"] | outputs["gate"]),
    }
    ran: list[Progress] = []
    result = make_engine(raising(toy, error), sink, show).run(prompt, files={"a.png": png}, on_event=ran.append)
    assert result.status in {"blocked", "failed"}
    assert result.outputs == ()
    assert result.images == []
    assert after == []
    assert [event.node_id for event in ran][-1] == "r", "nothing runs after the gate"


def test_a_block_is_no_result_to_keep(make_engine: MakeEngine, toy: Toy, show: NodeClass) -> None:
    engine = make_engine(raising(toy, ContentBlocked("no")), show)
    prompt = {"r": node("Raises"), "s": node("Show", value=["r", 0])}
    assert [engine.run(prompt).status for _ in range(2)] == ["blocked", "blocked"]


def test_cancelled_while_a_node_runs(make_engine: MakeEngine, toy: Toy, show: NodeClass) -> None:
    cancel = threading.Event()
    after: list[Any] = []

    def work() -> tuple[int]:
        cancel.set()
        run = current_run()
        assert run is not None
        run.check()
        after.append("not here")
        return (1,)

    result = make_engine(toy("Worker", work), show).run(
        {"w": node("Worker"), "s": node("Show", value=["w", 0])}, cancel=cancel
    )
    assert (result.status, after, result.outputs) == ("cancelled", [], ())
    assert result.errors[0].code == "cancelled"


def test_cancelled_before_it_began(make_engine: MakeEngine, number: NodeClass, show: NodeClass) -> None:
    cancel = threading.Event()
    cancel.set()
    prompt = {"n": node("Number", value=1), "s": node("Show", value=["n", 0])}
    result = make_engine(number, show).run(prompt, cancel=cancel)
    assert (result.status, result.timings) == ("cancelled", ())


@pytest.mark.parametrize("position", ["first", "last"])
def test_a_node_that_swallows_the_wish_to_stop_does_not_win(
    position: str, make_engine: MakeEngine, toy: Toy, show: NodeClass
) -> None:
    cancel = threading.Event()

    def work(x: Any = None) -> dict[str, Any]:
        cancel.set()
        return {"ui": {"text": ["done"]}, "result": (1,)}

    stubborn = toy("Stubborn", work, optional={"x": ("*",)}, OUTPUT_NODE=position == "last")
    prompt = {"w": node("Stubborn")}
    if position == "first":
        prompt["s"] = node("Show", value=["w", 0])
    result = make_engine(stubborn, show).run(prompt, cancel=cancel)
    assert (result.status, result.outputs) == ("cancelled", ())


def test_an_error_after_cancelling_is_the_cancellation(make_engine: MakeEngine, toy: Toy) -> None:
    cancel = threading.Event()

    def work() -> Any:
        cancel.set()
        raise RuntimeError("inference was aborted")

    result = make_engine(toy("Worker", work, OUTPUT_NODE=True)).run({"w": node("Worker")}, cancel=cancel)
    assert result.status == "cancelled"
    assert "inference was aborted" in result.errors[0].details


def test_deadline(make_engine: MakeEngine, toy: Toy, show: NodeClass) -> None:
    def work() -> tuple[int]:
        run = current_run()
        assert run is not None
        for _ in range(500):
            time.sleep(0.01)
            run.check()
        return (1,)

    prompt = {"w": node("Worker"), "s": node("Show", value=["w", 0])}
    result = make_engine(toy("Worker", work), show).run(prompt, timeout_s=0.05)
    assert result.status == "timed_out"
    (failure,) = result.errors
    assert (failure.code, failure.node_id) == ("deadline", "w")
    assert "0.05 s" in failure.message
    assert failure.remedy


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_deadline_that_makes_no_sense(timeout_s: float, engine: Engine) -> None:
    with pytest.raises(UsageError, match="timeout_s"):
        engine.run({}, timeout_s=timeout_s)


def test_an_output_that_the_node_did_not_give(make_engine: MakeEngine, toy: Toy, show: NodeClass) -> None:
    lazy = toy("Lazy", lambda: {"ui": {}}, returns=("INT", "INT"))
    result = make_engine(lazy, show).run({"a": node("Lazy"), "s": node("Show", value=["a", 1])})
    assert result.status == "failed"
    assert "node a gave no output 1" in result.errors[0].message
