"""Nodes that censor what NudeNet finds.

They fail closed: a picture that cannot be checked, or a setting with which nothing would be censored, raises. No
picture is ever passed on that was not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from comfy_cpu_nodes import host
from comfy_cpu_nodes.arrays import FloatArray, like, mask_to_numpy, to_numpy
from comfy_cpu_nodes.nodes.detector import DetectorFile, detector_names, find_detector, load_detector
from comfy_cpu_nodes.ops import censor
from comfy_cpu_nodes.ops.detect import LABELS

__all__ = ["ApplyNudenet", "FilteredLabel", "NudenetModelLoader"]

_CATEGORY = "Nudenet"
_METHODS = ("pixelate", "blur", "gaussian_blur", "image")
_SCALINGS = ("fixed", "fewer_when_small", "fewer_when_large")

# With more details than that along its longer side, people still recognise what a mosaic shows.
_TOO_MANY_DETAILS = 16

#: Gives an area [h,w,C], censored; the number is its larger share of the picture's height or width.
Conceal = Callable[[FloatArray, float], FloatArray]


class NudenetModelLoader:
    """Loads a NudeNet detector."""

    CATEGORY = _CATEGORY
    DESCRIPTION = (
        "Loads a NudeNet detector: one of the folder Nudenet of the model tree, or 320n.onnx of the installed nudenet "
        "package."
    )
    FUNCTION = "load_model"
    RETURN_TYPES = ("NUDENET_MODEL",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": (detector_names(), {"tooltip": "The detector's file."})}}

    @classmethod
    def VALIDATE_INPUTS(cls, model: Any = None) -> bool | str:
        """Take names that are not in the list: `load_model` says better than the list where the file should be."""
        return True if model is None or isinstance(model, str) else "the name of a file is needed"

    def load_model(self, model: str) -> tuple[DetectorFile]:
        """Give the detector.

        Raises:
            ModelMissing, ModelCorrupt: it is not there, or cannot be loaded.
        """
        file = find_detector(model)
        load_detector(file)
        return (file,)


class FilteredLabel:
    """``FilterdLabel`` [sic]: chooses which labels are censored."""

    CATEGORY = _CATEGORY
    DESCRIPTION = "Chooses what Apply Nudenet censors."
    FUNCTION = "filter_labels"
    RETURN_TYPES = ("FILTERED_LABELS",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tooltip = "Whether it is censored."
        return {"required": {label: ("BOOLEAN", {"default": True, "tooltip": tooltip}) for label in LABELS}}

    def filter_labels(self, **labels: bool) -> tuple[list[int]]:
        """Give the numbers of the labels that are exempt: those set to false. A label that is not named is censored.

        Raises:
            NodeError: there is no such label, or a value is neither true nor false.
        """
        for label, censored in labels.items():
            if label not in LABELS:
                raise host.node_error(f"{label}: NudeNet has no such label")
            if not isinstance(censored, bool):
                raise host.node_error(f"{label}: true or false is needed, not {censored!r}")
        return ([number for number, label in enumerate(LABELS) if not labels.get(label, True)],)


class ApplyNudenet:
    """NudeNet looks, and what it finds is censored."""

    CATEGORY = _CATEGORY
    DESCRIPTION = (
        "Censors what NudeNet finds, in every picture of the batch. Stops with an error if it cannot look, or if the "
        "settings would censor nothing: it never passes a picture on unseen."
    )
    FUNCTION = "apply_nudenet"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "nudenet_model": ("NUDENET_MODEL", {"tooltip": "From the Nudenet Model Loader."}),
                "image": ("IMAGE", {"tooltip": "The pictures to censor."}),
                "censor_method": (
                    list(_METHODS),
                    {"tooltip": "image draws overlay_image over what is found; the others make it coarse."},
                ),
                "filtered_labels": ("FILTERED_LABELS", {"tooltip": "From Filtered Labels: what is left alone."}),
                "min_score": (
                    "FLOAT",
                    {
                        "default": 0.2,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.01,
                        "tooltip": "The score that counts as found; NudeNet never reports less than 0.25.",
                    },
                ),
                "blocks": (
                    "INT",
                    {
                        "default": 3,
                        "min": 1,
                        "max": 100,
                        "step": 1,
                        "tooltip": "pixelate: how many blocks along each side, fewer hide more; blur: how many pixels "
                        "wide, more hide more.",
                    },
                ),
                "block_count_scaling": (
                    list(_SCALINGS),
                    {"tooltip": "Whether blocks depends on how much of the picture an area takes up."},
                ),
            },
            "optional": {
                "overlay_image": ("IMAGE", {"tooltip": "For image: what is drawn; the first of a batch."}),
                "overlay_strength": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.0,
                        "max": 10.0,
                        "step": 0.1,
                        "tooltip": "For image: what the brightness there is multiplied with.",
                    },
                ),
                "alpha_mask": (
                    "MASK",
                    {"tooltip": "For image: white lets the picture show through, as Load Image has it."},
                ),
            },
        }

    def apply_nudenet(
        self,
        nudenet_model: Any,
        image: Any,
        censor_method: str,
        filtered_labels: Any,
        min_score: float = 0.2,
        blocks: int = 3,
        block_count_scaling: str = "fixed",
        overlay_image: Any = None,
        overlay_strength: float = 1.0,
        alpha_mask: Any = None,
    ) -> tuple[Any]:
        """Give the pictures [B,H,W,C], censored. Outside what was found they are what they were, bit by bit.

        Raises:
            ModelMissing, ModelCorrupt: the detector is not there any more, or cannot be loaded.
            NodeError: an input makes no sense or would censor nothing, a picture cannot be checked, or the model's
                answer makes no sense.
        """
        if not isinstance(nudenet_model, DetectorFile):
            raise host.node_error(f"nudenet_model: no NudeNet detector of ours, but a {type(nudenet_model).__name__}")
        frames = to_numpy(image)
        exempt = _exempt(filtered_labels)
        if not 0 <= min_score <= 1:  # nothing ever reaches a score that is not a number
            raise host.node_error(f"min_score: a number from 0 to 1 is needed, not {min_score}")
        if censor_method == "image":
            conceal = _covering(overlay_image, overlay_strength, alpha_mask)
        else:
            conceal = _coarsening(censor_method, blocks, block_count_scaling)
        detector = load_detector(nudenet_model)
        steps = host.progress(len(frames))
        censored = np.array(frames)  # a copy: what came in belongs to other nodes, too
        height, width = frames.shape[1:3]
        for index, frame in enumerate(censored):
            for found in detector.detect(frame, index, leave_out=exempt):
                if found.score < min_score:
                    continue
                area = frame[censor.area_of(found.box, width, height)]
                try:
                    area[...] = conceal(area, max(area.shape[0] / height, area.shape[1] / width))
                except ValueError as error:
                    raise host.node_error(f"image {index} cannot be censored: {error}") from error
            steps.step()
        return (like(censored, image),)


def _exempt(numbers: Any) -> set[str]:
    """The labels that these numbers stand for."""
    if not isinstance(numbers, list):
        raise host.node_error(f"filtered_labels: a list of labels is needed, not {type(numbers).__name__}")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(LABELS):
            raise host.node_error(f"filtered_labels: there is no label {number!r}")
    return {LABELS[number] for number in numbers}


def _coarsening(method: str, blocks: int, scaling: str) -> Conceal:
    """The methods that need nothing but the area."""
    if method not in _METHODS:
        raise host.node_error(f"censor_method {method!r} is none of {', '.join(_METHODS)}")
    if scaling not in _SCALINGS:
        raise host.node_error(f"block_count_scaling {scaling!r} is none of {', '.join(_SCALINGS)}")
    if not 1 <= blocks <= 100:
        raise host.node_error(f"blocks: a number from 1 to 100 is needed, not {blocks}")

    def conceal(area: FloatArray, share: float) -> FloatArray:
        if method == "gaussian_blur":
            return censor.gaussian_blur(area)
        count = censor.scaled_blocks(blocks, share, scaling)
        longer = max(area.shape[:2])
        pixelates = method == "pixelate"
        if (min(count, longer / 2) if pixelates else longer / count) > _TOO_MANY_DETAILS:
            host.warn(
                f"{method} with blocks={blocks} may leave what it censors recognisable: use "
                f"{'fewer blocks' if pixelates else 'more blocks, pixelate or gaussian_blur'}"
            )
        return censor.pixelate(area, count) if pixelates else censor.blur(area, count)

    return conceal


def _covering(overlay_image: Any, strength: float, alpha_mask: Any) -> Conceal:
    """The method ``image``. The overlay's own alpha does not count, as ever; without a mask it is opaque."""
    if overlay_image is None:
        raise host.node_error("overlay_image is missing", remedy="connect one, or choose another censor_method")
    overlay = to_numpy(overlay_image, name="overlay_image")[0]
    overlay = np.broadcast_to(overlay, (*overlay.shape[:2], 3)) if overlay.shape[2] == 1 else overlay[..., :3]
    mask = np.zeros((1, 1), np.float32) if alpha_mask is None else mask_to_numpy(alpha_mask, name="alpha_mask")[0]
    for name, values in (("overlay_image", overlay), ("alpha_mask", mask)):
        if not np.isfinite(values).all():
            raise host.node_error(f"{name} has pixels that are no numbers")
    if not 0 <= strength <= 10:
        raise host.node_error(f"overlay_strength: a number from 0 to 10 is needed, not {strength}")
    return lambda area, _share: censor.cover(area, overlay, mask, strength)
