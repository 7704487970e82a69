from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from comfy_cpu_nodes.ops import masks as ops


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise with flat patches, so that maxima and minima have something to spread."""
    levels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    levels[levels < 90] = 0
    levels[levels > 200] = 255
    return levels


@pytest.mark.parametrize(
    ("text", "colour"),
    [
        ("#FFFFFF", (255, 255, 255)),
        ("#F3FFFF", (243, 255, 255)),
        ("f3ffff", (243, 255, 255)),
        (" #0a141E ", (10, 20, 30)),
        ("#abc", (170, 187, 204)),
        ("#0A141E80", (10, 20, 30)),
        ("", None),
        ("#", None),
        ("#12345", None),
        ("white", None),
        ("#GGGGGG", None),
        ("##FFFFFF", None),
        ("#FFFFFF\n#", None),
        ("0x1234", None),
        ("٣٣٣", None),
    ],
)
def test_parse_hex_colour(text: str, colour: ops.Colour | None) -> None:
    assert ops.parse_hex_colour(text) == colour


def slow_offset(mask: np.ndarray, distance: int) -> np.ndarray:
    image = Image.fromarray(mask)
    for _ in range(abs(distance)):
        image = image.filter(ImageFilter.MaxFilter(3) if distance > 0 else ImageFilter.MinFilter(3))
    return np.asarray(image)


@pytest.mark.parametrize("distance", [-64, -17, -3, -2, -1, 0, 1, 2, 3, 4, 5, 7, 8, 31, 64])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 90), (90, 1), (40, 57), (150, 131)])
def test_offset_is_that_many_passes(distance: int, height: int, width: int) -> None:
    mask = noise(height, width)
    assert np.array_equal(ops.offset(mask, distance), slow_offset(mask, distance))


@settings(max_examples=60)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(-12, 12), st.integers(0, 9999))
def test_offset_on_any_size(height: int, width: int, distance: int, seed: int) -> None:
    mask = noise(height, width, seed)
    assert np.array_equal(ops.offset(mask, distance), slow_offset(mask, distance))


def test_offset_leaves_its_input_alone() -> None:
    mask = noise(20, 20)
    before = mask.copy()
    ops.offset(mask, 3)
    assert np.array_equal(mask, before)


@pytest.mark.parametrize("radius", [0, 1, 5, 64])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (33, 70)])
def test_blur_is_pils(radius: int, height: int, width: int) -> None:
    mask = noise(height, width)
    expected = np.asarray(Image.fromarray(mask).filter(ImageFilter.GaussianBlur(radius)))
    assert np.array_equal(ops.blur(mask, radius), expected)


def slow_sensitise(mask: np.ndarray, sensitivity: float) -> np.ndarray:
    floats = mask.astype(np.float32) / 255.0 * np.float32(1 + (1 - sensitivity))
    return (np.clip(floats, 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("sensitivity", [round(0.01 * step, 2) for step in range(101)])
def test_sensitise(sensitivity: float) -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(ops.sensitise(mask, sensitivity), slow_sensitise(mask, sensitivity))


def test_sensitivity_one_changes_nothing_and_zero_doubles() -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(ops.sensitise(mask, 1.0), mask)
    assert np.array_equal(ops.sensitise(mask, 0.0), np.minimum(2 * mask.astype(int), 255))


def test_stretch_uses_the_whole_range() -> None:
    scores = np.array([[0.2, 0.3], [0.25, 0.4]], np.float32)
    assert ops.stretch(scores).tolist() == [[0, 127], [63, 255]]


@pytest.mark.parametrize(("level", "expected"), [(0.0, 0), (0.5, 127), (1.0, 255), (7.0, 255), (-3.0, 0)])
def test_a_flat_mask_is_not_stretched(level: float, expected: int) -> None:
    assert ops.stretch(np.full((2, 3), level, np.float32)).tolist() == [[expected] * 3] * 2


def slow_bilinear(scores: np.ndarray, width: int, height: int) -> np.ndarray:
    """One pixel at a time, in double precision."""
    rows, columns = scores.shape
    made = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            sy, sx = max((y + 0.5) * rows / height - 0.5, 0), max((x + 0.5) * columns / width - 0.5, 0)
            y0, x0 = min(int(sy), rows - 1), min(int(sx), columns - 1)
            y1, x1 = min(y0 + 1, rows - 1), min(x0 + 1, columns - 1)
            fy, fx = sy - y0, sx - x0
            top = scores[y0, x0] * (1 - fx) + scores[y0, x1] * fx
            bottom = scores[y1, x0] * (1 - fx) + scores[y1, x1] * fx
            made[y, x] = top * (1 - fy) + bottom * fy
    return made


@pytest.mark.parametrize(
    ("source", "target"),
    [((8, 8), (8, 8)), ((8, 8), (21, 13)), ((16, 16), (5, 3)), ((8, 8), (1, 1)), ((1, 1), (4, 6)), ((8, 8), (1, 300))],
)
def test_resize_scores(source: tuple[int, int], target: tuple[int, int]) -> None:
    scores = np.random.default_rng(3).random(source, np.float32)
    before = scores.copy()
    made = ops.resize_scores(scores, *target)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, slow_bilinear(scores, *target), atol=1e-5)
    assert np.array_equal(scores, before)


def test_resize_scores_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    scores = np.random.default_rng(5).random((256, 256), np.float32)
    for width, height in [(256, 256), (411, 300), (1, 1), (1, 2000), (100, 777)]:
        tensor = torch.from_numpy(scores)[None, None]
        theirs = torch.nn.functional.interpolate(tensor, size=(height, width), mode="bilinear")[0, 0].numpy()
        assert np.abs(ops.resize_scores(scores, width, height) - theirs).max() <= 2**-23


@pytest.mark.parametrize("colour", [(255, 255, 255), (243, 255, 0)])
def test_cut_out_on_a_colour_is_pils_paste(colour: ops.Colour) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    alpha = noise(20, 30)
    expected = Image.new("RGB", (30, 20), colour)
    with_alpha = Image.fromarray(frame).convert("RGBA")
    with_alpha.putalpha(Image.fromarray(alpha))
    expected.paste(with_alpha, mask=Image.fromarray(alpha))
    assert np.array_equal(ops.cut_out(frame, alpha, colour), np.asarray(expected))


def test_cut_out_on_nothing_keeps_the_colours() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    alpha = noise(4, 5)
    made = ops.cut_out(frame, alpha, None)
    assert np.array_equal(made[..., :3], frame)
    assert np.array_equal(made[..., 3], alpha)
