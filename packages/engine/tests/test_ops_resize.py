"""Resampling. `tests/fidelity` compares with torch and ComfyUI itself; here are facts that need neither."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_engine.ops.resize import METHODS, center_crop, resize, resize_mask, scale

SIDES = st.integers(1, 40)


def noise(height: int, width: int, channels: int = 3, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).random((batch, height, width, channels), dtype=np.float32)


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(METHODS), st.sampled_from(["disabled", "center"]))
def test_shape_and_a_flat_image_stays_flat(h: int, w: int, new_h: int, new_w: int, method: str, crop: str) -> None:
    flat = np.full((2, h, w, 3), 0.2, np.float32)
    result = scale(flat, new_w, new_h, method, crop)
    assert result.shape == (2, new_h, new_w, 3)
    assert result.dtype == np.float32
    assert np.allclose(result, 51 / 255, atol=1e-5)


@given(SIDES, SIDES, st.sampled_from(["nearest-exact", "bilinear", "area", "bicubic"]))
def test_the_same_size_is_the_same_image(h: int, w: int, method: str) -> None:
    image = noise(h, w)
    assert np.array_equal(resize(image, w, h, method), image)


@given(SIDES, SIDES, SIDES, SIDES)
def test_nearest_only_picks(h: int, w: int, new_h: int, new_w: int) -> None:
    image = noise(h, w, 1)
    assert set(resize(image, new_w, new_h, "nearest-exact").ravel()) <= set(image.ravel())


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(["bilinear", "area"]))
def test_means_stay_between_the_extremes(h: int, w: int, new_h: int, new_w: int, method: str) -> None:
    image = noise(h, w)
    result = resize(image, new_w, new_h, method)
    assert image.min() - 1e-6 <= result.min()
    assert result.max() <= image.max() + 1e-6


def row(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, 1, -1, 1)


@pytest.mark.parametrize(
    ("method", "width", "expected"),
    [
        ("nearest-exact", 2, [1, 3]),
        ("area", 2, [0.5, 2.5]),
        ("bilinear", 2, [0.5, 2.5]),
        ("bilinear", 8, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]),
        ("area", 3, [0.5, 1.5, 2.5]),  # an output pixel takes all that it touches in full
        ("nearest-exact", 8, [0, 0, 1, 1, 2, 2, 3, 3]),
        # (-0.09375, 0.59375, 0.59375, -0.09375) half way between two pixels, the border repeated
        ("bicubic", 2, [0.59375 - 2 * 0.09375, 0.59375 + 2 * 0.59375 - 3 * 0.09375 + 1]),
    ],
)
def test_known_values(method: str, width: int, expected: list[float]) -> None:
    result = resize(row(0, 1, 2, 3), width, 1, method)
    if method == "bicubic":
        assert result.ravel()[0] == pytest.approx(expected[0])
        assert result.ravel().sum() == pytest.approx(3)
    else:
        assert result.ravel() == pytest.approx(expected)


def test_area_is_the_mean() -> None:
    image = noise(6, 8)
    expected = image.reshape(1, 3, 2, 4, 2, 3).mean(axis=(2, 4))
    assert np.allclose(resize(image, 4, 3, "area"), expected, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_lanczos_goes_through_8_bits(channels: int) -> None:
    result = resize(noise(20, 30, channels, batch=2), 17, 9, "lanczos")
    assert result.shape == (2, 9, 17, channels)
    assert np.allclose(result * 255, np.round(result * 255), atol=1e-4)


def test_lanczos_takes_no_two_channels() -> None:
    with pytest.raises(ValueError, match="not 2"):
        resize(noise(4, 4, 2), 2, 2, "lanczos")


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (-1, 5)])
def test_no_pixels(width: int, height: int) -> None:
    with pytest.raises(ValueError, match="no pixels"):
        resize(noise(4, 4), width, height, "area")


def test_an_unknown_method() -> None:
    with pytest.raises(ValueError, match="'magic'"):
        resize(noise(4, 4), 2, 2, "magic")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ((100, 50), (50, 50), (50, 50)),
        ((50, 100), (50, 50), (50, 50)),
        ((100, 50), (200, 100), (100, 50)),
        ((1, 5000), (64, 64), (1, 2)),  # ComfyUI would cut this down to nothing
        ((5000, 1), (64, 64), (2, 1)),
    ],
)
def test_center_crop(old: tuple[int, int], new: tuple[int, int], expected: tuple[int, int]) -> None:
    cut = center_crop(noise(old[1], old[0]), *new)
    assert (cut.shape[2], cut.shape[1]) == expected


@given(SIDES, SIDES, SIDES, SIDES)
def test_center_crop_leaves_the_middle(h: int, w: int, new_h: int, new_w: int) -> None:
    image = np.arange(h * w, dtype=np.float32).reshape(1, h, w, 1)
    cut = center_crop(image, new_w, new_h)
    assert cut.size
    assert cut.shape[1] == h or cut.shape[2] == w, "only one side is cut"
    assert np.array_equal(cut + cut[:, ::-1, ::-1], np.full(cut.shape, h * w - 1)), "the same on both sides"


def test_masks() -> None:
    mask = noise(4, 4)[..., 0]
    assert np.array_equal(resize_mask(mask, 4, 4), mask)
    assert resize_mask(mask, 7, 3).shape == (1, 3, 7)
