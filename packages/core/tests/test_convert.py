"""CPU conversion."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_core.convert import (
    CannotRun,
    Change,
    InputChange,
    PluginProblem,
    Report,
    StuckNode,
    UnknownNode,
    provider_to_cpu,
    to_cpu,
)
from comfy_cpu_core.errors import UsageError, WorkflowError
from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.plugins import Plugins
from comfy_cpu_core.registry import NodeRegistry
from comfy_cpu_core.workflow import Dropped, PromptNode, Workflow, load

MakePlugins = Callable[..., Plugins]
Answer = Callable[[PromptNode], Iterable[Any]]

PROMPT = {
    "10": {"class_type": "Cut", "inputs": {"provider": "CUDA", "n": 1}},
    "2": {"class_type": "Cut", "inputs": {"provider": "CPU", "n": 1}},
    "2:3": {"class_type": "Cut", "inputs": {"provider": ["2", 0], "n": True}},
    "b": {"class_type": "Other", "inputs": {}},
}
KNOWN = NodeRegistry(
    object_info={
        "Cut": {"input": {"required": {"provider": [["CPU", "CUDA"]], "n": ["INT"]}, "optional": {"blur": ["INT"]}}},
        "Other": {"input": {}},
    }
)


class Plugin:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[str] = []

    @hookimpl
    def comfy_cpu_convert_node(self, node: PromptNode) -> Iterable[Any]:
        self.asked.append(node.id)
        return self.answer(node)


def changing(name: str, new: Any, reason: str = "because") -> Plugin:
    return Plugin(lambda node: [InputChange(name, new, reason)] if node.class_type == "Cut" else [])


@pytest.fixture
def workflow() -> Workflow:
    return load(PROMPT, KNOWN.signatures)


def test_changes_are_made_and_reported(workflow: Workflow, make_plugins: MakePlugins) -> None:
    converted, report = to_cpu(workflow, make_plugins(p=changing("provider", "CPU")), KNOWN)
    assert report.ok
    assert report.changes == (  # in the order of node ids; node 2 had that value already
        Change("2:3", "Cut", "provider", ["2", 0], "CPU", "because", "p"),
        Change("10", "Cut", "provider", "CUDA", "CPU", "because", "p"),
    )
    assert list(converted.nodes) == list(PROMPT)
    assert {i: n.inputs.get("provider") for i, n in converted.nodes.items()} == {
        "10": "CPU",
        "2": "CPU",
        "2:3": "CPU",
        "b": None,
    }
    assert workflow.to_prompt() == PROMPT


def test_true_is_not_one(workflow: Workflow, make_plugins: MakePlugins) -> None:
    converted, report = to_cpu(workflow, make_plugins(p=changing("n", 1)), KNOWN)
    assert [(change.node_id, change.old) for change in report.changes] == [("2:3", True)]
    assert converted.to_prompt()["2:3"]["inputs"]["n"] is not True


def test_nothing_to_change(workflow: Workflow, make_plugins: MakePlugins) -> None:
    assert to_cpu(workflow, make_plugins(), KNOWN) == (workflow, Report())


def test_every_plugin_is_asked_about_every_node_once_in_the_order_of_ids(
    workflow: Workflow, make_plugins: MakePlugins
) -> None:
    one, two = changing("n", 2), changing("blur", 0)
    to_cpu(workflow, make_plugins(b=one, a=two), KNOWN)
    assert one.asked == two.asked == ["2", "2:3", "10", "b"]


def test_ids_that_no_number_fits(make_plugins: MakePlugins) -> None:
    ids = ["x:1", "9" * 5000, "", "٣", "10:2", "10"]
    plugin = changing("n", 2)
    to_cpu(Workflow({i: PromptNode(i, "Other") for i in ids}), make_plugins(p=plugin), KNOWN)
    assert sorted(plugin.asked) == sorted(ids)
    assert plugin.asked.index("10") < plugin.asked.index("10:2") < plugin.asked.index("x:1")


def test_several_plugins_may_agree(workflow: Workflow, make_plugins: MakePlugins) -> None:
    plugins = make_plugins(b=changing("n", 2, "second"), a=changing("n", 2, "first"), c=changing("blur", 3))
    converted, report = to_cpu(workflow, plugins, KNOWN)
    assert [(c.node_id, c.input, c.reason, c.plugin) for c in report.changes[:2]] == [
        ("2", "n", "first", "a"),
        ("2", "blur", "because", "c"),
    ]
    assert report.changes[1].old is None  # an input that the class has and the workflow had not
    assert converted.nodes["2"].inputs == {"provider": "CPU", "n": 2, "blur": 3}


@pytest.mark.parametrize(("first", "second"), [(2, 3), (1, 2), (True, 1), ("1", 1)])
def test_plugins_that_disagree(workflow: Workflow, make_plugins: MakePlugins, first: Any, second: Any) -> None:
    """Also where one of them wants the value that is there already."""
    with pytest.raises(UsageError, match=r"plugins 'a' and 'b' set 2\.n \(Cut\) to different values") as caught:
        to_cpu(workflow, make_plugins(b=changing("n", second), a=changing("n", first)), KNOWN)
    assert "COMFY_CPU_DISABLED_PLUGINS" in (caught.value.remedy or "")


def test_an_input_that_does_not_exist(workflow: Workflow, make_plugins: MakePlugins) -> None:
    with pytest.raises(UsageError, match=r"plugin 'p' sets the input 'zzz' of node 2 \(Cut\), which has no such"):
        to_cpu(workflow, make_plugins(p=changing("zzz", 1)), KNOWN)


def test_a_value_that_is_no_json(workflow: Workflow, make_plugins: MakePlugins) -> None:
    with pytest.raises(WorkflowError, match=r"the value of plugin 'p' for 2\.n: a Python PosixPath is not JSON"):
        to_cpu(workflow, make_plugins(p=changing("n", Path("x"))), KNOWN)


def test_a_list_is_no_connection(workflow: Workflow, make_plugins: MakePlugins) -> None:
    converted, report = to_cpu(workflow, make_plugins(p=changing("n", ["2", 0])), KNOWN)
    assert converted.nodes["10"].inputs["n"] == {"__value__": ["2", 0]}
    assert report.changes[0].new == {"__value__": ["2", 0]}


def test_nodes_that_cannot_run(workflow: Workflow, make_plugins: MakePlugins) -> None:
    plugin = Plugin(lambda node: [CannotRun("needs CUDA kernels")] if node.class_type == "Other" else [])
    converted, report = to_cpu(workflow, make_plugins(p=plugin), KNOWN)
    assert report.cannot_run == (StuckNode("b", "Other", "needs CUDA kernels"),)
    assert not report.ok
    assert converted == workflow


def test_nodes_that_nobody_knows(workflow: Workflow, make_plugins: MakePlugins) -> None:
    _, report = to_cpu(workflow, make_plugins(), NodeRegistry())
    assert [node.node_id for node in report.unknown] == ["2", "2:3", "10", "b"]
    assert report.unknown[3] == UnknownNode("b", "Other")
    assert not report.ok


def test_a_plugin_that_fails_is_no_silence(workflow: Workflow, make_plugins: MakePlugins) -> None:
    def fail(node: PromptNode) -> Iterable[Any]:
        if node.id == "10":
            raise ValueError("oh")
        return ["nonsense"] if node.id == "b" else []

    plugins = make_plugins(p=Plugin(fail), q=changing("n", 5))
    converted, report = to_cpu(workflow, plugins, KNOWN)
    assert report.problems == (
        PluginProblem("10", "Cut", "p", "ValueError: oh"),
        PluginProblem("b", "Other", "p", "it answered str, neither InputChange nor CannotRun"),
    )
    assert not report.ok
    assert converted.nodes["10"].inputs["n"] == 5  # the others are asked all the same


def test_the_report_as_json(make_plugins: MakePlugins, ui: Any) -> None:
    graph = ui().node(1, "Cut", "provider*:COMBO n*:INT", "", ["CUDA", 1]).node(2, "Note").node(3, "Who")

    def answer(node: PromptNode) -> Iterable[Any]:
        return [InputChange("provider", "CPU", "no CUDA"), CannotRun("hm"), 7] if node.id == "1" else []

    _, report = to_cpu(load(graph.document(), KNOWN.signatures), make_plugins(p=Plugin(answer)), KNOWN)
    node = {"node_id": "1", "class_type": "Cut"}
    expected = {
        "ok": False,
        "changes": [{**node, "input": "provider", "old": "CUDA", "new": "CPU", "reason": "no CUDA", "plugin": "p"}],
        "cannot_run": [{**node, "reason": "hm"}],
        "unknown": [{"node_id": "3", "class_type": "Who"}],
        "dropped": [{"node_id": "2", "class_type": "Note", "reason": "note"}],
        "guessed": ["3"],
        "problems": [{**node, "plugin": "p", "problem": "it answered int, neither InputChange nor CannotRun"}],
    }
    assert report.to_json() == expected
    assert json.loads(json.dumps(report.to_json())) == expected
    assert report.dropped == (Dropped("2", "Note", "note"),)
    assert Report().to_json() == {**{key: [] for key in expected}, "ok": True}


class TestProviderToCpu:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("CUDA", "CPU"),
            ("DirectML", "CPU"),
            ("TensorRT", "CPU"),
            ("ROCm", "CPU"),
            ("CoreML", "CPU"),
            ("GPU", "CPU"),
            ("cuda", "cpu"),
            ("cuda:0", "cpu"),
            ("CUDAExecutionProvider", "CPUExecutionProvider"),
            ("DmlExecutionProvider", "CPUExecutionProvider"),
            ("TensorrtExecutionProvider", "CPUExecutionProvider"),
        ],
    )
    def test_gpu_providers(self, old: str, new: str) -> None:
        (change,) = provider_to_cpu(PromptNode("1", "A", {"provider": old}))
        assert (change.input, change.new) == ("provider", new)
        assert old.removesuffix("ExecutionProvider") in change.reason

    @pytest.mark.parametrize("value", ["CPU", "cpu", "CPUExecutionProvider", "auto", "", 1, None, ["2", 0]])
    def test_everything_else_stays(self, value: Any) -> None:
        assert list(provider_to_cpu(PromptNode("1", "A", {"provider": value}))) == []

    def test_other_inputs(self) -> None:
        node = PromptNode("1", "A", {"device": "cuda"})
        assert list(provider_to_cpu(node)) == []
        assert [change.input for change in provider_to_cpu(node, "device")] == ["device"]
