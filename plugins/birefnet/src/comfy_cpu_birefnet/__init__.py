"""BiRefNet for comfy-cpu: where its weights come from, which nodes need them, what changes for a CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.models import ModelFile, ModelNeed, ModelSpec

if TYPE_CHECKING:
    from comfy_cpu_core.convert import CannotRun, InputChange
    from comfy_cpu_core.workflow import PromptNode

_CLASS = "BiRefNet_ONNX_RemoveBg"
_HR_CLASS = "BiRefNet_HR_RemoveBg"

# What the nodes' input `model_variant` may be; the first is the default.
_VARIANTS = ("general", "portrait", "general-lite", "matting")
_HR_VARIANTS = ("BiRefNet_HR", "BiRefNet_HR-matting")

# Variant, and the repository with its ONNX export. None of known origin is there for `matting`.
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
    """The variant that the node names; for those without a source, the file that the user can supply."""
    if node.class_type == _CLASS:
        return _needs(node, _VARIANTS)
    if node.class_type == _HR_CLASS:
        return _needs(node, _HR_VARIANTS)
    return []


@hookimpl
def comfy_cpu_convert_node(node: PromptNode) -> Iterable[InputChange | CannotRun]:
    """The execution provider becomes the CPU; half precision, which a CPU is slow in, is switched off."""
    if node.class_type == _CLASS:
        from comfy_cpu_core.convert import provider_to_cpu

        return provider_to_cpu(node)
    if node.class_type == _HR_CLASS and node.widget("use_fp16") is True:
        from comfy_cpu_core.convert import InputChange

        return [InputChange("use_fp16", False, "a CPU does not compute in float16: the node chooses what suits it")]
    return []


def _needs(node: PromptNode, variants: tuple[str, ...]) -> Iterator[ModelNeed]:
    from comfy_cpu_core.workflow import is_link

    variant = node.inputs.get("model_variant", variants[0])
    if is_link(variant):  # known only when the workflow runs
        return
    if not isinstance(variant, str) or variant not in variants:
        reason = f"there is no such variant; choose one of {', '.join(variants)}"
        yield ModelNeed(None, "model_variant", variant, reason)
    elif variant in _MODELS:
        yield ModelNeed(_MODELS[variant].id, "model_variant", variant)
    elif variant in _HR_VARIANTS:
        reason = (
            f"export {variant} to ONNX and put it there; its PyTorch files need Python code that comes with them, and "
            "code out of a model is never run"
        )
        yield ModelNeed(None, "model_variant", variant, reason, f"birefnet_hr/{variant}.onnx")
    else:
        reason = (
            "no ONNX export of known origin is there for this variant: put one of your own there, or choose one of "
            f"{', '.join(_MODELS)}"
        )
        yield ModelNeed(None, "model_variant", variant, reason, f"birefnet_onnx/BiRefNet-{variant}.onnx")
