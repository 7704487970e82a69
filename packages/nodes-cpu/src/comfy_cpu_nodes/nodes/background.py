"""Nodes that take the background out of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from comfy_cpu_nodes import host
from comfy_cpu_nodes.arrays import like, to_numpy
from comfy_cpu_nodes.ops import masks
from comfy_cpu_nodes.ops.pixels import FloatArray, Pixels, stack, to_pixels, to_planes, to_rgb
from comfy_cpu_nodes.ops.resize import resize

if TYPE_CHECKING:
    from comfy_cpu_nodes.runtimes import OnnxModel

__all__ = ["BEN2_FILE", "Ben2RawMask", "Ben2RemoveBackground"]

#: Where the model tree keeps BEN2.
BEN2_FILE = "ben2_onnx/BEN2_Base.onnx"

_SIDE = 1024
# BEN2's scores say how surely a pixel belongs to the subject: if none is more likely in than out, there is no subject.
_SUBJECT = 0.5


class Ben2RemoveBackground:
    """BEN2 cuts the subject out."""

    CATEGORY = "image/preprocessing"
    DESCRIPTION = (
        "Removes the background with BEN2, on the CPU. The mask output leaves out blur and offset, only the picture's "
        "alpha has them. The mask is stretched to the full range: in a picture without a subject that makes noise "
        "visible (there is a warning then; BEN2 Raw Mask gives the scores as they are)."
    )
    FUNCTION = "remove_background"
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("image", "mask")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The pictures to cut out."}),
                "provider": (
                    ["CPU", "CUDA", "DirectML"],
                    {"default": "CPU", "tooltip": "Kept for workflows made on a GPU; all of them run on the CPU here."},
                ),
            },
            "optional": {
                "background_color": (
                    ["none", "white", "black", "red", "green", "blue", "custom"],
                    {"default": "none", "tooltip": "none gives a transparent background (RGBA)."},
                ),
                "custom_hex_color": (
                    "STRING",
                    {"default": "#FFFFFF", "multiline": False, "tooltip": "For custom; white if it is no colour."},
                ),
                "sensitivity": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.01,
                        "tooltip": "Less keeps more of the picture.",
                    },
                ),
                "mask_blur": (
                    "INT",
                    {"default": 0, "min": 0, "max": 64, "step": 1, "tooltip": "Softens the edge, in pixels."},
                ),
                "mask_offset": (
                    "INT",
                    {
                        "default": 0,
                        "min": -64,
                        "max": 64,
                        "step": 1,
                        "tooltip": "Grows or shrinks the subject, in pixels.",
                    },
                ),
            },
        }

    def remove_background(
        self,
        image: Any,
        provider: str = "CPU",
        *,
        background_color: str = "none",
        custom_hex_color: str = "#FFFFFF",
        sensitivity: float = 1.0,
        mask_blur: int = 0,
        mask_offset: int = 0,
    ) -> tuple[Any, Any]:
        """Give the pictures without background, [B,H,W,4] or on a colour [B,H,W,3], and the masks [B,H,W].

        Raises:
            ModelMissing, ModelCorrupt: BEN2 is not there or cannot be loaded.
            NodeError: the input is no image, or the model gave what is no mask.
        """
        frames = to_numpy(image)
        if provider != "CPU":
            host.warn(f"provider {provider} is not there: BEN2 ran on the CPU")
        background = _background(background_color, custom_hex_color)
        model = _load_ben2()
        steps = host.progress(len(frames))
        pictures, kept = [], []
        # One at a time: a single inference keeps every core busy, and two at once would only need more memory.
        for index, frame in enumerate(frames):
            picture = to_rgb(to_pixels(frame))
            scores = _scores(model, picture)
            if scores.max() < _SUBJECT:
                host.warn(f"image {index}: BEN2 found no subject, its mask is stretched noise")
            mask = masks.sensitise(masks.stretch(scores), sensitivity)
            alpha = masks.offset(masks.blur(mask, mask_blur), mask_offset)
            pictures.append(masks.cut_out(picture, alpha, background))
            kept.append(mask)
            steps.step()
        return like(stack(pictures), image), like(stack(kept), image)


class Ben2RawMask:
    """BEN2's own scores."""

    CATEGORY = "mask"
    DESCRIPTION = "BEN2's scores as a mask, not stretched and not cut to 8 bits: an empty scene stays dark."
    FUNCTION = "raw_mask"
    RETURN_TYPES = ("MASK",)
    RETURN_NAMES = ("mask",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE", {"tooltip": "The pictures to look at."})}}

    def raw_mask(self, image: Any) -> tuple[Any]:
        """Give the scores [B,H,W], clipped to 0..1. Raises as `Ben2RemoveBackground.remove_background` does."""
        frames = to_numpy(image)
        model = _load_ben2()
        steps = host.progress(len(frames))
        found = np.empty(frames.shape[:3], np.float32)
        for frame, out in zip(frames, found, strict=True):
            np.clip(_scores(model, to_rgb(to_pixels(frame))), 0, 1, out=out)
            steps.step()
        return (like(found, image),)


def _load_ben2() -> OnnxModel:
    from comfy_cpu_nodes.runtimes import load_onnx

    path = host.models().require(BEN2_FILE, remedy="fetch it with `comfy-cpu models fetch ben2-base`")
    return load_onnx(path, name=BEN2_FILE)


def _scores(model: OnnxModel, picture: Pixels) -> FloatArray:
    """How surely each pixel of the picture [H,W,3] belongs to the subject: [H,W], usually 0..1."""
    source = model.inputs[0]
    side = tuple(extent or _SIDE for extent in source.shape[2:4]) or (_SIDE, _SIDE)
    planes = to_planes(resize(picture, (side[1], side[0]), "bilinear"))
    # Cast first: the real model answers in float16, too coarse to interpolate in.
    answer = np.asarray(model.run({source.name: planes})[model.outputs[0].name], np.float32)
    if answer.ndim < 2 or not answer.size == answer.shape[-2] * answer.shape[-1] > 0:
        raise host.node_error(f"BEN2 gave an answer of shape {answer.shape}, not one mask")
    if not np.isfinite(answer).all():
        raise host.node_error("BEN2 gave a mask with values that are no numbers")
    height, width = picture.shape[:2]
    return masks.resize_scores(answer.reshape(answer.shape[-2:]), width, height)


def _background(name: str, custom: str) -> masks.Colour | None:
    if name != "custom":
        return masks.COLOURS.get(name)
    colour = masks.parse_hex_colour(custom)
    if colour is None:
        host.warn(f"custom_hex_color {custom!r} is no colour: white was used")
        return masks.COLOURS["white"]
    return colour
