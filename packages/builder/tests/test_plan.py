from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_builder.plan import Answers, Distribution, KnownClass, Plan, choose_target, make_plan
from comfy_cpu_builder.spec import ImageSpec, WorkerBaseSettings, spec_for_workflows
from comfy_cpu_builder.workflows import PlannedWorkflow
from comfy_cpu_core.convert import Report, UnknownNode
from comfy_cpu_core.errors import BuildError, UsageError, WorkflowError
from comfy_cpu_core.image import ImageStep, NodePack, StartPart
from comfy_cpu_core.workflow import PromptNode

CORE = Distribution("comfy-cpu-core", "0.1.0")
SMALL = Distribution("comfy-cpu-plugin-small", "2.0")
PACK = NodePack(
    "TheirPack", "https://git.example/them/pack", frozenset({"TheirNode"}), "MIT", requirements=("scipy>=1",),
    apt=("libgl1",),
)  # fmt: skip


def spec(**fields: Any) -> ImageSpec:
    return replace(spec_for_workflows([Path("cutout.json")]), **fields)


def workflow(*class_types: str) -> PlannedWorkflow:
    nodes = {str(n): PromptNode(str(n), name, {}) for n, name in enumerate(class_types, 1)}
    return PlannedWorkflow("cutout", nodes)


def answers(**fields: Any) -> Answers:
    known = {
        "classes": {"SmallNode": KnownClass(SMALL, ("openvino", "onnx")), "Core": KnownClass(CORE)},
        "distributions": {},
        "needs": (),
        "models": {},
        "core": CORE,
    }
    return Answers(**{**known, **fields})


def plan(target: str = "engine", *class_types: str, wanted: ImageSpec | None = None, **said: Any) -> Plan:
    return make_plan(wanted or spec(), target, [workflow(*(class_types or ("SmallNode",)))], answers(**said))


def step(name: str, **fields: Any) -> ImageStep:
    return ImageStep(name=name, **fields)


def test_the_engine_gets_the_worker_and_who_brings_the_nodes() -> None:
    made = plan(distributions={"other": Distribution("comfy-cpu-plugin-other", "3")})
    assert made.requirements == (
        "comfy-cpu-core==0.1.0",
        "comfy-cpu-plugin-other==3",
        "comfy-cpu-plugin-small[openvino]==2.0",
        "comfy-cpu-worker[runpod]==0.1.0",
    )
    assert made.base == "python:3.11-slim-bookworm"
    assert made.index_urls == ()


def test_a_comfyui_gets_nodes_and_torch_for_cpus() -> None:
    made = plan("comfyui")
    assert "comfy-cpu-nodes==0.1.0" in made.requirements
    assert "comfy-cpu-worker[comfyui,runpod]==0.1.0" in made.requirements
    assert made.index_urls == ("https://download.pytorch.org/whl/cpu",)
    assert made.comfyui is not None
    assert made.worker_comfyui is None


def test_the_workers_base_keeps_its_handler_unless_ours_is_asked_for() -> None:
    made = plan("worker-comfyui")
    assert made.base == "runpod/worker-comfyui:5.4.1-base"
    assert not any("comfy-cpu-worker" in text for text in made.requirements)
    assert sorted(text for text in made.requirements if text.startswith("torch")) == [
        f"{name}=={number}+cpu"
        for name, number in zip(("torch", "torchaudio", "torchvision"), _sorted_torch(), strict=True)
    ]
    ours = plan("worker-comfyui", wanted=spec(worker_comfyui=WorkerBaseSettings(handler="comfy-cpu")))
    assert any(text.startswith("comfy-cpu-worker[comfyui") for text in ours.requirements)


def _sorted_torch() -> tuple[str, str, str]:
    torch, vision, audio = WorkerBaseSettings().torch
    return torch, audio, vision


def test_the_target_follows_from_the_nodes() -> None:
    known = workflow("SmallNode")
    strange = replace(known, report=Report(unknown=(UnknownNode("1", "TheirNode"),)))
    assert choose_target(spec(), [known]) == "engine"
    assert choose_target(spec(), [known, strange]) == "comfyui"
    assert choose_target(spec(target="worker-comfyui"), [strange]) == "worker-comfyui"


def test_a_class_that_the_engine_does_not_know() -> None:
    with pytest.raises(WorkflowError) as caught:
        plan("engine", "SmallNode", "TheirNode", packs=(("them", PACK),))
    assert str(caught.value) == "cutout: node 2 (TheirNode): the engine does not know this class"
    assert caught.value.node_id == "2"


def test_a_class_that_nothing_brings() -> None:
    with pytest.raises(WorkflowError, match=r"node 1 \(Nobody\): no plugin and no node pack brings this class"):
        plan("comfyui", "Nobody", packs=(("them", PACK),))


def test_a_node_pack_comes_with_what_it_needs_and_only_where_it_is_needed() -> None:
    made = plan("comfyui", "TheirNode", packs=(("them", PACK),))
    assert made.node_packs == (PACK,)
    assert "scipy>=1" in made.requirements
    assert made.apt == ("libgl1",)
    assert plan("comfyui", packs=(("them", PACK),)).node_packs == ()
    assert (
        plan("comfyui", "TheirNode", packs=(("them", PACK),), comfyui_classes=frozenset({"TheirNode"})).node_packs == ()
    )


def test_the_specs_node_pack_goes_before_a_plugins() -> None:
    own = replace(PACK, source="https://git.example/me/fork")
    made = plan("comfyui", "TheirNode", wanted=spec(node_packs=(own,)), packs=(("them", PACK),))
    assert made.node_packs == (own,)
    other = replace(PACK, name="Fork", source="https://git.example/me/fork")
    assert plan("comfyui", "TheirNode", wanted=spec(node_packs=(other,)), packs=(("them", PACK),)).node_packs == (
        other,
    )


def test_two_plugins_that_bring_the_same_class() -> None:
    other = replace(PACK, name="Fork")
    with pytest.raises(UsageError, match=r"'Fork' \(of b\) and 'TheirPack' \(of a\) both bring 'TheirNode'"):
        plan("comfyui", "TheirNode", packs=(("a", PACK), ("b", other)))


def test_image_steps_come_in_the_order_of_their_names() -> None:
    first = step("a", commands=(("one",),), apt=("libz",), environment={"A": "1"}, requirements=("scipy >=1",))
    second = step(
        "b", commands=(("two",),), apt=("liba1", "libz"), files={"/opt/x": "x"}, index_urls=("https://i.example/s",)
    )
    made = plan(steps=(("p", second), ("q", first)))
    assert made.commands == (("one",), ("two",))
    assert made.apt == ("liba1", "libz")
    assert (made.environment, made.files) == ({"A": "1"}, {"/opt/x": "x"})
    assert made.index_urls == ("https://i.example/s",)
    assert "scipy>=1" in made.requirements


def test_the_specs_variables_go_before_a_plugins() -> None:
    made = plan(wanted=spec(environment={"A": "mine"}), steps=(("p", step("a", environment={"A": "1", "B": "2"})),))
    assert made.environment == {"A": "mine", "B": "2"}


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"steps": (("p", step("a")), ("q", step("a")))}, "plugins 'p' and 'q' both bring the image step 'a'"),
        (
            {"steps": (("p", step("a", environment={"V": "1"})), ("q", step("b", environment={"V": "2"})))},
            "plugins 'p' and 'q' set the variable V to different values",
        ),
        (
            {"steps": (("p", step("a", files={"/f": "1"})), ("q", step("b", files={"/f": "2"})))},
            "plugins 'p' and 'q' set the file /f to different values",
        ),
        (
            {
                "start": (
                    ("p", StartPart("a", environment={"V": "1"})),
                    ("q", StartPart("b", environment={"V": "2"})),
                )
            },
            "plugins 'p' and 'q' set the start variable V to different values",
        ),
    ],
)
def test_plugins_that_contradict_each_other_are_named(said: Mapping[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        plan(**said)
    assert "COMFY_CPU_DISABLED_PLUGINS" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"apt": ("libz; reboot",)}, "'libz; reboot' is no Debian package"),
        ({"index_urls": ("https://x.example/$(id)",)}, "is no URL of an index"),
        ({"files": {"/opt/../etc/passwd": ""}}, "is no path that a step may write"),
        ({"files": {"relative": ""}}, "is no path that a step may write"),
        ({"files": {"/start.sh": ""}}, "is no path that a step may write"),
        ({"commands": (("echo", "a\nRUN reboot"),)}, "is no command of printable arguments"),
        ({"commands": ((),)}, "is no command of printable arguments"),
        ({"requirements": ("numpy; reboot",)}, "'numpy; reboot' is no requirement"),
    ],
)
def test_what_cannot_stand_in_a_dockerfile_is_refused(fields: Mapping[str, Any], problem: str) -> None:
    with pytest.raises(BuildError, match=r"plugin 'p', image step 'a': ") as caught:
        plan(steps=(("p", step("a", **fields)),))
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"apt": ("libz\nRUN reboot",)}, "is no Debian package"),
        ({"requirements": ("not a requirement",)}, "'not a requirement' is no requirement"),
    ],
)
def test_a_plugins_node_pack_is_held_to_the_same(fields: Mapping[str, Any], problem: str) -> None:
    with pytest.raises(BuildError) as caught:
        plan("comfyui", "TheirNode", packs=(("them", replace(PACK, **fields)),))
    assert str(caught.value).startswith("node pack 'TheirPack': ")
    assert problem in str(caught.value)


def test_a_plan_is_json_and_the_same_for_the_same_answers() -> None:
    first, second = (plan("comfyui", "TheirNode", "SmallNode", packs=(("them", PACK),)) for _ in range(2))
    assert json.dumps(first.to_json()) == json.dumps(second.to_json())
    assert first.class_types == {"TheirNode", "SmallNode"}
