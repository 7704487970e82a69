"""Choosing the next token from what a language model expects. Pure numpy."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Sampling", "choose"]

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Sampling:
    """How to choose.

    Attributes:
        temperature: 0 always takes the most likely token; 1 follows the model's probabilities.
        top_k: only so many of the most likely tokens; 0 for all.
        top_p: only the most likely tokens that together have this probability; 1 for all.
        min_p: only tokens at least this fraction as likely as the most likely one; 0 for all.
        repeat_penalty: what the logits of recent tokens are divided by (multiplied with, if negative); 1 for nothing.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0


def choose(logits: Logits, sampling: Sampling, random: np.random.Generator, *, recent: Collection[int] = ()) -> int:
    """Choose a token.

    Args:
        logits: of the whole vocabulary; ``-inf`` for tokens that must not come, but not for all of them.
        sampling: how.
        random: where chance comes from; not asked at temperature 0.
        recent: tokens that are penalised.

    Raises:
        ValueError: no token may come, or a logit is NaN or +inf.
    """
    exact = logits.astype(np.float64)
    if np.isnan(exact).any() or not np.isfinite(exact.max()):
        raise ValueError("no token can be chosen")
    if recent and sampling.repeat_penalty != 1.0:
        places = np.fromiter(set(recent), np.intp)
        found = exact[places]
        exact[places] = np.where(found > 0, found / sampling.repeat_penalty, found * sampling.repeat_penalty)
    if sampling.temperature <= 0:
        return int(exact.argmax())
    tokens = np.flatnonzero(np.isfinite(exact))
    if 0 < sampling.top_k < len(tokens):
        tokens = tokens[np.argpartition(exact[tokens], -sampling.top_k)[-sampling.top_k :]]
    tokens = tokens[np.argsort(exact[tokens], kind="stable")[::-1]]
    chances = _softmax(exact[tokens])
    kept = chances >= sampling.min_p * chances[0]
    # A token stays if those before it have not reached top_p yet; so the first one always stays.
    kept &= np.cumsum(chances) - chances < sampling.top_p
    kept[0] = True
    tokens = tokens[kept]
    return int(random.choice(tokens, p=_softmax(exact[tokens] / sampling.temperature)))


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(values - values.max())
    normal: NDArray[np.float64] = weights / weights.sum()
    return normal
