"""Putting together and taking apart. `tests/fidelity` compares with ComfyUI itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_engine.ops import compose
from comfy_cpu_engine.ops.pixels import repeat_to_batch, to_uint8


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).random(shape, dtype=np.float32)


def test_8_bits_are_cut_off_not_rounded() -> None:
    values = np.array([-1, 0, 0.5, 0.999, 1, 2, 127.9999 / 255], np.float32)
    assert to_uint8(values).tolist() == [0, 0, 127, 254, 255, 255, 127]


def test_what_is_no_number_becomes_some_pixel() -> None:
    assert to_uint8(np.array([np.nan, np.inf, -np.inf], np.float32))[1:].tolist() == [255, 0]


@given(st.integers(1, 5), st.integers(1, 12))
def test_repeat_to_batch(count: int, size: int) -> None:
    array = np.arange(count, dtype=np.float32)
    assert repeat_to_batch(array, size).tolist() == [index % count for index in range(size)]


def test_a_batch_of_two_sizes_takes_the_first() -> None:
    assert compose.batch(noise(1, 6, 4, 3), noise(2, 9, 9, 3)).shape == (3, 6, 4, 3)


@pytest.mark.parametrize(("first", "second"), [(3, 4), (4, 3)])
def test_a_batch_with_and_without_alpha_is_opaque(first: int, second: int) -> None:
    made = compose.batch(noise(1, 6, 4, first), noise(1, 6, 4, second))
    assert made.shape == (2, 6, 4, 4)
    assert (made[0 if first == 3 else 1, ..., 3] == 1).all()


def test_join_and_split() -> None:
    image, mask = noise(2, 5, 4, 3), noise(2, 5, 4)
    joined = compose.join_alpha(image, mask)
    assert joined.shape == (2, 5, 4, 4)
    colours, back = compose.split_alpha(joined)
    assert np.array_equal(colours, image)
    assert np.allclose(back, mask, atol=1e-6)


def test_the_shorter_batch_decides() -> None:
    assert compose.join_alpha(noise(3, 5, 4, 3), noise(2, 5, 4)).shape == (2, 5, 4, 4)


def test_an_image_without_alpha_has_an_empty_mask() -> None:
    assert not compose.split_alpha(noise(1, 5, 4, 3))[1].any()


@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_composite_changes_what_the_source_covers_and_nothing_else(
    x: int, y: int, width: int, height: int, masked: bool
) -> None:
    below, above = np.zeros((2, 6, 7, 3), np.float32), np.ones((1, height, width, 3), np.float32)
    mask = np.full((1, 3, 2), 0.25, np.float32) if masked else None
    made = compose.composite(below, above, x=x, y=y, mask=mask)
    expected = np.zeros_like(below)
    expected[:, y : y + height, x : x + width] = 0.25 if masked else 1
    assert np.allclose(made, expected)
    assert not below.any(), "the destination itself is left alone"


@pytest.mark.parametrize(("below", "above"), [(4, 3), (3, 4)])
def test_composite_of_images_with_and_without_alpha(below: int, above: int) -> None:
    destination, source = noise(1, 6, 7, below), noise(1, 2, 2, above)
    made = compose.composite(destination, source, x=0, y=0)
    assert made.shape == destination.shape
    assert np.array_equal(made[:, :2, :2, :3], source[..., :3])
    if below == 4:
        assert (made[:, :2, :2, 3] == 1).all(), "a source without alpha is opaque"


def test_composite_stretched() -> None:
    made = compose.composite(noise(1, 6, 7, 3), np.ones((1, 2, 2, 3), np.float32), x=0, y=0, resize_source=True)
    assert (made == 1).all()


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20))
def test_a_crop_has_at_least_one_pixel(x: int, y: int, width: int, height: int) -> None:
    image = noise(1, 6, 7, 3)
    made = compose.crop(image, width=width, height=height, x=x, y=y)
    assert made.shape[1:3] == (min(height, 6 - min(y, 5)), min(width, 7 - min(x, 6)))
    assert np.array_equal(made[0, 0, 0], image[0, min(y, 5), min(x, 6)])


def test_solid() -> None:
    made = compose.solid(2, 3, 4, 0xFF8000)
    assert made.shape == (4, 3, 2, 3)
    assert made.dtype == np.float32
    assert np.allclose(made[0, 0, 0], [1, 128 / 255, 0])


def slow_feather(height: int, width: int, sides: tuple[int, int, int, int], feathering: int) -> np.ndarray:
    """The mask inside the image, pixel by pixel."""
    left, top, right, bottom = sides
    mask = np.zeros((height, width), np.float32)
    if not 0 < feathering * 2 < min(height, width):
        return mask
    for i in range(height):
        for j in range(width):
            distances = [height, width]
            distances += [i] * bool(top) + [height - i] * bool(bottom) + [j] * bool(left) + [width - j] * bool(right)
            mask[i, j] = (max(feathering - min(distances), 0) / feathering) ** 2
    return mask


@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.tuples(*[st.sampled_from([0, 8])] * 4),
    st.integers(0, 12),
)
def test_padding(height: int, width: int, sides: tuple[int, int, int, int], feathering: int) -> None:
    left, top, right, bottom = sides
    image = noise(2, height, width, 3)
    padded, mask = compose.pad_for_outpaint(
        image, left=left, top=top, right=right, bottom=bottom, feathering=feathering
    )
    inside = (slice(None), slice(top, top + height), slice(left, left + width))
    assert np.array_equal(padded[inside], image)
    assert padded.shape == (2, height + top + bottom, width + left + right, 3)
    assert mask.shape == (1, *padded.shape[1:3])
    assert np.array_equal(mask[inside][0], slow_feather(height, width, sides, feathering))
    outside = np.ones(mask.shape[1:], bool)
    outside[inside[1:]] = False
    assert (mask[0][outside] == 1).all()
    assert (padded[:, outside] == 0.5).all()
