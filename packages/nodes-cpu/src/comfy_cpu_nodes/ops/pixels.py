"""Between the floats of an IMAGE and 8-bit pixels, exactly as ComfyUI's nodes do it, and to PIL and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["FloatArray", "Pixels", "from_pil", "stack", "to_pil", "to_pixels", "to_planes", "to_rgb"]

FloatArray = NDArray[np.float32]
Pixels = NDArray[np.uint8]

# Work on this many values at a time: what is in flight then stays in the cache, whatever the picture's size.
_BLOCK = 1 << 18


def to_pixels(frame: FloatArray) -> Pixels:
    """Floats 0..1 of any shape [H,…] to uint8 of the same shape.

    Truncated, not rounded, as ComfyUI does; values outside 0..1 are clipped, and what is not a number becomes 0.
    """
    pixels = np.empty(frame.shape, np.uint8)
    rows = _rows_per_block(frame)
    buffer = np.empty((rows, *frame.shape[1:]), np.float32)
    for start in range(0, frame.shape[0], rows):
        part = frame[start : start + rows]
        scaled = np.multiply(part, np.float32(255), out=buffer[: len(part)])
        np.fmax(scaled, 0, out=scaled)  # fmax, unlike maximum, turns NaN into 0
        np.fmin(scaled, 255, out=scaled)
        pixels[start : start + rows] = scaled
    return pixels


def stack(frames: Sequence[Pixels]) -> FloatArray:
    """Frames of the same shape, uint8, to one batch of floats 0..1: an IMAGE [B,H,W,C] or a MASK [B,H,W]."""
    batch = np.empty((len(frames), *frames[0].shape), np.float32)
    for pixels, out in zip(frames, batch, strict=True):
        np.divide(pixels, np.float32(255), out=out, dtype=np.float32)
    return batch


def to_planes(pixels: Pixels) -> FloatArray:
    """[H,W,C] to [1,C,H,W], floats 0..1: the form in which networks take a picture."""
    planes = np.empty((1, pixels.shape[2], *pixels.shape[:2]), np.float32)
    np.divide(pixels.transpose(2, 0, 1), np.float32(255), out=planes[0], dtype=np.float32)
    return planes


def to_rgb(pixels: Pixels) -> Pixels:
    """[H,W,1|3|4] to [H,W,3]: grey is repeated, alpha is left out. A view where that is possible."""
    if pixels.shape[2] == 1:
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return pixels[..., :3]


def to_pil(pixels: Pixels) -> Image.Image:
    """[H,W] or [H,W,1|3|4] to an image of mode L, RGB or RGBA."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return Image.fromarray(np.ascontiguousarray(pixels))


def from_pil(image: Image.Image) -> Pixels:
    """An image of mode L, RGB or RGBA to [H,W,1|3|4]."""
    pixels = np.asarray(image)
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


def _rows_per_block(frame: FloatArray) -> int:
    values_per_row = max(1, frame[:1].size)
    return max(1, min(len(frame), _BLOCK // values_per_row))
