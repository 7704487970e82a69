from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from comfy_cpu_nodes.ops import resize as ops

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
}
SIDES = st.integers(1, 60)


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, channels), dtype=np.uint8)


def pil(frame: np.ndarray) -> Image.Image:
    return Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame)


@pytest.mark.parametrize(
    ("size", "area", "expected"),
    [
        ((1024, 1024), 1024**2, (1024, 1024)),
        ((512, 512), 1024**2, (1024, 1024)),
        ((4000, 3000), 1024**2, (1182, 886)),
        ((1920, 1080), 2048**2, (2730, 1536)),
        ((1, 5000), 1024**2, (14, 72408)),
        ((1, 1), 2048**2, (2048, 2048)),
        ((1, 16_000_000), 1024**2, (2, 4_096_000)),  # half a pixel wide would be none at all
    ],
)
def test_smart_size(size: ops.Size, area: int, expected: ops.Size) -> None:
    assert ops.smart_size(size, area) == expected


@given(width=st.integers(1, 16384), height=st.integers(1, 16384), area=st.sampled_from([1024**2, 2048**2]))
def test_smart_size_is_even_and_keeps_area_and_aspect(width: int, height: int, area: int) -> None:
    wide, high = ops.smart_size((width, height), area)
    assert wide % 2 == high % 2 == 0
    assert wide >= 2
    assert high >= 2
    # Rounding to even numbers moves a side by at most 1.
    assert (wide - 1) * (high - 1) <= area * 1.0001
    assert (wide + 1) * (high + 1) >= area * 0.9999
    assert (wide - 1) / (high + 1) <= width / height * 1.0001


@pytest.mark.parametrize(
    ("share", "mode", "expected"),
    [
        (1.0, "smart", False),
        (0.96, "smart", False),
        (0.94, "smart", True),
        (1.06, "smart", True),
        (0.94, "only_if_needed", False),
        (0.89, "only_if_needed", True),
        (1.0, "always_resize", True),
    ],
)
def test_needs_resize(share: float, mode: str, expected: bool) -> None:
    assert ops.needs_resize((1000, round(1000 * share)), 1_000_000, mode) is expected


@pytest.mark.parametrize(
    ("size", "factor", "expected"),
    [((333, 101), 0.75, (249, 75)), ((10, 10), 1.25, (12, 12)), ((1, 5000), 0.25, (1, 1250)), ((3, 3), 4.0, (12, 12))],
)
def test_scaled_size(size: ops.Size, factor: float, expected: ops.Size) -> None:
    assert ops.scaled_size(size, factor) == expected


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("source", "target"), [((13, 17), (40, 9)), ((1, 1), (5, 3)), ((1, 500), (7, 100))])
def test_resize_is_pils(interpolation: str, channels: int, source: ops.Size, target: ops.Size) -> None:
    frame = noise(*source, channels)
    made = ops.resize(frame, target, interpolation)
    assert made.shape == (target[1], target[0], channels)
    assert np.array_equal(np.squeeze(made), np.squeeze(np.asarray(pil(frame).resize(target, FILTERS[interpolation]))))


def test_colours_under_transparent_pixels_do_not_bleed() -> None:
    frame = np.zeros((2, 8, 4), np.uint8)
    frame[:, :4] = (255, 0, 0, 255)
    frame[:, 4:] = (0, 255, 0, 0)
    made = ops.resize(frame, (4, 1), "bilinear")
    assert made[made[..., 3] > 0][:, 1].max() == 0


@given(width=SIDES, height=SIDES, wide=SIDES, high=SIDES)
def test_fit_stays_inside_and_never_enlarges(width: int, height: int, wide: int, high: int) -> None:
    made = ops.fit(noise(height, width), (wide, high), "bilinear")
    assert made.shape[1] <= min(width, wide)
    assert made.shape[0] <= min(height, high)
    assert made.shape[1] in {width, wide} or made.shape[0] in {height, high}


@given(width=SIDES, height=SIDES, wide=SIDES, high=SIDES)
def test_fill_covers_everything(width: int, height: int, wide: int, high: int) -> None:
    white = np.full((height, width, 3), 255, np.uint8)
    made = ops.fill(white, (wide, high), "bilinear")
    assert made.shape == (high, wide, 3)
    assert made.min() == 255, "no black edge"


def test_fill_keeps_the_centre() -> None:
    frame = np.zeros((10, 30, 3), np.uint8)
    frame[:, 10:20] = 255
    assert ops.fill(frame, (10, 10), "nearest").min() == 255


def test_fill_of_a_strip_takes_the_short_way_and_sees_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.linspace(0, 255, 300).astype(np.uint8)
    frame = np.broadcast_to(rows[:, np.newaxis, np.newaxis], (300, 3, 3)).copy()
    whole = ops.fill(frame, (64, 64), "lanczos")
    monkeypatch.setattr(ops, "_MAX_SCALED_PIXELS", 0)
    assert np.abs(ops.fill(frame, (64, 64), "lanczos").astype(int) - whole).max() <= 1


def test_a_long_strip_does_not_grow_to_gigabytes() -> None:
    made = ops.fill(noise(5000, 1), (1024, 1024), "bicubic")
    assert made.shape == (1024, 1024, 3)


def test_an_unknown_interpolation_is_named() -> None:
    with pytest.raises(ValueError, match="'cubic'"):
        ops.resize(noise(2, 2), (3, 3), "cubic")
