"""What the nodes that take the background out have in common, whichever model tells them what the subject is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from comfy_cpu_nodes import host
from comfy_cpu_nodes.arrays import like, to_numpy
from comfy_cpu_nodes.ops import masks
from comfy_cpu_nodes.ops.pixels import FloatArray, Pixels, stack, to_pixels, to_rgb

if TYPE_CHECKING:
    from comfy_cpu_nodes.ops.resize import Size
    from comfy_cpu_nodes.runtimes import OnnxModel

__all__ = ["cut_out_all", "finishing_inputs", "input_size", "one_mask", "provider_input", "report_provider"]

# Scores say how surely a pixel belongs to the subject: if none is more likely in than out, there is no subject.
_SUBJECT = 0.5


def provider_input() -> tuple[Any, dict[str, Any]]:
    """The input ``provider``."""
    return ["CPU", "CUDA", "DirectML"], {
        "default": "CPU",
        "tooltip": "Kept for workflows made on a GPU; all of them run on the CPU here.",
    }


def finishing_inputs() -> dict[str, Any]:
    """The optional inputs that say what becomes of a mask: the options of `cut_out_all`."""
    return {
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
            {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01, "tooltip": "Less keeps more of the picture."},
        ),
        "mask_blur": (
            "INT",
            {"default": 0, "min": 0, "max": 64, "step": 1, "tooltip": "Softens the edge, in pixels."},
        ),
        "mask_offset": (
            "INT",
            {"default": 0, "min": -64, "max": 64, "step": 1, "tooltip": "Grows or shrinks the subject, in pixels."},
        ),
    }


def report_provider(provider: str, name: str) -> None:
    """Tell the user if a provider is named that is not there."""
    if provider != "CPU":
        host.warn(f"provider {provider} is not there: {name} ran on the CPU")


def cut_out_all(
    image: Any,
    scores_of: Callable[[Pixels], FloatArray],
    *,
    name: str,
    background_color: str,
    custom_hex_color: str,
    sensitivity: float,
    mask_blur: int,
    mask_offset: int,
) -> tuple[Any, Any]:
    """Give the pictures without background, [B,H,W,4] or on a colour [B,H,W,3], and the masks [B,H,W].

    Args:
        image: an IMAGE.
        scores_of: how surely each pixel of a picture [H,W,3] belongs to the subject: [H,W], usually 0..1.
        name: of the model, for messages.

    Raises:
        NodeError: the input is no image.
        Exception: what `scores_of` raises.
    """
    frames = to_numpy(image)
    background = _background(background_color, custom_hex_color)
    steps = host.progress(len(frames))
    pictures, kept = [], []
    # One at a time: a single inference keeps every core busy, and two at once would only need more memory.
    for index, frame in enumerate(frames):
        picture = to_rgb(to_pixels(frame))
        scores = scores_of(picture)
        if scores.max() < _SUBJECT:
            host.warn(f"image {index}: {name} found no subject, its mask is stretched noise")
        mask = masks.sensitise(masks.stretch(scores), sensitivity)
        alpha = masks.offset(masks.blur(mask, mask_blur), mask_offset)
        pictures.append(masks.cut_out(picture, alpha, background))
        kept.append(mask)
        steps.step()
    return like(stack(pictures), image), like(stack(kept), image)


def input_size(model: OnnxModel, side: int) -> Size:
    """Width and height of the model's input: its own where the file fixes them, else `side`."""
    height, width = (extent or side for extent in (*model.inputs[0].shape[2:4], None, None)[:2])
    return width, height


def one_mask(answer: Any, name: str) -> FloatArray:
    """A model's answer, whatever its dimensions, as one mask [h,w] of floats.

    Raises:
        NodeError: it is not one mask, or has values that are no numbers.
    """
    # Cast first: some models answer in float16, too coarse to interpolate in.
    values = np.asarray(answer, np.float32)
    if values.ndim < 2 or not values.size == values.shape[-2] * values.shape[-1] > 0:
        raise host.node_error(f"{name} gave an answer of shape {values.shape}, not one mask")
    if not np.isfinite(values).all():
        raise host.node_error(f"{name} gave a mask with values that are no numbers")
    return values.reshape(values.shape[-2:])


def _background(name: str, custom: str) -> masks.Colour | None:
    if name != "custom":
        return masks.COLOURS.get(name)
    colour = masks.parse_hex_colour(custom)
    if colour is None:
        host.warn(f"custom_hex_color {custom!r} is no colour: white was used")
        return masks.COLOURS["white"]
    return colour
