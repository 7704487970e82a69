"""From a model's scores to an alpha channel, and from that to a picture without its background.

Masks are uint8 [H,W]: 0 is background. The steps and their order are those of the node that existing workflows know;
PIL's Gaussian blur and compositing are the reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from comfy_cpu_nodes.ops.pixels import FloatArray, Pixels, from_pil, to_pil

__all__ = [
    "COLOURS",
    "Colour",
    "blur",
    "cut_out",
    "offset",
    "parse_hex_colour",
    "resize_scores",
    "sensitise",
    "stretch",
]

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
}

_HEX = re.compile(r"#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})")

_ROWS = 256


def parse_hex_colour(text: str) -> Colour | None:
    """``#F3FFFF``, ``f3ffff``, ``#fff`` or ``#F3FFFF80`` (its alpha is left out) as a colour; None if it is no colour."""
    match = _HEX.fullmatch(text.strip())
    if match is None:
        return None
    digits = match[1]
    if len(digits) == 3:
        digits = "".join(digit * 2 for digit in digits)
    return int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)


def resize_scores(scores: FloatArray, width: int, height: int) -> FloatArray:
    """Scores [h,w] to [height,width], bilinear, pixel centres aligned, no smoothing when made smaller.

    The numbers are those of torch's ``interpolate(mode="bilinear")`` to within one unit in the last place, so that the
    truncation to 8 bits that follows falls on the same side.
    """
    left, right, to_left, to_right = _neighbours(scores.shape[1], width)
    upper, lower, to_upper, to_lower = _neighbours(scores.shape[0], height)
    wide = scores[:, left]
    wide *= to_left
    wide += scores[:, right] * to_right
    resized = np.empty((height, width), np.float32)
    for start in range(0, height, _ROWS):
        rows = slice(start, start + _ROWS)
        part = np.multiply(wide[upper[rows]], to_upper[rows, np.newaxis], out=resized[rows])
        part += wide[lower[rows]] * to_lower[rows, np.newaxis]
    return resized


def _neighbours(source: int, target: int) -> tuple[np.ndarray, np.ndarray, FloatArray, FloatArray]:
    """For each target index the two source indices and their weights."""
    # The scale is a float32 but the position is rounded once: that is what a fused multiply-add gives.
    scale = float(np.float32(source) / np.float32(target))
    position = np.maximum(scale * (np.arange(target) + 0.5) - 0.5, 0).astype(np.float32)
    first = np.minimum(position.astype(np.intp), source - 1)
    weight = np.clip(position - first.astype(np.float32), 0, 1, dtype=np.float32)
    return first, np.minimum(first + 1, source - 1), np.float32(1) - weight, weight


def stretch(scores: FloatArray) -> Pixels:
    """Scores [H,W] to a mask, stretched so that the least becomes 0 and the greatest 255. Changes `scores` in place.

    This is what existing workflows expect, with one consequence to know: if nothing in the picture stands out, the
    stretch turns noise into a mask. Scores that are all the same are not stretched, only clipped.
    """
    least, greatest = scores.min(), scores.max()
    if greatest > least:
        scores -= least
        scores /= greatest - least
    scores *= 255
    np.clip(scores, 0, 255, out=scores)
    return scores.astype(np.uint8)


def sensitise(mask: Pixels, sensitivity: float) -> Pixels:
    """The mask times (2 − sensitivity), clipped: 1 leaves it alone, 0 doubles it."""
    levels = np.arange(256, dtype=np.float32) / np.float32(255) * np.float32(2 - sensitivity)
    table: Pixels = (np.clip(levels, 0, 1) * np.float32(255)).astype(np.uint8)
    return table[mask]


def blur(mask: Pixels, radius: int) -> Pixels:
    """PIL's Gaussian blur; radius 0 leaves the mask alone."""
    if radius <= 0:
        return mask
    return from_pil(to_pil(mask).filter(ImageFilter.GaussianBlur(radius)))[..., 0]


def offset(mask: Pixels, distance: int) -> Pixels:
    """The mask grown (distance > 0) or shrunk (< 0) by that many pixels.

    The same bytes as |distance| passes of a 3×3 maximum or minimum, at the cost of about 2·log2(|distance|): the
    window of n passes is the square of side 2n + 1, a square's maximum is that of its rows' maxima, and a row's comes
    from windows that double in width.
    """
    if distance == 0:
        return mask
    pick = np.maximum if distance > 0 else np.minimum
    for _ in range(2):  # along the columns, then, turned, along the rows
        mask = _along_columns(mask, abs(distance), pick).T
    return mask


def _along_columns(mask: Pixels, radius: int, pick: Callable[..., Pixels]) -> Pixels:
    height = mask.shape[0]
    radius = min(radius, height - 1)  # a window that holds the whole column already cannot hold more
    window = np.pad(mask, ((radius, radius), (0, 0)), mode="edge")
    width, reach = 2 * radius + 1, 1
    while reach * 2 <= width:
        window = pick(window[:-reach], window[reach:])
        reach *= 2
    return pick(window[:height], window[width - reach :])


def cut_out(frame: Pixels, alpha: Pixels, background: Colour | None) -> Pixels:
    """The picture [H,W,3] with that alpha: [H,W,4] on no background, [H,W,3] on a colour."""
    if background is None:
        return np.dstack((frame, alpha))
    picture = to_pil(frame)
    plain = Image.new("RGB", picture.size, background)
    plain.paste(picture, mask=to_pil(alpha))
    return from_pil(plain)
