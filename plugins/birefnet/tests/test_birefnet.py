from __future__ import annotations

import pytest

import comfy_cpu_birefnet as plugin
from comfy_cpu_core.models import ModelNeed
from comfy_cpu_core.plugins import load_plugins
from comfy_cpu_core.workflow import PromptNode

CLASS = "BiRefNet_ONNX_RemoveBg"


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


@pytest.mark.parametrize("variant", ["matting", "general-huge", 7, None])
def test_a_variant_without_a_source_says_why(variant: object) -> None:
    (need,) = needs(model_variant=variant)
    assert (need.model_id, need.input, need.value) == (None, "model_variant", variant)
    assert "general, portrait, general-lite" in need.reason


def test_a_variant_from_another_node_is_not_known_yet() -> None:
    assert needs(model_variant=["3", 0]) == []


def test_other_nodes_are_not_ours() -> None:
    assert needs("BiRefNet_HR_RemoveBg", model_variant="BiRefNet_HR") == []


@pytest.mark.parametrize(
    ("class_type", "provider", "changed"),
    [(CLASS, "CUDA", {"provider": "CPU"}), (CLASS, "CPU", {}), ("SomebodyElses", "CUDA", {})],
)
def test_the_provider_becomes_the_cpu(class_type: str, provider: str, changed: dict[str, str]) -> None:
    changes = plugin.comfy_cpu_convert_node(PromptNode("17", class_type, {"provider": provider}))
    assert {change.input: change.new for change in changes} == changed


def test_the_entry_point() -> None:
    (info,) = [info for info in load_plugins({}).infos() if info.name == "birefnet"]
    assert info.state == "active"
    assert info.hooks == ("comfy_cpu_convert_node", "comfy_cpu_models", "comfy_cpu_models_for_node")
