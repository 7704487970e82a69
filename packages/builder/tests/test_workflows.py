"""Workflows on their way into an image: converted, or refused with the node and the reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pluggy
import pytest

from comfy_cpu_builder.spec import SpecWorkflow
from comfy_cpu_builder.workflows import PlannedWorkflow, plan_workflow
from comfy_cpu_core import hookspecs
from comfy_cpu_core.convert import CannotRun, InputChange
from comfy_cpu_core.errors import ComfyCpuError, WorkflowError
from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.plugins import PluginInfo, Plugins
from comfy_cpu_core.registry import NodeRegistry
from comfy_cpu_core.workflow import PromptNode

PROMPT = {
    "1": {"class_type": "LoadPicture", "inputs": {"image": "photo.png"}},
    "2": {"class_type": "Cut", "inputs": {"image": ["1", 0], "provider": "CUDA"}},
}
REGISTRY = NodeRegistry(
    object_info={
        "LoadPicture": {"input": {"required": {"image": [["photo.png"], {"image_upload": True}]}}},
        "Cut": {"input": {"required": {"image": ["IMAGE"], "provider": [["CPU", "CUDA"]]}}},
    }
)

Answer = Callable[[PromptNode], Iterable[Any]]


def plugins(answer: Answer) -> Plugins:
    class Plugin:
        @hookimpl
        def comfy_cpu_convert_node(self, node: PromptNode) -> Iterable[Any]:
            return answer(node)

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(Plugin(), name="small")
    return Plugins(manager, [PluginInfo("small", "small", "1", (), "active")])


def to_cpu(node: PromptNode) -> Iterable[Any]:
    return [InputChange("provider", "CPU", "no GPU here")] if node.class_type == "Cut" else []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cutout.json"
    path.write_text(json.dumps(PROMPT))
    return path


def planned(path: Path, answer: Answer = to_cpu, **fields: Mapping[str, Any]) -> PlannedWorkflow:
    return plan_workflow(SpecWorkflow(path=path, name="cutout", **fields), plugins(answer), REGISTRY)


def test_it_is_baked_as_it_runs_on_a_cpu(path: Path) -> None:
    workflow = planned(path)
    baked = json.loads(workflow.text)
    assert baked["2"]["inputs"] == {"image": ["1", 0], "provider": "CPU"}
    assert workflow.sha256 == hashlib.sha256(workflow.text.encode()).hexdigest()
    assert workflow.class_types == {"LoadPicture", "Cut"}
    assert [(change.node_id, change.old, change.new) for change in workflow.report.changes] == [("2", "CUDA", "CPU")]


def test_what_takes_a_picture_is_known(path: Path) -> None:
    assert planned(path).uploads == ("1.image",)


def test_values_of_the_verifying_run_are_not_baked(path: Path) -> None:
    workflow = planned(path, inputs={"1.image": Path("other.png")}, values={"2.provider": "CPU"})
    assert json.loads(workflow.text)["1"]["inputs"] == {"image": "photo.png"}
    assert workflow.inputs == {"1.image": Path("other.png")}
    assert workflow.values == {"2.provider": "CPU"}


def test_a_node_that_cannot_run_on_a_cpu_is_named_with_the_reason(path: Path) -> None:
    def refuse(node: PromptNode) -> Iterable[Any]:
        return [CannotRun("it is built for TensorRT")] if node.class_type == "Cut" else []

    with pytest.raises(WorkflowError) as caught:
        planned(path, refuse)
    assert str(caught.value) == "cutout.json: node 2 (Cut) cannot run on a CPU: it is built for TensorRT"
    assert caught.value.node_id == "2"


def test_a_plugin_that_fails_is_named_with_the_node(path: Path) -> None:
    def fail(node: PromptNode) -> Iterable[Any]:
        raise RuntimeError("boom")

    with pytest.raises(WorkflowError, match=r"cutout\.json: plugin 'small' failed at node 1 \(LoadPicture\): .*boom"):
        planned(path, fail)


@pytest.mark.parametrize("fields", [{"values": {"9.x": 1}}, {"inputs": {"9.image": Path("x.png")}}])
def test_a_value_for_a_node_that_is_not_there(fields: Mapping[str, Any], path: Path) -> None:
    with pytest.raises(ComfyCpuError, match="9"):
        planned(path, **fields)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"1": 5}'])
def test_what_is_no_workflow(text: str, path: Path) -> None:
    path.write_text(text)
    with pytest.raises(WorkflowError):
        planned(path)
