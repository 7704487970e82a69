"""Resizing pictures: the sizes that the resize nodes compute, and PIL's filters to get there.

Frames are uint8 [H,W,C] with 1, 3 or 4 channels. Sizes are (width, height), as PIL has them.
"""

from __future__ import annotations

import math

from PIL import Image

from comfy_cpu_nodes.ops.pixels import Pixels, from_pil, to_pil

__all__ = ["Size", "fill", "fit", "needs_resize", "resize", "scaled_size", "smart_size"]

Size = tuple[int, int]

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
}

# How far from the wanted area a picture may be and still be left alone, as a share of that area.
_TOLERANCES = {"smart": 0.05, "only_if_needed": 0.1, "always_resize": 0.0}

# `fill` makes the whole scaled picture and crops it, as long as that has no more pixels than this.
_MAX_SCALED_PIXELS = 1 << 26


def needs_resize(size: Size, area: int, mode: str) -> bool:
    """Whether a picture of that size is to be brought to `area` pixels.

    Args:
        mode: ``smart`` (not if within 5 % of it), ``only_if_needed`` (10 %) or ``always_resize``.
    """
    return not abs(size[0] * size[1] - area) / area < _TOLERANCES[mode]


def smart_size(size: Size, area: int) -> Size:
    """The size with about `area` pixels and the same aspect, in even numbers, at least 2 each."""
    aspect = size[0] / size[1]
    height = math.sqrt(area / aspect)
    width = aspect * height
    return max(2, round(width / 2) * 2), max(2, round(height / 2) * 2)


def scaled_size(size: Size, factor: float) -> Size:
    """The size times `factor`, truncated, at least 1 each."""
    return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))


def resize(frame: Pixels, size: Size, interpolation: str) -> Pixels:
    """The frame at exactly that size. Colours of RGBA are weighted with alpha, as PIL does."""
    return from_pil(to_pil(frame).resize(size, _filter(interpolation)))


def fit(frame: Pixels, size: Size, interpolation: str) -> Pixels:
    """The frame made smaller, aspect kept, until it lies inside `size`; never made larger."""
    image = to_pil(frame)
    image.thumbnail(size, _filter(interpolation))
    return from_pil(image)


def fill(frame: Pixels, size: Size, interpolation: str) -> Pixels:
    """The frame scaled, aspect kept, until it covers `size`; what stands out is cropped, the centre stays."""
    height, width = frame.shape[:2]
    scaled, corner = _covering((width, height), size)
    left, top = corner
    right, bottom = left + size[0], top + size[1]
    image = to_pil(frame)
    chosen = _filter(interpolation)
    if scaled[0] * scaled[1] <= _MAX_SCALED_PIXELS:
        return from_pil(image.resize(scaled, chosen).crop((left, top, right, bottom)))
    # A strip of 1×5000 would grow to gigabytes: resample the visible part only, at most a level or two away.
    x, y = width / scaled[0], height / scaled[1]
    box = (left * x, top * y, min(right * x, width), min(bottom * y, height))
    return from_pil(image.resize(size, chosen, box=box))


def _filter(name: str) -> Image.Resampling:
    if name not in _FILTERS:
        raise ValueError(f"interpolation {name!r} is none of {', '.join(_FILTERS)}")
    return _FILTERS[name]


def _covering(size: Size, target: Size) -> tuple[Size, tuple[int, int]]:
    """The scaled size that covers the target, and where the target's corner lies in it."""
    aspect = size[0] / size[1]
    if aspect > target[0] / target[1]:
        # Truncated as the nodes always did, but never below the target: that would leave a black edge.
        scaled = max(target[0], int(target[1] * aspect)), target[1]
    else:
        scaled = target[0], max(target[1], int(target[0] / aspect))
    return scaled, ((scaled[0] - target[0]) // 2, (scaled[1] - target[1]) // 2)
