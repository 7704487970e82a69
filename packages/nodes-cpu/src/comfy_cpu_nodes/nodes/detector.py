"""NudeNet's detectors: which there are, and what they see in a picture. Whatever goes wrong raises."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from comfy_cpu_core.errors import ModelCorrupt, ModelMissing
from comfy_cpu_nodes import host
from comfy_cpu_nodes.arrays import FloatArray
from comfy_cpu_nodes.ops import detect
from comfy_cpu_nodes.ops.pixels import to_pixels, to_rgb

if TYPE_CHECKING:
    from comfy_cpu_nodes.runtimes import OnnxModel

__all__ = ["SMALL_DETECTOR", "Detector", "DetectorFile", "detector_names", "find_detector", "load_detector"]

#: NudeNet's small detector, which is found in the installed `nudenet` package, too.
SMALL_DETECTOR = "320n.onnx"

_FOLDER = "Nudenet"
_SUFFIXES = (".onnx",)


@dataclass(frozen=True)
class DetectorFile:
    """A detector that was found. This is what NUDENET_MODEL stands for.

    Attributes:
        target: its path inside the model tree, also where the file is the installed package's.
        path: the file.
    """

    target: str
    path: Path


@dataclass(frozen=True)
class Detector:
    """A detector, ready to run.

    Attributes:
        model: its network.
        side: of the network's square input, in pixels.
    """

    model: OnnxModel
    side: int

    def detect(self, frame: FloatArray, index: int, *, leave_out: Collection[str] = ()) -> list[detect.Detection]:
        """What is in a picture [H,W,C], best first. Alpha is left out: what lies under it counts.

        Args:
            index: the picture's place in its batch, for the error.
            leave_out: labels that do not count.

        Raises:
            NodeError: the picture has pixels that are no numbers, or the model's answer makes no sense.
            ModelError: the model failed, or takes something else.
        """
        if not np.isfinite(frame).all():
            raise host.node_error(f"image {index} cannot be checked: it has pixels that are no numbers")
        picture = to_rgb(to_pixels(frame))
        height, width = picture.shape[:2]
        answer = self.model.run({self.model.inputs[0].name: detect.encode(picture, self.side)})
        try:
            return detect.decode(answer[self.model.outputs[0].name], (width, height), self.side, leave_out=leave_out)
        except ValueError as error:
            raise host.node_error(f"image {index} cannot be checked: {error}") from error


def detector_names() -> list[str]:
    """The detectors that there are: those of the model tree, and the installed package's; sorted."""
    names = set(host.models().files(_FOLDER, _SUFFIXES))
    if _packaged() is not None:
        names.add(SMALL_DETECTOR)
    return sorted(names)


def find_detector(name: str) -> DetectorFile:
    """Find a detector by its name, as `detector_names` has it; one from Windows may have backslashes.

    Raises:
        ModelMissing: there is none of that name.
    """
    name = name.replace("\\", "/")
    target = f"{_FOLDER}/{name}"
    tree = host.models()
    # Only what the listing has: a name with .. in it could lead anywhere.
    if name in tree.files(_FOLDER, _SUFFIXES):
        return DetectorFile(target, tree.path(target))
    if name != SMALL_DETECTOR:
        there = ", ".join(detector_names()) or "none is there"
        raise ModelMissing(
            f"model file {target} is not in the model tree {tree.root}",
            remedy=f"put it there, or choose another NudeNet model ({there})",
        )
    packaged = _packaged()
    if packaged is None:
        raise ModelMissing(
            f"model file {target} is neither in the model tree {tree.root} nor in an installed nudenet package",
            remedy="install it with `pip install 'comfy-cpu-plugin-nudenet[weights]'` (mind its licence notice)",
        )
    return DetectorFile(target, packaged)


def load_detector(file: DetectorFile) -> Detector:
    """Load a detector, or find it among the loaded models.

    Raises:
        ModelMissing, ModelCorrupt: its file is not there, cannot be loaded, or is another model.
    """
    from comfy_cpu_nodes.runtimes import load_onnx

    # Scores near the threshold decide about safety: no rounding for speed here.
    model = load_onnx(file.path, name=file.target, precision="f32")
    gives = model.outputs[0].shape
    if len(gives) != 3 or gives[1] not in {None, 4 + len(detect.LABELS)}:
        raise ModelCorrupt(
            f"model file {file.path} is no NudeNet detector: it gives {gives}",
            remedy="check the model tree with `comfy-cpu models verify`, and fetch the file again",
        )
    return Detector(model, _side(model, file.target))


def _packaged() -> Path | None:
    """The file inside the installed `nudenet` package, which is not imported for it."""
    from comfy_cpu_core.fetchers.package import package_file

    return package_file("nudenet", SMALL_DETECTOR)


def _side(model: OnnxModel, target: str) -> int:
    """The side that a file fixes; where it takes any, the number in its name (``640m.onnx``), else 320."""
    fixed = [extent for extent in model.inputs[0].shape[2:4] if extent is not None]
    if fixed:
        return fixed[0]
    named = re.match(r"(320|640)\D", PurePosixPath(target).name)
    return int(named[1]) if named else detect.INPUT_SIDE
