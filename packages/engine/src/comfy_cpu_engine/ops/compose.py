"""Putting images and masks together and taking them apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from comfy_cpu_engine.ops.pixels import repeat_to_batch
from comfy_cpu_engine.ops.resize import resize, resize_mask, scale
from comfy_cpu_nodes.arrays import FloatArray

__all__ = ["batch", "composite", "crop", "join_alpha", "pad_for_outpaint", "solid", "split_alpha"]


def batch(first: FloatArray, second: FloatArray) -> FloatArray:
    """Put two images ``[B,H,W,C]`` into one batch.

    The second is brought to the size of the first (centre crop, bilinear); where one alone has an alpha channel, the
    other gets an opaque one.
    """
    if first.shape[1:3] != second.shape[1:3]:
        second = scale(second, first.shape[2], first.shape[1], "bilinear", "center")
    channels = max(first.shape[3], second.shape[3])
    return np.concatenate((_with_channels(first, channels), _with_channels(second, channels)))


def _with_channels(image: FloatArray, channels: int) -> FloatArray:
    missing = channels - image.shape[3]
    return np.pad(image, ((0, 0), (0, 0), (0, 0), (0, missing)), constant_values=1) if missing else image


def join_alpha(image: FloatArray, mask: FloatArray) -> FloatArray:
    """An image's colours with a mask ``[B,H,W]`` as inverted alpha; the shorter batch decides."""
    count = min(len(image), len(mask))
    alpha = 1 - resize_mask(mask, image.shape[2], image.shape[1])
    return np.concatenate((image[:count, ..., :3], alpha[:count, ..., np.newaxis]), axis=-1)


def split_alpha(image: FloatArray) -> tuple[FloatArray, FloatArray]:
    """An image's colours, and its inverted alpha as a mask ``[B,H,W]`` (zeros where it has none)."""
    alpha = image[..., 3] if image.shape[3] > 3 else np.ones(image.shape[:3], np.float32)
    return image[..., :3], 1 - alpha


def composite(
    destination: FloatArray,
    source: FloatArray,
    *,
    x: int,
    y: int,
    mask: FloatArray | None = None,
    resize_source: bool = False,
) -> FloatArray:
    """Put `source` onto `destination` with its upper left corner at (x, y); what lies outside is cut off.

    Args:
        destination, source: ``[B,H,W,C]``. The source gets the destination's channels (alpha is left off, or opaque)
            and its batch size.
        mask: ``[B,H,W]``, how much of the source shows; brought to the source's size.
        resize_source: stretch the source over the whole destination first, bilinear.
    """
    count, height, width, channels = destination.shape
    if resize_source:
        source = resize(source, width, height, "bilinear")
    source = _with_channels(repeat_to_batch(source, count)[..., :channels], channels)
    left, top = min(x, width), min(y, height)
    right, bottom = min(left + source.shape[2], width), min(top + source.shape[1], height)
    result = destination.copy()
    if right <= left or bottom <= top:
        return result
    visible = source[:, : bottom - top, : right - left]
    if mask is None:
        result[:, top:bottom, left:right] = visible
        return result
    mask = repeat_to_batch(resize_mask(mask, source.shape[2], source.shape[1]), count)
    part = mask[:, : bottom - top, : right - left, np.newaxis]
    below = destination[:, top:bottom, left:right]
    result[:, top:bottom, left:right] = part * visible + (1 - part) * below
    return result


def crop(image: FloatArray, *, width: int, height: int, x: int, y: int) -> FloatArray:
    """Cut out ``width`` by ``height`` at (x, y); less where the image ends, at least one pixel."""
    x, y = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
    return image[:, y : y + height, x : x + width]


def solid(width: int, height: int, count: int, color: int) -> FloatArray:
    """`count` images of one colour ``0xRRGGBB``."""
    rgb = np.array([(color >> shift) & 0xFF for shift in (16, 8, 0)]) / 0xFF
    return np.full((count, height, width, 3), rgb, np.float32)


def pad_for_outpaint(
    image: FloatArray, *, left: int, top: int, right: int, bottom: int, feathering: int
) -> tuple[FloatArray, FloatArray]:
    """Put a grey border around an image, and say in a mask what is to be filled.

    Gives the image and a mask ``[1,H,W]``: 1 on the border, falling to 0 over `feathering` pixels inside the image on
    the sides that have a border. An image that is too small for the feathering gets none.
    """
    count, height, width, channels = image.shape
    padded = np.full((count, height + top + bottom, width + left + right, channels), 0.5, np.float32)
    padded[:, top : top + height, left : left + width] = image
    mask = np.ones((1, *padded.shape[1:3]), np.float32)
    inner = np.zeros((height, width), np.float32)
    if 0 < feathering * 2 < min(height, width):
        distance = np.minimum(_to_border(height, top, bottom)[:, np.newaxis], _to_border(width, left, right))
        fade = np.maximum(feathering - distance, 0) / feathering
        inner = (fade * fade).astype(np.float32)
    mask[0, top : top + height, left : left + width] = inner
    return padded, mask


def _to_border(length: int, before: int, after: int) -> npt.NDArray[np.intp]:
    """For each place along an axis, how far the next side with a border is; all of the length where there is none."""
    place = np.arange(length)
    none = np.full(length, length)
    return np.minimum(place if before else none, length - place if after else none)
