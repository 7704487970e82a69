"""Pictures of what Florence-2 found: boxes, outlines and lines of text drawn with PIL, and masks of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from comfy_cpu_nodes.ops.florence import Box, Polygons
from comfy_cpu_nodes.ops.pixels import Pixels

__all__ = ["box_mask", "draw_boxes", "draw_polygons", "draw_quads", "outline_mask"]

_COLOURS = (
    "blue", "orange", "green", "purple", "brown", "pink", "olive", "cyan", "red", "lime", "indigo", "violet", "aqua",
    "magenta", "gold", "tan", "skyblue",
)  # fmt: skip
_LABEL_SIZE, _TEXT_SIZE = 12, 24
_LABEL_ALPHA, _FILL_ALPHA = 128, 180
_OUTLINE_WIDTH = 3

Place = Sequence[float]


def draw_boxes(picture: Pixels, places: Iterable[tuple[str, Box]]) -> Pixels:
    """The picture, uint8 [H,W,3], with a red frame around every box and ``index.label`` beside it."""
    image = Image.fromarray(picture.copy())
    draw = ImageDraw.Draw(image, "RGBA")
    font = ImageFont.load_default(_LABEL_SIZE)
    for index, (label, box) in enumerate(places):
        x0, y0, x1, y1 = _ordered(box)
        draw.rectangle((x0, y0, x1, y1), outline="red", width=1)
        text = f"{index}.{label}"
        left, top, right, bottom = draw.textbbox((0, 0), text, font)
        x = max(0, min(x0, image.width - right))
        y = y0 - bottom
        if y < 0:  # no room above the box
            y = max(0, min(y1, image.height - bottom))
        background = (x + left, y + top, x + right, y + bottom)
        draw.rectangle(background, fill=(*_colour(index), _LABEL_ALPHA))
        draw.text((x, y), text, fill="white", font=font)
    return np.asarray(image)


def draw_polygons(picture: Pixels, objects: Iterable[Polygons], *, fill: bool) -> Pixels:
    """The picture, uint8 [H,W,3], with the outlines of every object, filled or not."""
    image = Image.fromarray(picture.copy())
    draw = ImageDraw.Draw(image, "RGBA")
    for index, polygons in enumerate(objects):
        for polygon in _drawable(polygons, picture):
            _draw_outline(draw, polygon, _colour(index), fill=fill)
    return np.asarray(image)


def draw_quads(picture: Pixels, lines: Iterable[tuple[str, Place]], *, fill: bool) -> Pixels:
    """The picture, uint8 [H,W,3], with a quadrilateral around every line of text, and the text in it."""
    image = Image.fromarray(picture.copy())
    draw = ImageDraw.Draw(image, "RGBA")
    font = ImageFont.load_default(_TEXT_SIZE)
    for index, (text, quad) in enumerate(lines):
        _draw_outline(draw, quad, _colour(index), fill=fill)
        draw.text((quad[0] + 8, quad[1] + 2), text, fill="white" if fill else _colour(index), font=font)
    return np.asarray(image)


def box_mask(picture: Pixels, boxes: Iterable[Box]) -> Pixels:
    """A mask, uint8 [H,W], that is 255 inside the boxes."""
    mask = Image.new("L", (picture.shape[1], picture.shape[0]))
    draw = ImageDraw.Draw(mask)
    for box in boxes:
        draw.rectangle(_ordered(box), fill=255)
    return np.asarray(mask)


def outline_mask(picture: Pixels, outlines: Polygons) -> Pixels:
    """A mask, uint8 [H,W], that is 255 inside the outlines."""
    mask = Image.new("L", (picture.shape[1], picture.shape[0]))
    draw = ImageDraw.Draw(mask)
    for outline in _drawable(outlines, picture):
        draw.polygon(outline, fill=255, outline=255)
    return np.asarray(mask)


def _draw_outline(draw: ImageDraw.ImageDraw, outline: Place, colour: tuple[int, ...], *, fill: bool) -> None:
    draw.polygon(outline, fill=(*colour, _FILL_ALPHA) if fill else None, outline=colour, width=_OUTLINE_WIDTH)


def _drawable(outlines: Iterable[Place], picture: Pixels) -> list[list[float]]:
    """Outlines of at least three points, moved inside the picture."""
    height, width = picture.shape[:2]
    drawable = []
    for outline in outlines:
        if len(outline) >= 6:
            points = np.asarray(outline, np.float64).reshape(-1, 2)
            drawable.append(np.clip(points, 0, (width - 1, height - 1)).ravel().tolist())
    return drawable


def _ordered(box: Box) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _colour(index: int) -> tuple[int, int, int]:
    red, green, blue = ImageColor.getrgb(_COLOURS[index % len(_COLOURS)])[:3]
    return red, green, blue
