"""The two real workflows in examples/workflows, converted with and without knowing their classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_core.convert import Change, InputChange, UnknownNode, provider_to_cpu, to_cpu
from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.nodes import NodeSignature
from comfy_cpu_core.plugins import Plugins
from comfy_cpu_core.registry import NodeRegistry
from comfy_cpu_core.workflow import Dropped, PromptNode, load

SECOND = {
    "1": ("LoadImage", {"image": "d85517548420589fd6ce9c3f1a808449d46f41ce.jpg"}),
    "16": (
        "SmartResizeForModel",
        {
            "image": ["1", 0],
            "target_model": "1024 (BEN2/BiRefNet)",
            "resize_mode": "smart",
            "interpolation": "lanczos",
        },
    ),
    "4": (
        "BEN2_ONNX_RemoveBg",
        {
            "image": ["16", 0],
            "provider": "CUDA",
            "background_color": "none",
            "custom_hex_color": "#F3FFFF",
            "sensitivity": 0.7,
            "mask_blur": 0,
            "mask_offset": -1,
        },
    ),
    "5": (
        "RestoreOriginalSize",
        {
            "image": ["4", 0],
            "original_width": ["16", 1],
            "original_height": ["16", 2],
            "interpolation": "lanczos",
        },
    ),
    "6": ("FreeVRAMInline", {"image": ["5", 0], "mode": "soft", "unload_models": False}),
    "13": ("PreviewImage", {"images": ["6", 0]}),
}

RESAMPLING = ["COMBO", {"options": ["lanczos", "bicubic", "bilinear"]}]
CLASSES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "LoadImage": ({"image": [["example.png"], {"image_upload": True}]}, {}),
    "PreviewImage": ({"images": ["IMAGE"]}, {}),
    "FreeVRAMInline": ({"image": ["IMAGE"]}, {"mode": [["soft", "aggressive"]], "unload_models": ["BOOLEAN"]}),
    "SmartResizeForModel": (
        {
            "image": ["IMAGE"],
            "target_model": [["1024 (BEN2/BiRefNet)", "2048 (BiRefNet_HR)"]],
            "resize_mode": [["smart", "always_resize", "only_if_needed"]],
        },
        {"interpolation": RESAMPLING},
    ),
    "RestoreOriginalSize": (
        {"image": ["IMAGE"], "original_width": ["INT"], "original_height": ["INT"]},
        {"interpolation": RESAMPLING},
    ),
    "BEN2_ONNX_RemoveBg": (
        {"image": ["IMAGE"], "provider": [["CPU", "CUDA", "DirectML"]]},
        {
            "background_color": [["none", "white"]],
            "custom_hex_color": ["STRING"],
            "sensitivity": ["FLOAT"],
            "mask_blur": ["INT"],
            "mask_offset": ["INT"],
        },
    ),
}
OBJECT_INFO = {
    name: {"input": {"required": required, "optional": optional}, "output": ["IMAGE"]}
    for name, (required, optional) in CLASSES.items()
}


class Ben2:
    @hookimpl
    def comfy_cpu_convert_node(self, node: PromptNode) -> list[InputChange]:
        return list(provider_to_cpu(node)) if node.class_type == "BEN2_ONNX_RemoveBg" else []


@pytest.fixture
def known() -> NodeRegistry:
    return NodeRegistry(object_info=OBJECT_INFO)


def as_read(prompt: dict[str, Any]) -> dict[str, Any]:
    return {node_id: (node["class_type"], node["inputs"]) for node_id, node in prompt.items()}


@pytest.mark.parametrize("knows", [True, False], ids=["known classes", "unknown classes"])
def test_the_second(examples: Path, known: NodeRegistry, knows: bool) -> None:
    signatures = known.signatures if knows else {}
    workflow = load(examples / "BG_remove_BEN2_simple_2nd.json", signatures)
    assert as_read(workflow.to_prompt()) == SECOND
    assert list(workflow.nodes) == ["1", "16", "4", "5", "6", "13"]
    assert workflow.dropped == (Dropped("7", "SaveImageNoMetadata", "bypassed"),)
    assert set(workflow.guessed) == (set() if knows else set(SECOND))
    assert workflow.name == "BG_remove_BEN2_simple_2nd.json"


def test_the_second_for_a_cpu(examples: Path, known: NodeRegistry, make_plugins: Callable[..., Plugins]) -> None:
    workflow = load(examples / "BG_remove_BEN2_simple_2nd.json", known.signatures)
    converted, report = to_cpu(workflow, make_plugins(ben2=Ben2()), known)
    assert report.ok
    assert report.changes == (
        Change(
            node_id="4",
            class_type="BEN2_ONNX_RemoveBg",
            input="provider",
            old="CUDA",
            new="CPU",
            reason="there is no CUDA on a CPU machine: the model runs on the CPU",
            plugin="ben2",
        ),
    )
    assert workflow.nodes["4"].inputs["provider"] == "CUDA"
    assert converted.nodes["4"].inputs["provider"] == "CPU"
    # Written back, that one word is all that differs from the file.
    before = json.loads((examples / "BG_remove_BEN2_simple_2nd.json").read_text())
    after = converted.to_ui()
    node = next(node for node in after["nodes"] if node["id"] == 4)
    assert node["widgets_values"][0] == "CPU"
    node["widgets_values"][0] = "CUDA"
    assert after == before


def test_the_first(examples: Path, known: NodeRegistry, make_plugins: Callable[..., Plugins]) -> None:
    workflow = load(examples / "BG_remove_BEN2_simple_1st.json", known.signatures)
    prompt = as_read(workflow.to_prompt())
    # The names of unknown classes come from the file; the choice behind the seed is none of them.
    assert prompt["8"] == (
        "Florence2Run",
        {
            "image": ["16", 0],
            "florence2_model": ["15", 0],
            "text_input": "",
            "task": "more_detailed_caption",
            "fill_mask": True,
            "keep_model_loaded": False,
            "max_new_tokens": 512,
            "num_beams": 3,
            "do_sample": True,
            "output_mask_select": "",
            "seed": 25479647846595,
        },
    )
    assert prompt["25"][1]["caption"] == ["8", 2]
    assert prompt["25"][1]["n_gpu_layers"] == -1
    assert prompt["27"][1]["nudenet_overrides_llama"] is True
    assert prompt["4"][1]["image"] == ["27", 0]
    converted, report = to_cpu(workflow, make_plugins(ben2=Ben2()), known)
    assert not report.ok
    assert [(c.node_id, c.input, c.old, c.new) for c in report.changes] == [("4", "provider", "CUDA", "CPU")]
    assert report.unknown == (
        UnknownNode("8", "Florence2Run"),
        UnknownNode("14", "ShowText|pysssss"),
        UnknownNode("15", "Florence2ModelLoader"),
        UnknownNode("18", "ShowText|pysssss"),
        UnknownNode("25", "MultiDomainSafetyClassifier"),
        UnknownNode("26", "NudeNetSafetyChecker"),
        UnknownNode("27", "HybridSafetyGate"),
    )
    assert Dropped("7", "SaveImageNoMetadata", "bypassed") in report.dropped
    assert converted.nodes["4"].inputs["provider"] == "CPU"


def test_knowing_a_class_changes_nothing_that_was_guessed(
    examples: Path, signature: Callable[..., NodeSignature]
) -> None:
    known = {
        "Florence2Run": signature(
            "Florence2Run",
            {
                "image": ["IMAGE"],
                "florence2_model": ["FL2MODEL"],
                "text_input": ["STRING"],
                "task": [["caption", "more_detailed_caption"]],
                "fill_mask": ["BOOLEAN"],
            },
            {
                "keep_model_loaded": ["BOOLEAN"],
                "max_new_tokens": ["INT"],
                "num_beams": ["INT"],
                "do_sample": ["BOOLEAN"],
                "output_mask_select": ["STRING"],
                "seed": ["INT"],
            },
        ),
        "ShowText|pysssss": signature("ShowText|pysssss", {"text": ["STRING", {"forceInput": True}]}),
    }
    path = examples / "BG_remove_BEN2_simple_1st.json"
    assert load(path, known).to_prompt() == load(path, {}).to_prompt()
    assert [d.node_id for d in load(path, {}).dropped] == ["14", "18", "7"]
    assert [d.node_id for d in load(path, known).dropped] == ["7"]


def test_every_example_is_read_and_written_back(examples: Path) -> None:
    paths = sorted(examples.glob("*.json"))
    assert len(paths) >= 2
    for path in paths:
        document = json.loads(path.read_text())
        workflow = load(path, {})
        if workflow.source_format == "ui":
            assert workflow.to_ui() == document
        else:
            assert workflow.to_prompt() == document
