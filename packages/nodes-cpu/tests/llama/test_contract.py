"""The interfaces of the language model's nodes and of the gates, written out by hand."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from comfy_cpu_core.nodes import NodeSignature
from comfy_cpu_nodes.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, NODES

REQ, OPT = "required", "optional"
Input = tuple[str, str, Any, dict[str, Any]]


def text(section: str, name: str) -> Input:
    return section, name, "STRING", {"forceInput": True}


def switch(name: str, default: bool) -> Input:
    return OPT, name, "BOOLEAN", {"default": default}


def whole(section: str, name: str, default: int, low: int, high: int, step: int | None = None) -> Input:
    return section, name, "INT", {"default": default, "min": low, "max": high, **({"step": step} if step else {})}


def share(section: str, name: str, default: float, low: float, high: float, step: float) -> Input:
    return section, name, "FLOAT", {"default": default, "min": low, "max": high, "step": step}


IMAGE: Input = (REQ, "image", "IMAGE", {})
CAPTION: Input = (REQ, "caption", "STRING", {"multiline": True})
MODEL_PATH: Input = (REQ, "model_path", "STRING", {})
TEMPERATURE = share(OPT, "temperature", 0.1, 0, 1, 0.05)
N_CTX = whole(OPT, "n_ctx", 4096, 1024, 8192, 256)
N_GPU_LAYERS = whole(OPT, "n_gpu_layers", -1, -1, 80)
STOPS = [switch("stop_on_nsfw", True), switch("stop_on_violence", True)]
BLOCKS = [switch("block_unsafe", True), switch("block_borderline", False)]
FACTS = [("primary_subject", "STRING"), ("secondary_subjects_text", "STRING"), ("nsfw", "BOOLEAN")]
FACTS += [("violence", "BOOLEAN")]
PASSED = [("image", "IMAGE"), ("status", "STRING")]

# class_type: FUNCTION, inputs in order, outputs.
CONTRACT: dict[str, tuple[str, list[Input], list[tuple[str, str]]]] = {
    "MultiDomainSafetyClassifier": (
        "classify",
        [CAPTION, MODEL_PATH, TEMPERATURE, whole(OPT, "max_new_tokens", 300, 64, 1024, 16), N_CTX, N_GPU_LAYERS],
        [("json", "STRING")],
    ),
    "LocalJSONExtractorLlama": (
        "run",
        [
            CAPTION,
            MODEL_PATH,
            (REQ, "subject_priority", ["auto", "product", "person"], {"default": "product"}),
            TEMPERATURE,
            whole(OPT, "max_new_tokens", 192, 32, 1024, 16),
            N_CTX,
            N_GPU_LAYERS,
            whole(OPT, "seed", 0, 0, 2**31 - 1),
        ],
        [("json", "STRING")],
    ),
    "LLMJSONParser": ("parse_json", [text(REQ, "json_string")], FACTS),
    "LLMSafetyGate": (
        "check_safety",
        [
            text(REQ, "primary_subject"),
            (OPT, "nsfw", "BOOLEAN", {"default": False, "forceInput": True}),
            (OPT, "violence", "BOOLEAN", {"default": False, "forceInput": True}),
            *STOPS,
        ],
        [("safe_subject", "STRING")],
    ),
    "LLMSafetyGateJSON": ("check_safety_json", [text(REQ, "json_string"), *STOPS], FACTS),
    "ImageSafetyGate": (
        "check_image_safety",
        [IMAGE, text(REQ, "json_string"), *STOPS],
        [("image", "IMAGE"), FACTS[0], *FACTS[2:]],
    ),
    "HybridSafetyGate": (
        "check_hybrid",
        [
            IMAGE,
            text(REQ, "nudenet_json"),
            text(REQ, "multidomain_json"),
            *BLOCKS,
            switch("nudenet_overrides_llama", True),
        ],
        PASSED,
    ),
    "MultiDomainSafetyGate": (
        "check_and_gate",
        [
            IMAGE,
            text(REQ, "classification_json"),
            *BLOCKS,
            *[switch(f"check_{name}", True) for name in ("sexual", "violence", "hate", "disturbing", "drugs")],
        ],
        PASSED,
    ),
    "LocalLLMLoader_AdvV2": (
        "load",
        [
            (REQ, "model", ["Meta-Llama-3.1-8B-Instruct-Q5_K_M.gguf"], {}),
            whole(REQ, "n_ctx", 4096, 256, 131072, 256),
            (REQ, *N_GPU_LAYERS[1:]),
            whole(REQ, "n_threads", 0, 0, 256, 1),
        ],
        [("llm", "LLM")],
    ),
    "LocalLLMGenerate": (
        "generate",
        [
            (REQ, "llm", "LLM", {}),
            (REQ, "prompt", "STRING", {"multiline": True}),
            (OPT, "system_prompt", "STRING", {"default": "You are a helpful assistant.", "multiline": True}),
            whole(OPT, "max_new_tokens", 256, 1, 8192),
            share(OPT, "temperature", 0.7, 0, 2, 0.05),
            whole(OPT, "top_k", 40, 0, 1000),
            share(OPT, "top_p", 0.95, 0, 1, 0.01),
            share(OPT, "min_p", 0.05, 0, 1, 0.01),
            share(OPT, "repeat_penalty", 1.1, 0, 2, 0.05),
            (OPT, "seed", "INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}),
        ],
        [("text", "STRING")],
    ),
}


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("class_type", CONTRACT)
class TestInterface:
    def test_inputs_and_outputs(self, class_type: str) -> None:
        function, inputs, outputs = CONTRACT[class_type]
        node: Any = NODE_CLASS_MAPPINGS[class_type]
        assert function == node.FUNCTION
        assert not getattr(node, "OUTPUT_NODE", False)
        signature = NodeSignature.from_class(class_type, node)
        assert list(zip(signature.output_names, signature.outputs, strict=True)) == outputs
        declared = [
            (section, name, spec[0], spec[1])
            for section, specs in node.INPUT_TYPES().items()
            for name, spec in specs.items()
        ]
        assert [(section, name) for section, name, *_ in declared] == [(section, name) for section, name, *_ in inputs]
        for (_, name, found_kind, found), (_, _, kind, options) in zip(declared, inputs, strict=True):
            assert found_kind == kind, name
            assert {key: found.get(key) for key in options} == options, name
            assert found.get("multiline", False) == options.get("multiline", False), name
            assert found.get("forceInput", False) == options.get("forceInput", False), name
            assert found["tooltip"], name

    def test_the_function_takes_them_with_their_defaults(self, class_type: str) -> None:
        node: Any = NODE_CLASS_MAPPINGS[class_type]
        parameters = inspect.signature(getattr(node, node.FUNCTION)).parameters
        signature = NodeSignature.from_class(class_type, node)
        assert [name for name in parameters if name != "self"] == [spec.name for spec in signature.inputs]
        for spec in signature.inputs:
            if spec.section == "optional":
                assert parameters[spec.name].default == (spec.default if spec.is_widget else None), spec.name

    def test_a_person_is_told_what_it_is(self, class_type: str) -> None:
        node: Any = NODE_CLASS_MAPPINGS[class_type]
        assert node.CATEGORY.startswith("LLM/Local")
        assert node.DESCRIPTION.endswith(".")
        assert NODE_DISPLAY_NAME_MAPPINGS[class_type]
        (listed,) = [listed for listed in NODES if listed.class_type == class_type]
        assert listed.summary
        assert ("llama-cpp-python" in listed.requires) == (node.__module__ == "comfy_cpu_nodes.nodes.llama")
