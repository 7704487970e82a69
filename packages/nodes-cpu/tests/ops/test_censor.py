"""Against OpenCV, which is installed for the tests only, and against slow references."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_cpu_nodes.ops import censor as ops

SIZES = [(1, 1), (1, 40), (40, 1), (2, 3), (7, 5), (30, 41), (129, 64), (300, 200)]


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).random((height, width, channels), np.float32)


@pytest.fixture(scope="module")
def cv2() -> Any:
    import cv2

    return cv2


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10, 20, 30, 5), (slice(20, 27), slice(10, 42))),
        ((0, 0, 100, 50), (slice(0, 50), slice(0, 100))),
        ((-5, -7, 8, 8), (slice(0, 3), slice(0, 5))),
        ((90, 45, 500, 500), (slice(45, 50), slice(90, 100))),
        ((100, 50, 0, 0), (slice(49, 50), slice(99, 100))),
        ((300, 300, 4, 4), (slice(49, 50), slice(99, 100))),
        ((-300, -300, 4, 4), (slice(0, 1), slice(0, 1))),
        ((5, 5, 0, 0), (slice(5, 7), slice(5, 7))),
    ],
)
def test_area_of(box: ops.Box, expected: tuple[slice, slice]) -> None:
    assert ops.area_of(box, 100, 50) == expected


@given(st.tuples(*[st.integers(-50, 200)] * 2, *[st.integers(0, 300)] * 2), st.integers(1, 90), st.integers(1, 90))
def test_an_area_is_never_empty_and_never_outside(box: ops.Box, width: int, height: int) -> None:
    rows, columns = ops.area_of(box, width, height)
    assert 0 <= rows.start < rows.stop <= height
    assert 0 <= columns.start < columns.stop <= width


@given(st.floats(0, 90), st.floats(0, 40), st.floats(0.01, 60), st.floats(0.01, 60))
def test_an_area_holds_all_that_was_truncated_away(x: float, y: float, wide: float, high: float) -> None:
    rows, columns = ops.area_of((int(x), int(y), int(wide), int(high)), 200, 200)
    assert columns.start <= x
    assert x + wide <= columns.stop
    assert rows.start <= y
    assert y + high <= rows.stop


@pytest.mark.parametrize(
    ("blocks", "share", "scaling", "expected"),
    [
        (3, 0.9, "fixed", 3),
        (1, 0.9, "fixed", 1),
        (10, 0.0, "fewer_when_large", 10),
        (10, 0.5, "fewer_when_large", 5),
        (10, 1.0, "fewer_when_large", 1),
        (10, 0.0, "fewer_when_small", 1),
        (10, 0.5, "fewer_when_small", 5),
        (10, 1.0, "fewer_when_small", 10),
        (3, 0.1, "fewer_when_small", 1),
    ],
)
def test_scaled_blocks(blocks: int, share: float, scaling: str, expected: int) -> None:
    assert ops.scaled_blocks(blocks, share, scaling) == expected


def test_an_unknown_scaling() -> None:
    with pytest.raises(ValueError, match="'most'"):
        ops.scaled_blocks(3, 0.5, "most")


def slow_pixelate(area: np.ndarray, blocks: int) -> np.ndarray:
    """One cell at a time."""
    made = area.copy()
    height, width = area.shape[:2]
    rows = np.linspace(0, height, blocks + 1, dtype=int)
    columns = np.linspace(0, width, blocks + 1, dtype=int)
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            made[top:bottom, left:right] = area[top:bottom, left:right].astype(np.float64).mean(axis=(0, 1))
    return made


@pytest.mark.parametrize("blocks", [1, 2, 3, 7, 20])
@pytest.mark.parametrize(("height", "width"), [(40, 40), (57, 91), (300, 200)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixelate(blocks: int, height: int, width: int, channels: int) -> None:
    area = noise(height, width, channels)
    made = ops.pixelate(area, blocks)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, slow_pixelate(area, blocks), atol=1e-6)
    assert len(np.unique(made[..., 0])) == blocks**2


@settings(max_examples=100)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 100))
def test_pixelate_never_keeps_a_pixel_of_its_own(height: int, width: int, blocks: int) -> None:
    """Wherever there are two pixels next to each other, a cell has more than one."""
    area = noise(height, width)
    made = ops.pixelate(area, blocks)
    assert made.shape == area.shape
    cells = len(np.unique(made[..., 0]))
    assert cells <= max(1, height // 2) * max(1, width // 2)
    assert np.array_equal(made, area) == (height == width == 1)


@pytest.mark.parametrize("side", [2, 3, 4, 9, 50, 99, 100])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_blur_is_opencvs(side: int, height: int, width: int, cv2: Any) -> None:
    area = noise(height, width)
    np.testing.assert_allclose(ops.blur(area, side), cv2.blur(area, (side, side)), atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [size for size in SIZES if size[0] > 7])
def test_gaussian_blur_is_opencvs(height: int, width: int, cv2: Any) -> None:
    area = noise(height, width)
    side = height if height % 2 else height + 1
    np.testing.assert_allclose(ops.gaussian_blur(area), cv2.GaussianBlur(area, (side, side), 0), atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [size for size in SIZES if size[0] <= 7])
def test_gaussian_blur_of_low_areas_is_nearly_opencvs(height: int, width: int, cv2: Any) -> None:
    """OpenCV rounds the kernels of 3, 5 and 7 pixels to binary fractions."""
    area = noise(height, width)
    side = max(3, height if height % 2 else height + 1)
    np.testing.assert_allclose(ops.gaussian_blur(area), cv2.GaussianBlur(area, (side, side), 0), atol=0.03)


@pytest.mark.parametrize("channels", [1, 4])
def test_blurs_take_any_channels(channels: int, cv2: Any) -> None:
    area = noise(40, 30, channels)
    np.testing.assert_allclose(ops.blur(area, 7), cv2.blur(area, (7, 7)).reshape(area.shape), atol=1e-5)
    expected = cv2.GaussianBlur(area, (41, 41), 0).reshape(area.shape)
    np.testing.assert_allclose(ops.gaussian_blur(area), expected, atol=1e-5)


@settings(max_examples=60)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 5))
def test_blurs_never_leave_an_area_alone(height: int, width: int, side: int) -> None:
    area = noise(height, width)
    single = height == width == 1
    assert np.allclose(ops.blur(area, side), area, atol=1e-6) == single
    assert np.allclose(ops.gaussian_blur(area), area, atol=1e-6) == single


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 3.0])
def test_cover_is_opencvs_resize_and_a_blend(height: int, width: int, strength: float, cv2: Any) -> None:
    area, picture, transparency = noise(height, width), noise(33, 47), noise(21, 64, 1)[..., 0] * 0.9
    made = ops.cover(area, picture, transparency, strength)
    pasted = cv2.resize(picture, (width, height))
    through = cv2.resize(transparency, (width, height))[..., np.newaxis]
    expected = area * (through * strength) + pasted * ((1 - through) * strength)
    np.testing.assert_allclose(made, np.clip(expected, 0, 1), atol=1e-5)


def test_an_opaque_cover_hides_everything() -> None:
    picture = np.full((4, 4, 3), 0.25, np.float32)
    made = ops.cover(noise(20, 30), picture, np.zeros((1, 1), np.float32), 1.0)
    assert (made == np.float32(0.25)).all()


def test_a_cover_on_grey_and_on_alpha() -> None:
    red = np.broadcast_to(np.array([0.9, 0, 0], np.float32), (4, 4, 3))
    opaque = np.zeros((1, 1), np.float32)
    np.testing.assert_allclose(ops.cover(noise(6, 5, 1), red, opaque, 1.0), 0.3, atol=1e-6)
    area = noise(6, 5, 4)
    made = ops.cover(area, red, opaque, 1.0)
    assert np.array_equal(made[..., 3], area[..., 3])
    np.testing.assert_allclose(made[..., :3], np.broadcast_to([0.9, 0, 0], (6, 5, 3)), atol=1e-6)


@pytest.mark.parametrize("value", [1.0, 0.999, 7.0])
def test_a_cover_that_hides_nothing_is_an_error(value: float) -> None:
    with pytest.raises(ValueError, match="would hide nothing"):
        ops.cover(noise(6, 5), noise(4, 4), np.full((3, 3), value, np.float32), 1.0)


def test_a_hole_in_the_transparency_that_the_resize_skips_hides_nothing() -> None:
    transparency = np.ones((100, 100), np.float32)
    transparency[0, 0] = 0
    with pytest.raises(ValueError, match="would hide nothing"):
        ops.cover(noise(4, 4), noise(4, 4), transparency, 1.0)


def test_arguments_stay_as_they_are() -> None:
    area, picture, transparency = noise(9, 9), noise(4, 4), np.full((3, 3), 0.5, np.float32)
    for array in (area, picture, transparency):
        array.flags.writeable = False
    for made in (
        ops.pixelate(area, 2),
        ops.blur(area, 3),
        ops.gaussian_blur(area),
        ops.cover(area, picture, transparency, 1.0),
    ):
        assert made.flags.writeable
        assert not np.shares_memory(made, area)
