"""NudeNet for comfy-cpu: where its weights come from, and which nodes need them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.models import ModelFile, ModelNeed, ModelSpec

if TYPE_CHECKING:
    from comfy_cpu_core.workflow import PromptNode

_SMALL = ModelSpec(
    id="nudenet-320n",
    source="package:nudenet",
    revision="3.4.2",
    licence="in doubt: the package's metadata say MIT, its repository says AGPL-3.0",
    files=(
        ModelFile(
            "320n.onnx",
            "Nudenet/320n.onnx",
            size=12_150_158,
            sha256="c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f",
        ),
    ),
    notice=(
        "NudeNet's licence is in doubt: the repository is under AGPL-3.0, the metadata of its Python package say MIT. "
        "It is not part of comfy-cpu; decide whether you may use it before you install or distribute it."
    ),
)


@hookimpl
def comfy_cpu_models() -> Iterable[ModelSpec]:
    """The small detector, which the Python package `nudenet` carries."""
    return [_SMALL]


@hookimpl
def comfy_cpu_models_for_node(node: PromptNode) -> Iterable[ModelNeed]:
    """The safety checker needs the small detector."""
    return [ModelNeed(_SMALL.id)] if node.class_type == "NudeNetSafetyChecker" else []
