"""NudeNet for comfy-cpu: where its weights come from, and which nodes need them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
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
    """The safety checker needs the small detector, the loader the one that it names."""
    if node.class_type == "NudeNetSafetyChecker":
        return [ModelNeed(_SMALL.id)]
    if node.class_type == "NudenetModelLoader":
        return _named(node.widget("model"))
    return []


def _named(name: object) -> Iterator[ModelNeed]:
    """The detector of that name; nothing where it comes from another node."""
    if name is None:
        return
    path = PurePosixPath(name.replace("\\", "/")) if isinstance(name, str) else PurePosixPath()
    if name == _SMALL.files[0].path:
        yield ModelNeed(_SMALL.id, "model", name)
    elif path.name and ".." not in path.parts and not path.is_absolute():
        reason = "put it there, or choose 320n.onnx: no source is known for others"
        yield ModelNeed(None, "model", name, reason, f"Nudenet/{path}")
    else:
        yield ModelNeed(None, "model", name, "choose 320n.onnx, or a file in the folder Nudenet of the model tree")
