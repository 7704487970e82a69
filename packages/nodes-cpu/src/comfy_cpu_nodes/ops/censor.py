"""Making a part of a picture unrecognisable.

Areas are float32 [h,w,C], a part of a picture; every function gives a new area of the same shape and leaves its
arguments alone. What the filters do at an area's border, and their kernels, are OpenCV's: the numbers are those of
`cv2.blur`, `cv2.GaussianBlur` and `cv2.resize` on the area alone.

None of them can leave an area as it was, unless there was nothing to see in it: see the lower limits below.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from comfy_cpu_nodes.ops.masks import resize_scores
from comfy_cpu_nodes.ops.pixels import FloatArray

__all__ = ["Box", "area_of", "blur", "cover", "gaussian_blur", "pixelate", "scaled_blocks"]

#: x, y, width, height in pixels.
Box = tuple[int, int, int, int]

# A block of one pixel, or a blur over one, would change nothing.
_SMALLEST_BLOCK = 2
_SMALLEST_KERNEL = 2
_SMALLEST_GAUSSIAN = 3

# Rows that are blurred at a time: enough for the matrix product to be quick.
_ROWS = 128


def area_of(box: Box, width: int, height: int) -> tuple[slice, slice]:
    """The rows and columns of a picture that hide what a detection's box holds; never empty.

    A box is truncated to whole pixels, so what was found ends less than two pixels beyond it.
    """
    x, y, wide, high = box
    return _span(y, high, height), _span(x, wide, width)


def _span(start: int, length: int, limit: int) -> slice:
    first = min(max(start, 0), limit - 1)
    return slice(first, max(first + 1, min(start + length + 2, limit)))


def scaled_blocks(blocks: int, share: float, scaling: str) -> int:
    """How many blocks an area gets along each side.

    Args:
        blocks: the number that the user set, at least 1.
        share: the area's larger share of the picture's height or width, 0..1.
        scaling: ``fixed``, ``fewer_when_large`` (all for the smallest area, one for the whole picture) or
            ``fewer_when_small`` (the other way round).

    Raises:
        ValueError: the scaling is none of these.
    """
    counts: dict[str, float] = {
        "fixed": blocks,
        "fewer_when_large": blocks + share * (1 - blocks),
        "fewer_when_small": 1 + share * (blocks - 1),
    }
    if scaling not in counts:
        raise ValueError(f"block_count_scaling {scaling!r} is none of {', '.join(counts)}")
    return max(1, int(counts[scaling]))


def pixelate(area: FloatArray, blocks: int) -> FloatArray:
    """The area as `blocks` × `blocks` cells, each of its mean; fewer cells where they would be smaller than 2 pixels."""
    rows, columns = (_edges(extent, blocks) for extent in area.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(area, rows[:-1], axis=0, dtype=np.float64), columns[:-1], axis=1)
    heights, widths = np.diff(rows), np.diff(columns)
    means = (sums / (heights[:, np.newaxis] * widths)[..., np.newaxis]).astype(np.float32)
    coarse: FloatArray = np.repeat(np.repeat(means, heights, axis=0), widths, axis=1)
    return coarse


def _edges(extent: int, blocks: int) -> NDArray[np.intp]:
    """Where cells begin, and where the last one ends."""
    blocks = max(1, min(blocks, extent // _SMALLEST_BLOCK))
    return np.linspace(0, extent, blocks + 1).astype(np.intp)


def blur(area: FloatArray, side: int) -> FloatArray:
    """The mean over a square of that side, at least 2, around each pixel; `cv2.blur`."""
    side = max(side, _SMALLEST_KERNEL)
    return _smooth(area, np.full(side, 1 / side))


def gaussian_blur(area: FloatArray) -> FloatArray:
    """A Gaussian over a square as high as the area, at least 3; `cv2.GaussianBlur` with its own choice of sigma.

    OpenCV takes odd sides only, so an even height gets the next one.
    """
    side = max(area.shape[0] | 1, _SMALLEST_GAUSSIAN)
    radius = side // 2
    sigma = 0.3 * (radius - 1) + 0.8
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return _smooth(area, weights / weights.sum())


def cover(area: FloatArray, picture: FloatArray, transparency: FloatArray, strength: float) -> FloatArray:
    """The area under another picture, which is stretched over it.

    Args:
        picture: [h,w,3], of any size.
        transparency: [h,w], of any size: 1 lets the area show through.
        strength: what the result is multiplied with; it is clipped to 0..1.

    Raises:
        ValueError: the picture is transparent everywhere, so that nothing would be hidden.
    """
    height, width = area.shape[:2]
    through = np.clip(resize_scores(transparency, width, height), 0, 1)[..., np.newaxis]
    if through.min() > 1 - 1 / 255:
        raise ValueError("the overlay is transparent everywhere and would hide nothing")
    colours = np.dstack([resize_scores(picture[..., channel], width, height) for channel in range(3)])
    covered = area.copy()
    seen = covered[..., :3]  # alpha stays
    if seen.shape[2] == 1:
        colours = colours.mean(axis=2, keepdims=True)
    mixed = (seen * through + colours * (1 - through)) * np.float32(strength)
    np.clip(mixed, 0, 1, out=seen)
    return covered


def _smooth(area: FloatArray, weights: NDArray[np.float64]) -> FloatArray:
    """Filter along the rows and along the columns."""
    for _ in range(2):
        area = _smooth_rows(area, weights).swapaxes(0, 1)
    return np.clip(area, 0, 1)


def _smooth_rows(area: FloatArray, weights: NDArray[np.float64]) -> FloatArray:
    """Each row as the weighted sum of its neighbours, mirrored at the border; the anchor is the middle, or right of it."""
    height, taps = area.shape[0], len(weights)
    before = taps // 2
    beyond = area[_mirror(np.arange(-before, height + taps - 1 - before), height)].reshape(height + taps - 1, -1)
    step = min(_ROWS, height)
    band = np.zeros((step, step + taps - 1), np.float32)
    for row in range(step):
        band[row, row : row + taps] = weights
    smoothed = np.empty((height, beyond.shape[1]), np.float32)
    for start in range(0, height, step):
        count = min(step, height - start)
        source = beyond[start : start + count + taps - 1]
        np.matmul(band[:count, : count + taps - 1], source, out=smoothed[start : start + count])
    return smoothed.reshape(area.shape)


def _mirror(index: NDArray[np.intp], length: int) -> NDArray[np.intp]:
    """Indices beyond the ends run back, the outermost element is not repeated: cb|abc|ba."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    index = index % period
    return np.minimum(index, period - index)
