"""The smallest useful plugin: one node, one model, and what comfy-cpu must know about both. Copy it.

comfy-cpu finds this module through the entry point in pyproject.toml and calls the functions marked with `hookimpl`.
It is imported whenever the command line starts, so whatever is slow to import is imported inside a function.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from comfy_cpu_core.context import current_run
from comfy_cpu_core.errors import ModelCorrupt, ModelMissing, NodeError
from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.models import ModelFile, ModelNeed, ModelSpec
from comfy_cpu_core.needs import find_model_file
from comfy_cpu_core.nodes import NodeClass
from comfy_cpu_core.tree import ModelTree, default_models_dir

if TYPE_CHECKING:
    from comfy_cpu_core.convert import InputChange
    from comfy_cpu_core.workflow import PromptNode

# A model is data: where it comes from, and where its files go in the model tree. This one lies in this very package;
# most come from the Hugging Face Hub (source="hf:OWNER/NAME", revision="COMMIT"). Leave a size, hash or revision out
# if you have not checked it: the first fetch records what it got.
SEPIA = ModelSpec(
    id="example-sepia",
    source="package:comfy_cpu_example",
    licence="Apache-2.0",
    files=(ModelFile("data/sepia.json", "example/sepia.json"),),
)


class ExampleTone:
    """A node: a ComfyUI V1 class. The same class works inside a ComfyUI."""

    CATEGORY = "image/example"
    DESCRIPTION = "Tints pictures with a colour matrix."
    FUNCTION = "tint"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node takes; the order is part of its interface."""
        return {
            "required": {
                "image": ("IMAGE",),
                "strength": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.05}),
                "device": (["cpu", "cuda"], {"default": "cpu"}),
            }
        }

    def tint(self, image: Any, strength: float = 1.0, device: str = "cpu") -> tuple[Any]:
        """Give the pictures, tinted; alpha stays as it is."""
        import numpy as np

        # An IMAGE is [B,H,W,C], float32, 0..1: a numpy array in comfy-cpu, a torch tensor in ComfyUI.
        pixels = np.asarray(image)
        if pixels.ndim != 4 or pixels.shape[3] not in {3, 4}:
            raise NodeError(f"image: an IMAGE with 3 or 4 channels is needed, not shape {pixels.shape}")
        matrix = np.asarray(load_matrix(), dtype=np.float32)
        tinted = pixels.copy()  # never change an input in place: other nodes see it too
        colours = tinted[..., :3]
        colours += np.float32(strength) * (np.clip(colours @ matrix.T, 0, 1) - colours)
        # Give back the kind that was given.
        return (tinted if isinstance(image, np.ndarray) else image.new_tensor(tinted),)


def load_matrix() -> list[list[float]]:
    """The model: a 3×3 colour matrix out of a JSON file.

    Raises:
        ModelMissing: the file is neither in the model tree nor in this package.
        ModelCorrupt: it is not what it should be.
    """
    run = current_run()  # None inside a ComfyUI
    tree = run.models if run is not None else ModelTree(default_models_dir(os.environ))
    path = find_model_file(SEPIA, SEPIA.files[0], tree)
    if path is None:
        raise ModelMissing(
            f"model {SEPIA.id} is not in the model tree {tree.root}",
            remedy=f"fetch it with `comfy-cpu models fetch {SEPIA.id}`",
        )
    try:
        matrix = [[float(value) for value in row] for row in json.loads(path.read_bytes())["matrix"]]
        if [len(row) for row in matrix] != [3, 3, 3]:
            raise ValueError("not three by three")
        return matrix
    except (KeyError, TypeError, ValueError) as error:
        raise ModelCorrupt(f"{path} holds no colour matrix", remedy="fetch it again") from error


@hookimpl
def comfy_cpu_node_classes() -> Iterable[NodeClass]:
    """The node classes that this plugin brings."""
    return [NodeClass("ExampleTone", ExampleTone, "Tone (example)", "tint pictures")]


@hookimpl
def comfy_cpu_models() -> Iterable[ModelSpec]:
    """The models that it knows: `comfy-cpu models list` shows them, `models fetch` gets them."""
    return [SEPIA]


@hookimpl
def comfy_cpu_models_for_node(node: PromptNode) -> Iterable[ModelNeed]:
    """Which of them a node of a workflow needs, so that a missing one is found before the run."""
    return [ModelNeed(SEPIA.id)] if node.class_type == "ExampleTone" else []


@hookimpl
def comfy_cpu_convert_node(node: PromptNode) -> Iterable[InputChange]:
    """What must change in a node so that it runs on a CPU; each change is reported with its reason."""
    from comfy_cpu_core.convert import InputChange

    if node.class_type == "ExampleTone" and node.widget("device") == "cuda":
        return [InputChange("device", "cpu", "there is no CUDA on a CPU machine")]
    return []
