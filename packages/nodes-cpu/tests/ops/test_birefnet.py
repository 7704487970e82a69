from __future__ import annotations

import numpy as np
import pytest

from comfy_cpu_nodes.ops import birefnet as ops


def slow_encode(picture: np.ndarray) -> np.ndarray:
    """As the original node does it: in double precision, then cut to single."""
    floats = picture.astype(np.float32) / 255.0
    normal = (floats - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    return np.expand_dims(normal.transpose(2, 0, 1), 0).astype(np.float32)


def test_encode_gives_the_originals_bits() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    picture[0, :2] = [[0, 0, 0], [255, 255, 255]]
    made = ops.encode(picture)
    assert made.dtype == np.float32
    assert made.flags.c_contiguous
    assert np.array_equal(made, slow_encode(picture))


def test_encode_takes_a_repeated_grey() -> None:
    grey = np.random.default_rng(2).integers(0, 256, (4, 5, 1), dtype=np.uint8)
    picture = np.broadcast_to(grey, (4, 5, 3))
    assert np.array_equal(ops.encode(picture), slow_encode(picture))


@pytest.mark.parametrize(
    "scores", [[0.0, 0.5, 1.0], [0.2, 0.2], [1.0], [0.0]], ids=["whole-range", "flat", "one", "zero"]
)
def test_probabilities_stay(scores: list[float]) -> None:
    given = np.array([scores], np.float32)
    assert np.array_equal(ops.probabilities(given), given)


@pytest.mark.parametrize("scores", [[-8.0, -0.1, 0.0, 3.0], [0.0, 1.01], [-0.01, 0.5], [-1e30, 1e30], [-200.0, 200.0]])
def test_logits_become_probabilities(scores: list[float]) -> None:
    given = np.array([scores], np.float32)
    before = given.copy()
    made = ops.probabilities(given)
    with np.errstate(over="ignore"):
        expected = 1 / (1 + np.exp(-np.array([scores])))
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected, atol=1e-6)
    assert np.array_equal(given, before)
