from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from comfy_cpu_nodes.ops import pixels as ops


def test_every_level_survives_the_way_there_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert np.array_equal(ops.to_pixels(ops.stack([levels])[0]), levels)


def test_values_are_truncated_clipped_and_never_undefined() -> None:
    frame = np.array([[0.999, -1.0, 2.0, np.nan, np.inf, -np.inf, 0.5]], np.float32)
    assert ops.to_pixels(frame).tolist() == [[254, 0, 255, 0, 255, 0, 127]]


@given(
    height=st.integers(1, 70), width=st.integers(1, 70), channels=st.sampled_from([1, 3, 4]), seed=st.integers(0, 99)
)
def test_blocks_do_not_show(height: int, width: int, channels: int, seed: int) -> None:
    frame = np.random.default_rng(seed).normal(0.5, 0.6, (height, width, channels)).astype(np.float32)
    expected = np.clip(frame * np.float32(255), 0, 255).astype(np.uint8)
    original, ops._BLOCK = ops._BLOCK, 97
    try:
        assert np.array_equal(ops.to_pixels(frame), expected)
    finally:
        ops._BLOCK = original


def test_a_frame_of_one_row_that_is_wider_than_a_block() -> None:
    frame = np.full((2, ops._BLOCK + 5, 1), 0.5, np.float32)
    assert (ops.to_pixels(frame) == 127).all()


def test_stack_gives_floats_that_divide_as_comfyui_does() -> None:
    frame = np.arange(256, dtype=np.uint8).reshape(2, 32, 4)
    batch = ops.stack([frame, frame[::-1]])
    assert batch.dtype == np.float32
    assert batch.shape == (2, 2, 32, 4)
    assert np.array_equal(batch[0], frame.astype(np.float32) / 255.0)
    assert np.array_equal(batch[1], batch[0][::-1])


def test_planes_are_channels_first() -> None:
    frame = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    planes = ops.to_planes(frame)
    assert planes.shape == (1, 3, 2, 4)
    assert planes.flags.c_contiguous
    assert np.array_equal(planes[0, 2], frame[..., 2].astype(np.float32) / 255.0)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_pil_and_back(channels: int, mode: str) -> None:
    frame = np.arange(6 * channels, dtype=np.uint8).reshape(2, 3, channels)
    image = ops.to_pil(frame)
    assert (image.mode, image.size) == (mode, (3, 2))
    assert np.array_equal(ops.from_pil(image), frame)


def test_grey_is_repeated_and_alpha_left_out() -> None:
    grey = np.array([[[7], [9]]], np.uint8)
    assert ops.to_rgb(grey).tolist() == [[[7, 7, 7], [9, 9, 9]]]
    rgba = np.array([[[1, 2, 3, 0]]], np.uint8)
    assert ops.to_rgb(rgba).tolist() == [[[1, 2, 3]]]
    assert np.array_equal(np.asarray(Image.fromarray(rgba).convert("RGB")), ops.to_rgb(rgba))
