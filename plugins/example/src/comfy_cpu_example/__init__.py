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
from comfy_cpu_core.image import (
    BakedFile,
    BakeJob,
    BakeStep,
    Finding,
    ImageCheck,
    ImageFacts,
    ImageStep,
    NodePack,
    StartPart,
)
from comfy_cpu_core.models import ModelFile, ModelNeed, ModelSpec
from comfy_cpu_core.needs import find_model_file
from comfy_cpu_core.nodes import NodeClass
from comfy_cpu_core.tree import ModelTree, default_models_dir

if TYPE_CHECKING:
    from comfy_cpu_core.convert import InputChange
    from comfy_cpu_core.image import ImageRequest
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


# What follows is for images (`comfy-cpu build`). A family that needs nothing beside its nodes and models needs none of it.

_NOTE = "/opt/comfy-cpu/example.txt"


@hookimpl
def comfy_cpu_node_packs() -> Iterable[NodePack]:
    """Somebody else's classes that only a ComfyUI can run, and where they come from."""
    return [
        NodePack(
            "comfyui-example-glow",
            source="https://example.com/comfyui-example-glow",
            classes=frozenset({"ExampleGlow"}),
            licence="MIT",
        )
    ]


@hookimpl
def comfy_cpu_image_steps(image: ImageRequest) -> Iterable[ImageStep]:
    """What the image must have: packages of pip and Debian, variables, files, commands. This node needs a note."""
    if "ExampleTone" not in image.class_types:
        return []
    return [
        ImageStep(
            "example",
            environment={"EXAMPLE_TONE": "sepia"},
            files={_NOTE: "Made for ExampleTone.\n"},
            commands=(("test", "-s", _NOTE),),
        )
    ]


@hookimpl
def comfy_cpu_start_script(image: ImageRequest) -> Iterable[StartPart]:
    """What the start script sets, unless the container's user has set it."""
    return [StartPart("example", {"EXAMPLE_STRENGTH": "1.0"})] if "ExampleTone" in image.class_types else []


@hookimpl
def comfy_cpu_bake(model: ModelSpec) -> Iterable[BakeStep]:
    """How a model is prepared at build time. Both functions run in a process of their own."""
    if model.id != SEPIA.id:
        return []
    return [BakeStep("flat", model.id, "comfy_cpu_example:bake_matrix", "comfy_cpu_example:verify_matrix")]


def bake_matrix(job: BakeJob) -> Iterable[BakedFile]:
    """Write the matrix as one list of nine numbers."""
    made = BakedFile("example/sepia-flat.json")
    path = job.output / made.target
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([value for row in _tree_matrix(job) for value in row]))
    return [made]


def verify_matrix(job: BakeJob) -> None:
    """Raise if what was baked does not hold the model's numbers."""
    flat = json.loads((job.output / "example" / "sepia-flat.json").read_text())
    if flat != [value for row in _tree_matrix(job) for value in row]:
        raise ModelCorrupt("the baked matrix differs from the model's")


def _tree_matrix(job: BakeJob) -> list[list[float]]:
    document = json.loads(job.models.require("example/sepia.json").read_bytes())
    return [[float(value) for value in row] for row in document["matrix"]]


@hookimpl
def comfy_cpu_checks() -> Iterable[ImageCheck]:
    """What is looked at in a finished image. Commands run inside it; the function sees what they gave."""
    return [ImageCheck("example", "the example's note is there", _check_note, commands=(("cat", _NOTE),))]


def _check_note(facts: ImageFacts) -> Iterable[Finding]:
    if not any("ExampleTone" in workflow["class_types"] for workflow in facts.manifest["workflows"]):
        return []
    (note,) = facts.outputs["example"]
    right = note.code == 0 and "ExampleTone" in note.out
    return [Finding(right, "the note is there" if right else f"{_NOTE} is missing")]
