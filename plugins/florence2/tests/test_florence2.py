from __future__ import annotations

import dataclasses

import pytest

import comfy_cpu_florence2 as plugin
from comfy_cpu_core.models import ModelNeed
from comfy_cpu_core.plugins import load_plugins
from comfy_cpu_core.resources import get_resources
from comfy_cpu_core.workflow import PromptNode

LOADERS = ("Florence2ModelLoader", "DownloadAndLoadFlorence2Model")


def node(class_type: str, **inputs: object) -> PromptNode:
    return PromptNode("15", class_type, inputs)


def needs(class_type: str, model: object) -> list[ModelNeed]:
    return list(plugin.comfy_cpu_models_for_node(node(class_type, model=model)))


def test_the_models() -> None:
    models = {model.id: model for model in plugin.comfy_cpu_models()}
    assert {model_id: model.source for model_id, model in models.items()} == {
        "florence-2-base": "hf:florence-community/Florence-2-base",
        "florence-2-base-ft": "hf:florence-community/Florence-2-base-ft",
        "florence-2-large": "hf:florence-community/Florence-2-large",
        "florence-2-large-ft": "hf:florence-community/Florence-2-large-ft",
        "florence-2-pixelprose": "hf:NikshepShetty/Florence-2-pixelprose",
    }
    assert {file.target for file in models["florence-2-large-ft"].files} == {
        "LLM/Florence-2-large-ft/config.json",
        "LLM/Florence-2-large-ft/tokenizer.json",
        "LLM/Florence-2-large-ft/model.safetensors",
    }
    assert {models[f"florence-2-{name}"].licence for name in ("base", "base-ft", "large", "large-ft")} == {"MIT"}
    assert not any(model.resolved for model in models.values()), "nobody has checked commits and hashes yet"
    assert not any(file.path.endswith((".bin", ".py")) for model in models.values() for file in model.files)


@pytest.mark.parametrize(
    "named", ["Florence-2-base", "microsoft/Florence-2-base", "florence-community/Florence-2-base"]
)
def test_a_model_is_known_by_the_last_part_of_its_name(named: str) -> None:
    assert needs("Florence2ModelLoader", named) == [ModelNeed("florence-2-base", "model", named)]
    assert needs("DownloadAndLoadFlorence2Model", named) == [
        ModelNeed("florence-2-base", "model", named, fetched_by_node=True)
    ]


def test_the_adapter() -> None:
    named = "NikshepShetty/Florence-2-pixelprose"
    assert needs("DownloadAndLoadFlorence2Lora", named) == [
        ModelNeed("florence-2-pixelprose", "model", named, fetched_by_node=True)
    ]
    assert needs("Florence2ModelLoader", named) == [], "it is no model"


@pytest.mark.parametrize("class_type", LOADERS)
def test_a_fine_tune_is_met_by_weights_that_the_user_supplies(class_type: str) -> None:
    (need,) = needs(class_type, "MiaoshouAI/Florence-2-base-PromptGen-v2.0")
    assert need.model_id is None
    assert need.target == "LLM/Florence-2-base-PromptGen-v2.0/model.safetensors"
    assert "Python code" in need.reason
    assert "LLM/Florence-2-base-PromptGen-v2.0" in need.reason


@pytest.mark.parametrize(
    ("class_type", "model"),
    [("Florence2ModelLoader", "my-own"), ("Florence2ModelLoader", ["3", 0]), ("Florence2Run", "Florence-2-base")],
)
def test_nothing_is_known_of_other_models_and_nodes(class_type: str, model: object) -> None:
    assert needs(class_type, model) == []


@pytest.mark.parametrize("class_type", LOADERS)
@pytest.mark.parametrize(
    ("bf16", "precision", "attention", "changed"),
    [
        (True, "fp16", "sdpa", {"precision": "bf16"}),
        (False, "fp16", "eager", {"precision": "fp32"}),
        (True, "bf16", "flash_attention_2", {"attention": "sdpa"}),
        (False, "bf16", "sdpa", {"precision": "fp32"}),
        (True, "fp32", "sdpa", {}),
    ],
)
def test_what_changes_for_a_cpu(
    class_type: str,
    bf16: bool,
    precision: str,
    attention: str,
    changed: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sets = frozenset({"avx2", "avx512_bf16"} if bf16 else {"avx2"})
    found = dataclasses.replace(get_resources(), instruction_sets=sets)
    monkeypatch.setattr("comfy_cpu_core.resources.get_resources", lambda: found)
    changes = list(plugin.comfy_cpu_convert_node(node(class_type, precision=precision, attention=attention)))
    assert {change.input: change.new for change in changes} == changed
    assert all(change.reason for change in changes)


def test_other_nodes_stay_as_they_are() -> None:
    assert list(plugin.comfy_cpu_convert_node(node("SomebodyElses", precision="fp16"))) == []


def test_the_entry_point() -> None:
    (info,) = [info for info in load_plugins({}, strict=False).infos() if info.name == "florence2"]
    assert info.state == "active"
    assert info.hooks == ("comfy_cpu_convert_node", "comfy_cpu_models", "comfy_cpu_models_for_node")
