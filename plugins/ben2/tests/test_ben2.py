from __future__ import annotations

import pytest

import comfy_cpu_ben2 as plugin
from comfy_cpu_core.models import ModelNeed
from comfy_cpu_core.plugins import load_plugins
from comfy_cpu_core.workflow import PromptNode


def node(class_type: str, **inputs: object) -> PromptNode:
    return PromptNode("4", class_type, inputs)


def test_the_model() -> None:
    (model,) = plugin.comfy_cpu_models()
    assert (model.id, model.source, model.licence) == ("ben2-base", "hf:PramaLLC/BEN2", "MIT")
    (file,) = model.files
    assert (file.path, file.target, file.size) == ("BEN2_Base.onnx", "ben2_onnx/BEN2_Base.onnx", 222_932_053)
    assert not model.resolved, "nobody has checked commit and hash yet"


@pytest.mark.parametrize(
    ("class_type", "needs"),
    [
        ("BEN2_ONNX_RemoveBg", [ModelNeed("ben2-base")]),
        ("BEN2_ONNX_RawMask", [ModelNeed("ben2-base")]),
        ("BiRefNet_ONNX_RemoveBg", []),
    ],
)
def test_which_nodes_need_it(class_type: str, needs: list[ModelNeed]) -> None:
    assert list(plugin.comfy_cpu_models_for_node(node(class_type, provider="CUDA"))) == needs


@pytest.mark.parametrize(
    ("class_type", "provider", "changed"),
    [
        ("BEN2_ONNX_RemoveBg", "CUDA", {"provider": "CPU"}),
        ("BEN2_ONNX_RemoveBg", "DirectML", {"provider": "CPU"}),
        ("BEN2_ONNX_RemoveBg", "CPU", {}),
        ("SomebodyElses", "CUDA", {}),
    ],
)
def test_the_provider_becomes_the_cpu(class_type: str, provider: str, changed: dict[str, str]) -> None:
    changes = list(plugin.comfy_cpu_convert_node(node(class_type, provider=provider)))
    assert {change.input: change.new for change in changes} == changed
    assert all(provider in change.reason for change in changes)


def test_a_node_without_a_provider_stays_as_it_is() -> None:
    assert list(plugin.comfy_cpu_convert_node(node("BEN2_ONNX_RawMask", image=["1", 0]))) == []


def test_the_entry_point() -> None:
    (info,) = [info for info in load_plugins({}, strict=False).infos() if info.name == "ben2"]
    assert info.state == "active"
    assert info.hooks == ("comfy_cpu_convert_node", "comfy_cpu_models", "comfy_cpu_models_for_node")
