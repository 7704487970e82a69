from __future__ import annotations

import pytest

import comfy_cpu_llama as plugin
from comfy_cpu_core.models import ModelNeed
from comfy_cpu_core.plugins import load_plugins
from comfy_cpu_core.workflow import PromptNode

Q5 = "Meta-Llama-3.1-8B-Instruct-Q5_K_M.gguf"
Q5_ID = "meta-llama-3.1-8b-instruct-q5_k_m"
WINDOWS = f"C:/Users/genfp/AI_avatar/Comfy_vanila/ComfyUI/models/llm/{Q5}"


def node(class_type: str, **inputs: object) -> PromptNode:
    return PromptNode("25", class_type, inputs)


def test_the_models() -> None:
    models = {model.id: model for model in plugin.comfy_cpu_models()}
    assert set(models) == {Q5_ID, "meta-llama-3.1-8b-instruct-q4_k_m", "llama-3.2-3b-instruct-q5_k_m"}
    (file,) = models[Q5_ID].files
    assert (file.path, file.places, file.size) == (Q5, (f"llm/{Q5}", f"LLM/{Q5}"), 5_732_992_416)
    assert models[Q5_ID].source == "hf:bartowski/Meta-Llama-3.1-8B-Instruct-GGUF"
    assert models["meta-llama-3.1-8b-instruct-q4_k_m"].size == 4_920_739_232
    assert not any(model.resolved for model in models.values()), "nobody has checked commits and hashes yet"
    assert all("licence" in model.notice for model in models.values())


@pytest.mark.parametrize(
    ("class_type", "inputs", "needs"),
    [
        ("MultiDomainSafetyClassifier", {"model_path": WINDOWS}, [ModelNeed(Q5_ID, "model_path", WINDOWS)]),
        (
            "LocalJSONExtractorLlama",
            {"model_path": WINDOWS.replace("/", "\\")},
            [ModelNeed(Q5_ID, "model_path", WINDOWS.replace("/", "\\"))],
        ),
        ("LocalLLMLoader_AdvV2", {"model": Q5}, [ModelNeed(Q5_ID, "model", Q5)]),
        ("MultiDomainSafetyClassifier", {"model_path": "/models/my-own.gguf"}, []),
        ("MultiDomainSafetyClassifier", {"model_path": ["3", 0]}, []),
        ("MultiDomainSafetyClassifier", {"model_path": ""}, []),
        ("MultiDomainSafetyClassifier", {}, []),
        ("SomebodyElses", {"model_path": WINDOWS, "": WINDOWS}, []),
    ],
)
def test_which_nodes_need_which(class_type: str, inputs: dict[str, object], needs: list[ModelNeed]) -> None:
    assert list(plugin.comfy_cpu_models_for_node(node(class_type, **inputs))) == needs


@pytest.mark.parametrize(
    ("class_type", "inputs", "changed"),
    [
        (
            "MultiDomainSafetyClassifier",
            {"model_path": WINDOWS, "n_gpu_layers": -1, "n_ctx": 4096},
            {"model_path": Q5, "n_gpu_layers": 0},
        ),
        ("LocalJSONExtractorLlama", {"model_path": f"\\\\server\\llm\\{Q5}", "n_gpu_layers": 0}, {"model_path": Q5}),
        ("LocalJSONExtractorLlama", {"model_path": f"/workspace/llm/{Q5}", "n_gpu_layers": 20},
         {"model_path": Q5, "n_gpu_layers": 0}),
        ("LocalLLMLoader_AdvV2", {"model": Q5, "n_gpu_layers": 33}, {"n_gpu_layers": 0}),
        ("LocalLLMLoader_AdvV2", {"model": f"sub/{Q5}", "n_gpu_layers": 0}, {}),
        ("MultiDomainSafetyClassifier", {"model_path": ["3", 0], "n_gpu_layers": ["4", 0]}, {}),
        ("SomebodyElses", {"model_path": WINDOWS, "n_gpu_layers": -1}, {}),
    ],
)  # fmt: skip
def test_what_changes_for_a_cpu(class_type: str, inputs: dict[str, object], changed: dict[str, object]) -> None:
    changes = list(plugin.comfy_cpu_convert_node(node(class_type, **inputs)))
    assert {change.input: change.new for change in changes} == changed
    assert all(change.reason for change in changes)


def test_the_entry_point() -> None:
    (info,) = [info for info in load_plugins({}, strict=False).infos() if info.name == "llama"]
    assert info.state == "active"
    assert info.hooks == ("comfy_cpu_convert_node", "comfy_cpu_models", "comfy_cpu_models_for_node")
