from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from comfy_cpu_nodes.ops.sampling import Sampling, choose

LOGITS = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))


def shares(sampling: Sampling, logits: np.ndarray = LOGITS, recent: tuple[int, ...] = ()) -> dict[int, float]:
    random = np.random.default_rng(1)
    counts = Counter(choose(logits, sampling, random, recent=recent) for _ in range(4000))
    return {token: count / 4000 for token, count in counts.items()}


def test_temperature_0_takes_the_most_likely() -> None:
    assert shares(Sampling()) == {0: 1.0}


def test_temperature_1_follows_the_probabilities() -> None:
    assert shares(Sampling(temperature=1)) == pytest.approx({0: 0.5, 1: 0.3, 2: 0.15, 3: 0.05}, abs=0.03)


def test_a_low_temperature_sharpens() -> None:
    assert shares(Sampling(temperature=0.5)) == pytest.approx({0: 0.685, 1: 0.247, 2: 0.062, 3: 0.007}, abs=0.03)


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(1, top_k=2), {0, 1}),
        (Sampling(1, top_k=9), {0, 1, 2, 3}),
        (Sampling(1, top_p=0.5), {0}),
        (Sampling(1, top_p=0.6), {0, 1}),
        (Sampling(1, top_p=0.0), {0}),
        (Sampling(1, min_p=0.25), {0, 1, 2}),
        (Sampling(1, min_p=1.0), {0}),
        (Sampling(1, top_k=3, min_p=0.5), {0, 1}),
    ],
)
def test_what_is_left_to_choose_from(sampling: Sampling, kept: set[int]) -> None:
    assert set(shares(sampling)) == kept


def test_what_must_not_come_does_not() -> None:
    logits = np.array([-np.inf, 0, -np.inf, -50], np.float32)
    assert set(shares(Sampling(temperature=2), logits)) == {1}
    assert shares(Sampling(), logits) == {1: 1.0}


def test_repetitions_are_penalised() -> None:
    logits = np.array([2.0, 1.5, -1.0], np.float32)
    sampling = Sampling(repeat_penalty=2.0)
    assert shares(sampling, logits, recent=(0,)) == {1: 1.0}
    assert shares(sampling, logits) == {0: 1.0}
    assert shares(sampling, np.array([-1.0, -1.5], np.float32), recent=(0,)) == {1: 1.0}


def test_a_seed_decides() -> None:
    sampling = Sampling(temperature=1)
    first, second = ([choose(LOGITS, sampling, np.random.default_rng(7)) for _ in range(5)] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("logits", [[np.nan, 1.0], [np.inf, 1.0], [-np.inf, -np.inf]])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_numbers_that_are_none(logits: list[float], temperature: float) -> None:
    with pytest.raises(ValueError, match="no token can be chosen"):
        choose(np.array(logits, np.float32), Sampling(temperature), np.random.default_rng(0))
