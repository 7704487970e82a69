"""Resampling, pixel for pixel as ComfyUI gets it from torch and Pillow.

Torch's ``interpolate`` (``align_corners=False``, no antialiasing) is separable: along each axis an output pixel is a
weighted sum of a few input pixels. `_taps` gives them, `_along` applies them; all methods but lanczos are such sums.
Coordinates are computed in float32, because torch does so and floor would differ otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from comfy_cpu_engine.ops.pixels import to_uint8
from comfy_cpu_nodes.arrays import FloatArray

__all__ = ["METHODS", "center_crop", "resize", "resize_mask", "scale"]

#: ComfyUI's upscale_method, in its order.
METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")

_CUBIC = np.float32(-0.75)  # torch's coefficient for bicubic


@dataclass(frozen=True)
class _Taps:
    """Along one axis: which input pixels make an output pixel (``[out, n]``), and how much of each."""

    index: npt.NDArray[np.intp]
    weight: FloatArray


def resize(image: FloatArray, width: int, height: int, method: str) -> FloatArray:
    """Bring an image ``[B,H,W,C]`` to a size.

    `lanczos` goes through 8 bits per pixel, as ComfyUI's does; `bicubic` may leave 0..1, as torch's does.

    Raises:
        ValueError: a size below 1, or lanczos on an image that has neither 1, 3 nor 4 channels.
    """
    if width < 1 or height < 1 or 0 in image.shape[1:3]:
        raise ValueError(f"cannot resize {image.shape[2]}x{image.shape[1]} to {width}x{height}: no pixels")
    if method == "lanczos":
        return _lanczos(image, width, height)
    # Shrink first: the second pass then has less to do. The result is the same but for rounding.
    sizes = {1: height, 2: width}
    for axis in sorted(sizes, key=lambda axis: sizes[axis] / image.shape[axis]):
        if sizes[axis] != image.shape[axis]:
            image = _along(image, axis, _taps(method, image.shape[axis], sizes[axis]))
    return image


def resize_mask(mask: FloatArray, width: int, height: int) -> FloatArray:
    """Bring a mask ``[B,H,W]`` to a size, bilinear."""
    return resize(mask[..., np.newaxis], width, height, "bilinear")[..., 0]


def center_crop(image: FloatArray, width: int, height: int) -> FloatArray:
    """Cut an image ``[B,H,W,C]`` around its middle to about the aspect of ``width`` by ``height``.

    At least one row and one column stay, where ComfyUI would cut a very thin image down to nothing and fail.
    """
    old_width, old_height = image.shape[2], image.shape[1]
    old_aspect, new_aspect = old_width / old_height, width / height
    x = y = 0
    if old_aspect > new_aspect:
        x = round((old_width - old_width * (new_aspect / old_aspect)) / 2)
    elif old_aspect < new_aspect:
        y = round((old_height - old_height * (old_aspect / new_aspect)) / 2)
    x, y = min(x, (old_width - 1) // 2), min(y, (old_height - 1) // 2)
    return image[:, y : old_height - y, x : old_width - x]


def scale(image: FloatArray, width: int, height: int, method: str, crop: str) -> FloatArray:
    """ComfyUI's common way to bring an image to a size: `crop` is ``disabled`` (stretch) or ``center``."""
    if crop == "center":
        image = center_crop(image, width, height)
    return resize(image, width, height, method)


def _along(image: FloatArray, axis: int, taps: _Taps) -> FloatArray:
    shape = [1] * image.ndim
    shape[axis] = len(taps.index)
    result: FloatArray | None = None
    for index, weight in zip(taps.index.T, taps.weight.T, strict=True):
        if not weight.any():
            continue
        part = np.take(image, index, axis)
        if (weight != 1).any():
            part *= weight.reshape(shape)
        if result is None:
            result = part
        else:
            result += part
    assert result is not None  # noqa: S101  # the weights of an output pixel sum to 1
    return result


def _taps(method: str, old: int, new: int) -> _Taps:
    if method == "area":
        return _area(old, new)
    ratio = np.float32(old) / np.float32(new)
    position = np.arange(new, dtype=np.float32) + np.float32(0.5)
    if method == "nearest-exact":
        index = np.minimum(np.floor(position * ratio).astype(np.intp), old - 1)
        return _Taps(index[:, np.newaxis], np.ones((new, 1), np.float32))
    source = position * ratio - np.float32(0.5)
    if method == "bilinear":
        source = np.maximum(source, np.float32(0))
        low = np.minimum(np.floor(source).astype(np.intp), old - 1)
        high = np.minimum(low + 1, old - 1)
        part = np.clip(source - low.astype(np.float32), 0, 1).astype(np.float32)
        return _Taps(np.stack((low, high), 1), np.stack((1 - part, part), 1))
    if method == "bicubic":
        low = np.floor(source).astype(np.intp)
        part = source - low.astype(np.float32)
        index = np.clip(low[:, np.newaxis] + np.arange(-1, 3), 0, old - 1)
        return _Taps(index, _cubic_weights(part))
    raise ValueError(f"unknown way to resize: {method!r}")


def _cubic_weights(part: FloatArray) -> FloatArray:
    """The weights of the four pixels around a place that lies `part` (0..1) after the second."""

    def near(x: FloatArray) -> FloatArray:  # for distances up to 1
        return ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1

    def far(x: FloatArray) -> FloatArray:  # for distances from 1 to 2
        return ((_CUBIC * x - 5 * _CUBIC) * x + 8 * _CUBIC) * x - 4 * _CUBIC

    return np.stack((far(part + 1), near(part), near(1 - part), far(2 - part)), 1).astype(np.float32)


def _area(old: int, new: int) -> _Taps:
    """The mean of the input pixels that an output pixel touches; one that it touches in part counts in full."""
    out = np.arange(new)
    start = out * old // new
    end = -(-(out + 1) * old // new)
    offsets = np.arange((end - start).max())
    index = start[:, np.newaxis] + offsets
    inside = index < end[:, np.newaxis]
    weight = inside / (end - start)[:, np.newaxis]
    return _Taps(np.minimum(index, old - 1), weight.astype(np.float32))


def _lanczos(image: FloatArray, width: int, height: int) -> FloatArray:
    channels = image.shape[3]
    if channels not in (1, 3, 4):
        raise ValueError(f"lanczos takes images of 1, 3 or 4 channels, not {channels}")
    resized = []
    for frame in to_uint8(image):
        picture = Image.fromarray(frame[..., 0] if channels == 1 else frame)
        pixels = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))
        resized.append(pixels.reshape(height, width, channels))
    return np.stack(resized).astype(np.float32) / np.float32(255.0)
