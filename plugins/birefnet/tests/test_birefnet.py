from __future__ import annotations

import pytest

import comfy_cpu_birefnet as plugin
from comfy_cpu_core.models import ModelNeed
from comfy_cpu_core.plugins import load_plugins
from comfy_cpu_core.workflow import PromptNode

CLASS = "BiRefNet_ONNX_RemoveBg"
HR = "BiRefNet_HR_RemoveBg"


def needs(class_type: str = CLASS, **inputs: object) -> list[ModelNeed]:
    return list(plugin.comfy_cpu_models_for_node(PromptNode("17", class_type, inputs)))


def test_the_models() -> None:
    models = {model.id: model for model in plugin.comfy_cpu_models()}
    assert {name: (model.source, model.files[0].target) for name, model in models.items()} == {
        "birefnet-general": ("hf:onnx-community/BiRefNet-ONNX", "birefnet_onnx/BiRefNet-general.onnx"),
        "birefnet-portrait": ("hf:onnx-community/BiRefNet-portrait-ONNX", "birefnet_onnx/BiRefNet-portrait.onnx"),
        "birefnet-general-lite": ("hf:onnx-community/BiRefNet_lite-ONNX", "birefnet_onnx/BiRefNet-general-lite.onnx"),
    }
    assert {model.licence for model in models.values()} == {"MIT"}
    assert {model.files[0].path for model in models.values()} == {"onnx/model.onnx"}
    assert not any(model.resolved for model in models.values())


@pytest.mark.parametrize("variant", ["general", "portrait", "general-lite"])
def test_a_variant_with_a_source(variant: str) -> None:
    assert needs(model_variant=variant) == [ModelNeed(f"birefnet-{variant}", "model_variant", variant)]


def test_without_a_variant_the_default_counts() -> None:
    assert needs() == [ModelNeed("birefnet-general", "model_variant", "general")]
    assert [need.target for need in needs(HR)] == ["birefnet_hr/BiRefNet_HR.onnx"]


@pytest.mark.parametrize(
    ("class_type", "variant", "target", "says"),
    [
        (CLASS, "matting", "birefnet_onnx/BiRefNet-matting.onnx", "general, portrait, general-lite"),
        (HR, "BiRefNet_HR", "birefnet_hr/BiRefNet_HR.onnx", "never run"),
        (HR, "BiRefNet_HR-matting", "birefnet_hr/BiRefNet_HR-matting.onnx", "never run"),
    ],
)
def test_a_variant_without_a_source_is_met_by_the_users_file(
    class_type: str, variant: str, target: str, says: str
) -> None:
    (need,) = needs(class_type, model_variant=variant)
    assert (need.model_id, need.input, need.value, need.target) == (None, "model_variant", variant, target)
    assert says in need.reason


@pytest.mark.parametrize(
    ("class_type", "variant"),
    [(CLASS, "general-huge"), (CLASS, "BiRefNet_HR"), (CLASS, 7), (CLASS, None), (HR, "general"), (HR, "../x")],
)
def test_a_variant_that_does_not_exist_says_so(class_type: str, variant: object) -> None:
    (need,) = needs(class_type, model_variant=variant)
    assert (need.model_id, need.input, need.value, need.target) == (None, "model_variant", variant, None)
    assert "no such variant" in need.reason


@pytest.mark.parametrize("class_type", [CLASS, HR])
def test_a_variant_from_another_node_is_not_known_yet(class_type: str) -> None:
    assert needs(class_type, model_variant=["3", 0]) == []


def test_other_nodes_are_not_ours() -> None:
    assert needs("BEN2_ONNX_RemoveBg", model_variant="BiRefNet_HR") == []


@pytest.mark.parametrize(
    ("class_type", "provider", "changed"),
    [(CLASS, "CUDA", {"provider": "CPU"}), (CLASS, "CPU", {}), ("SomebodyElses", "CUDA", {})],
)
def test_the_provider_becomes_the_cpu(class_type: str, provider: str, changed: dict[str, str]) -> None:
    changes = plugin.comfy_cpu_convert_node(PromptNode("17", class_type, {"provider": provider}))
    assert {change.input: change.new for change in changes} == changed


@pytest.mark.parametrize(
    ("class_type", "inputs", "changed"),
    [
        (HR, {"use_fp16": True}, {"use_fp16": False}),
        (HR, {"use_fp16": False}, {}),
        (HR, {}, {}),
        (HR, {"use_fp16": ["3", 0]}, {}),
        (CLASS, {"use_fp16": True}, {}),
    ],
)
def test_half_precision_is_switched_off(class_type: str, inputs: dict[str, object], changed: dict[str, bool]) -> None:
    changes = list(plugin.comfy_cpu_convert_node(PromptNode("17", class_type, inputs)))
    assert {change.input: change.new for change in changes} == changed
    assert all("float16" in change.reason for change in changes)


def test_the_entry_point() -> None:
    (info,) = [info for info in load_plugins({}).infos() if info.name == "birefnet"]
    assert info.state == "active"
    assert info.hooks == ("comfy_cpu_convert_node", "comfy_cpu_models", "comfy_cpu_models_for_node")
