"""What several operations on images need."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from comfy_cpu_nodes.arrays import FloatArray

__all__ = ["repeat_to_batch", "to_uint8"]


def to_uint8(image: FloatArray) -> npt.NDArray[np.uint8]:
    """0..1 → 0..255, cut off and not rounded, as ComfyUI does it; what is no number becomes some pixel or other."""
    with np.errstate(invalid="ignore"):
        pixels: npt.NDArray[np.uint8] = np.clip(np.float32(255.0) * image, 0, 255).astype(np.uint8)
    return pixels


def repeat_to_batch(array: FloatArray, size: int) -> FloatArray:
    """Bring the first dimension to `size`: leave off what is too much, repeat from the start where it is too little."""
    if len(array) == size:
        return array
    return array[np.arange(size) % len(array)]
