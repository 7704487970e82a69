"""BEN2 for comfy-cpu: where its weights come from, which nodes need them, what changes for a CPU.

The nodes themselves are in comfy-cpu-nodes; this is the data of the model family.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.models import ModelFile, ModelNeed, ModelSpec

if TYPE_CHECKING:
    from comfy_cpu_core.convert import CannotRun, InputChange
    from comfy_cpu_core.workflow import PromptNode

_BASE = ModelSpec(
    id="ben2-base",
    source="hf:PramaLLC/BEN2",
    licence="MIT",
    files=(ModelFile("BEN2_Base.onnx", "ben2_onnx/BEN2_Base.onnx", size=222_932_053),),
)

_CLASSES = frozenset({"BEN2_ONNX_RemoveBg", "BEN2_ONNX_RawMask"})


@hookimpl
def comfy_cpu_models() -> Iterable[ModelSpec]:
    """BEN2's base model as ONNX."""
    return [_BASE]


@hookimpl
def comfy_cpu_models_for_node(node: PromptNode) -> Iterable[ModelNeed]:
    """BEN2's nodes need the base model, whatever their inputs say."""
    return [ModelNeed(_BASE.id)] if node.class_type in _CLASSES else []


@hookimpl
def comfy_cpu_convert_node(node: PromptNode) -> Iterable[InputChange | CannotRun]:
    """The execution provider becomes the CPU."""
    if node.class_type not in _CLASSES:
        return []
    from comfy_cpu_core.convert import provider_to_cpu

    return provider_to_cpu(node)
