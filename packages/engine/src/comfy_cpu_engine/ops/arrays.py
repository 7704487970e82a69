"""The shapes that images and masks have, and how they become pixels of 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FloatArray", "as_image", "as_mask", "repeat_to_batch", "to_uint8"]

FloatArray = npt.NDArray[np.float32]


def as_image(value: Any, name: str = "image") -> FloatArray:
    """An IMAGE as ``[B,H,W,C]`` float32 0..1; takes whatever numpy can read without a copy, CPU tensors too.

    Raises:
        ValueError: it is no such array; the error names the input.
    """
    array = _float_array(value, name)
    if array.ndim != 4:
        raise ValueError(f"input {name!r} is not an image: it has {array.ndim} dimensions, an image has 4 (B,H,W,C)")
    return array


def as_mask(value: Any, name: str = "mask") -> FloatArray:
    """A MASK as ``[B,H,W]`` float32 0..1; a mask without a batch (``[H,W]``) gets one of 1.

    Raises:
        ValueError: it is no such array; the error names the input.
    """
    array = _float_array(value, name)
    if array.ndim < 2:
        raise ValueError(f"input {name!r} is not a mask: it has {array.ndim} dimensions, a mask has 3 (B,H,W)")
    return array.reshape(-1, *array.shape[-2:])


def _float_array(value: Any, name: str) -> FloatArray:
    try:
        return np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        raise ValueError(f"input {name!r} is a {type(value).__name__}, not an array of pixels") from None


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
