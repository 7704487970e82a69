from __future__ import annotations

import numpy as np
import pytest

from comfy_cpu_nodes.ops.florence_draw import box_mask, draw_boxes, draw_polygons, draw_quads, outline_mask

GREY = np.full((60, 100, 3), 90, np.uint8)
RED = [255, 0, 0]


def test_boxes_are_framed_in_red() -> None:
    drawn = draw_boxes(GREY, [("cat", [20.5, 30.5, 60.5, 50.5])])
    assert drawn.shape == GREY.shape
    assert drawn.dtype == np.uint8
    assert drawn[50, 40].tolist() == RED
    assert drawn[40, 60].tolist() == RED
    assert drawn[40, 40].tolist() == [90, 90, 90]
    assert (drawn[10:28, 20:50] != 90).any(), "its label is above it"
    assert (GREY == 90).all(), "what was given stays as it was"


def test_a_label_without_room_above_goes_below() -> None:
    drawn = draw_boxes(GREY, [("cat", [10, 0, 30, 20])])
    assert (drawn[22:35, 10:40] != 90).any()


@pytest.mark.parametrize("box", [[0.5, 0.5, 0.5, 0.5], [60, 50, 20, 30], [-5, -5, 300, 300], [99.9, 59.9, 99.9, 59.9]])
def test_any_box_can_be_drawn(box: list[float]) -> None:
    assert draw_boxes(GREY, [("a label that is much wider than the picture itself", box)]).shape == GREY.shape
    assert box_mask(GREY, [box]).any()


def test_masks_of_boxes() -> None:
    mask = box_mask(GREY, [[10, 20, 30, 40], [50, 5, 45, 2]])
    expected = np.zeros((60, 100), np.uint8)
    expected[20:41, 10:31] = 255
    expected[2:6, 45:51] = 255
    assert np.array_equal(mask, expected)
    assert not box_mask(GREY, []).any()


def test_masks_of_outlines() -> None:
    square = [10.0, 20.0, 30.0, 20.0, 30.0, 40.0, 10.0, 40.0]
    mask = outline_mask(GREY, [square, [1.0, 1.0, 5.0, 5.0]])
    assert mask[20:41, 10:31].all()
    assert mask.sum() == 255 * 21 * 21, "two points are no outline"


def test_outlines_are_moved_into_the_picture() -> None:
    mask = outline_mask(GREY, [[-50.0, -50.0, 500.0, -50.0, 500.0, 500.0, -50.0, 500.0]])
    assert mask.all()


@pytest.mark.parametrize("fill", [True, False])
def test_polygons_are_filled_or_not(fill: bool) -> None:
    square = [10.0, 20.0, 30.0, 20.0, 30.0, 40.0, 10.0, 40.0]
    drawn = draw_polygons(GREY, [[square, [1.0, 1.0]]], fill=fill)
    assert drawn[20, 20].tolist() == [0, 0, 255], "the first colour is blue"
    assert (drawn[30, 20].tolist() != [90, 90, 90]) is fill
    assert drawn[50, 50].tolist() == [90, 90, 90]


@pytest.mark.parametrize("fill", [True, False])
def test_lines_of_text(fill: bool) -> None:
    quad = [10.0, 10.0, 90.0, 10.0, 90.0, 50.0, 10.0, 50.0]
    drawn = draw_quads(GREY, [("Grüße 你好", quad)], fill=fill)
    assert drawn[10, 50].tolist() == [0, 0, 255]
    assert (drawn[47, 80].tolist() != [90, 90, 90]) is fill
    assert (drawn[14:40, 20:80] != drawn[47, 80]).any(), "the text"
