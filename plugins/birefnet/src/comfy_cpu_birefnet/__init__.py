"""BiRefNet for comfy-cpu: where its weights come from, which nodes need them, what changes for a CPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.models import ModelFile, ModelNeed, ModelSpec

if TYPE_CHECKING:
    from comfy_cpu_core.convert import CannotRun, InputChange
    from comfy_cpu_core.workflow import PromptNode

_CLASS = "BiRefNet_ONNX_RemoveBg"
_DEFAULT_VARIANT = "general"

# Variant, as the node's input `model_variant` names it, and the repository with its ONNX export.
_REPOSITORIES = {
    "general": "onnx-community/BiRefNet-ONNX",
    "portrait": "onnx-community/BiRefNet-portrait-ONNX",
    "general-lite": "onnx-community/BiRefNet_lite-ONNX",
}

_MODELS = {
    variant: ModelSpec(
        id=f"birefnet-{variant}",
        source=f"hf:{repository}",
        licence="MIT",
        files=(ModelFile("onnx/model.onnx", f"birefnet_onnx/BiRefNet-{variant}.onnx"),),
    )
    for variant, repository in _REPOSITORIES.items()
}


@hookimpl
def comfy_cpu_models() -> Iterable[ModelSpec]:
    """The variants that have an ONNX export of known origin."""
    return _MODELS.values()


@hookimpl
def comfy_cpu_models_for_node(node: PromptNode) -> Iterable[ModelNeed]:
    """The variant that the node names."""
    if node.class_type != _CLASS:
        return []
    from comfy_cpu_core.workflow import is_link

    variant = node.inputs.get("model_variant", _DEFAULT_VARIANT)
    if is_link(variant):  # known only when the workflow runs
        return []
    model = _MODELS.get(variant) if isinstance(variant, str) else None
    if model is not None:
        return [ModelNeed(model.id, "model_variant", variant)]
    reason = f"there is no ONNX export of known origin for it; choose one of {', '.join(_MODELS)}"
    return [ModelNeed(None, "model_variant", variant, reason)]


@hookimpl
def comfy_cpu_convert_node(node: PromptNode) -> Iterable[InputChange | CannotRun]:
    """The execution provider becomes the CPU."""
    if node.class_type != _CLASS:
        return []
    from comfy_cpu_core.convert import provider_to_cpu

    return provider_to_cpu(node)
