"""NudeNet's detector around its network: a picture to the network's input, its output to detections.

The numbers are those of the `nudenet` package, which leans on OpenCV: the same 8-bit fixed-point resize, the same
arithmetic in float32, the same suppression of overlapping boxes. They are written out here so that OpenCV is not
needed, and tested against it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from comfy_cpu_nodes.ops.pixels import FloatArray, Pixels

__all__ = ["INPUT_SIDE", "LABELS", "Detection", "decode", "encode", "suppress"]

#: The side of the network's square input, in pixels.
INPUT_SIDE = 320

#: What the network's classes mean, in its order.
LABELS = (
    "FEMALE_GENITALIA_COVERED",
    "FACE_FEMALE",
    "BUTTOCKS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED",
    "ANUS_EXPOSED",
    "FEET_EXPOSED",
    "BELLY_COVERED",
    "FEET_COVERED",
    "ARMPITS_COVERED",
    "ARMPITS_EXPOSED",
    "FACE_MALE",
    "BELLY_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "ANUS_COVERED",
    "FEMALE_BREAST_COVERED",
    "BUTTOCKS_COVERED",
)

# A candidate's score must reach the first to be looked at, and exceed the second to be kept; both are the package's.
_SCORE_FLOOR = np.float32(0.2)
_KEEP_ABOVE = np.float32(0.25)
# Of two boxes that overlap by more than this share of their union, the one with the lower score goes.
_OVERLAP_LIMIT = np.float32(0.45)


# OpenCV keeps a weight in 11 bits.
_WEIGHT_ONE = np.float32(1 << 11)

IntArray = NDArray[np.int32]
Taps = tuple[NDArray[np.intp], NDArray[np.intp], IntArray, IntArray]


@dataclass(frozen=True)
class Detection:
    """Something that the network saw.

    Attributes:
        label: one of `LABELS`.
        score: 0..1.
        box: x, y, width, height in pixels of the picture.
    """

    label: str
    score: float
    box: tuple[int, int, int, int]


def encode(picture: Pixels, side: int = INPUT_SIDE) -> FloatArray:
    """A picture [H,W,3] in RGB to the network's input [1,3,side,side], 0..1, its channels in the order B, G, R.

    The picture is padded with black at the right and at the bottom to a square, and resized. `nudenet` gives its
    network BGR when it reads a file and RGB when it is handed an RGB array; existing workflows know the former.
    """
    resized = _resize_padded(picture, side)
    blob = np.empty((1, 3, side, side), np.float32)
    # The factor, not the division: OpenCV multiplies, and the last bit differs.
    np.multiply(resized.transpose(2, 0, 1)[::-1], np.float32(1 / 255), out=blob[0], dtype=np.float32)
    return blob


def decode(
    output: FloatArray, size: tuple[int, int], side: int = INPUT_SIDE, *, leave_out: Collection[str] = ()
) -> list[Detection]:
    """The network's output [1,22,N] to detections, best first.

    Rows 0–3 are a box's centre x, centre y, width and height in pixels of the network's input; the rest are the scores
    of `LABELS`.

    Args:
        size: width and height of the picture.
        leave_out: labels that do not count. They go before overlapping boxes are thinned out, so that none of them can
            hide another label.

    Raises:
        ValueError: the output has another shape, or holds what cannot be a box or a score. It says nothing about the
            picture then, least of all that it is safe.
    """
    width, height = size
    candidates = _candidates(output)
    centre_x, centre_y, wide, high = np.split(candidates[:4], 4)
    scale = (np.float32(max(size)), np.float32(side))
    corner_x = np.clip((centre_x - wide / 2) * scale[0] / scale[1], 0, width)
    corner_y = np.clip((centre_y - high / 2) * scale[0] / scale[1], 0, height)
    wide = np.minimum(wide * scale[0] / scale[1], width - corner_x)
    high = np.minimum(high * scale[0] / scale[1], height - corner_y)
    boxes = np.concatenate((corner_x, corner_y, wide, high)).T
    classes, scores = candidates[4:].argmax(axis=0), candidates[4:].max(axis=0)
    counts = [i for i, label in enumerate(classes) if LABELS[label] not in leave_out]
    boxes, classes, scores = boxes[counts], classes[counts], scores[counts]
    return [
        Detection(LABELS[classes[i]], float(scores[i]), tuple(int(value) for value in boxes[i]))  # type: ignore[arg-type]
        for i in suppress(boxes, scores)
    ]


def suppress(boxes: FloatArray, scores: FloatArray) -> list[int]:
    """Which boxes to keep where several overlap, best first: OpenCV's `NMSBoxes` with thresholds .25 and .45.

    Args:
        boxes: [N,4]: x, y, width, height.
        scores: [N].
    """
    # OpenCV computes the boxes in double, the overlap in single precision.
    left, top = boxes[:, 0].astype(np.float64), boxes[:, 1].astype(np.float64)
    right, bottom = left + boxes[:, 2], top + boxes[:, 3]
    areas = boxes[:, 2].astype(np.float64) * boxes[:, 3]
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > _KEEP_ABOVE]
    kept = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        shared_width = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest])
        shared_height = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest])
        shared = np.maximum(shared_width, 0) * np.maximum(shared_height, 0)
        union = areas[best] + areas[rest] - shared
        # Two boxes without any area count as the same.
        distance = 1 - np.divide(shared, union, out=np.ones_like(union), where=union > 0)
        order = rest[np.float32(1) - distance.astype(np.float32) <= _OVERLAP_LIMIT]
    return kept


def _candidates(output: FloatArray) -> FloatArray:
    """The columns of the output whose best score reaches the floor, [22,n]."""
    rows = 4 + len(LABELS)
    if output.ndim != 3 or output.shape[0] != 1 or output.shape[1] != rows or output.shape[2] == 0:
        raise ValueError(f"the model gives {output.shape}, not [1,{rows},N]")
    table: FloatArray = output[0].astype(np.float32, copy=False)
    if not np.isfinite(table).all():
        raise ValueError("the model gives values that are no numbers")
    scores = table[4:]
    if scores.min() < 0 or scores.max() > 1:
        raise ValueError("the model gives scores that are not between 0 and 1")
    chosen: FloatArray = table[:, scores.max(axis=0) >= _SCORE_FLOOR]
    return chosen


def _resize_padded(picture: Pixels, side: int) -> Pixels:
    """Pad to a square with black and resize, as OpenCV's INTER_LINEAR does with 8 bits.

    The padding is never made, and only the pixels that count are looked at: four for each of the result.
    """
    square = max(picture.shape[:2])
    columns, (upper, lower, to_upper, to_lower) = _column_taps(square, side), _row_taps(square, side)
    # The shifts are OpenCV's: products of 8 + 11 + 11 bits are brought down to 8 in three steps.
    total = (_blend_columns(picture, upper, columns) >> 4) * to_upper[:, np.newaxis, np.newaxis] >> 16
    total += (_blend_columns(picture, lower, columns) >> 4) * to_lower[:, np.newaxis, np.newaxis] >> 16
    pixels: Pixels = np.clip(total + 2 >> 2, 0, 255).astype(np.uint8)
    return pixels


def _blend_columns(picture: Pixels, rows: NDArray[np.intp], columns: Taps) -> IntArray:
    """The given rows of the padded picture, resized horizontally: [len(rows),side,3], times 2¹¹."""
    left, right, to_left, to_right = columns
    blended = _pick(picture, rows, left) * to_left[:, np.newaxis]
    blended += _pick(picture, rows, right) * to_right[:, np.newaxis]
    return blended


def _pick(picture: Pixels, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> IntArray:
    """The pixels at these rows and columns; 0 where they lie in the padding."""
    height, width = picture.shape[:2]
    taken = picture[np.ix_(np.minimum(rows, height - 1), np.minimum(columns, width - 1))].astype(np.int32)
    taken[rows >= height] = 0
    taken[:, columns >= width] = 0
    return taken


def _column_taps(source: int, target: int) -> Taps:
    """Beyond the edge, OpenCV takes the outermost column with all the weight."""
    first, fraction = _positions(source, target)
    fraction[(first < 0) | (first >= source - 1)] = 0
    first = np.clip(first, 0, source - 1)
    return first, np.minimum(first + 1, source - 1), *_weights(fraction)


def _row_taps(source: int, target: int) -> Taps:
    """Beyond the edge, OpenCV takes the outermost row twice, with the weights as they are."""
    first, fraction = _positions(source, target)
    return np.clip(first, 0, source - 1), np.clip(first + 1, 0, source - 1), *_weights(fraction)


def _positions(source: int, target: int) -> tuple[NDArray[np.intp], FloatArray]:
    position = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    first = np.floor(position)
    return first.astype(np.intp), position - first


def _weights(fraction: FloatArray) -> tuple[IntArray, IntArray]:
    return (
        np.rint((np.float32(1) - fraction) * _WEIGHT_ONE).astype(np.int32),
        np.rint(fraction * _WEIGHT_ONE).astype(np.int32),
    )
