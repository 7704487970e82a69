"""BiRefNet around its network: a picture to the network's input, its output to scores."""

from __future__ import annotations

import numpy as np

from comfy_cpu_nodes.ops.pixels import FloatArray, Pixels

__all__ = ["encode", "probabilities"]

# ImageNet's, of each channel.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


def encode(picture: Pixels) -> FloatArray:
    """A picture [H,W,3] to the network's input [1,3,H,W], each channel less ImageNet's mean, over its deviation."""
    # There are 256 levels only: computed once, in double precision as the original does, and looked up.
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    planes = np.empty((1, 3, *picture.shape[:2]), np.float32)
    for channel, (mean, deviation) in enumerate(zip(_MEAN, _DEVIATION, strict=True)):
        table = ((levels.astype(np.float64) - mean) / deviation).astype(np.float32)
        np.take(table, picture[..., channel], out=planes[0, channel])
    return planes


def probabilities(scores: FloatArray) -> FloatArray:
    """The network's scores as probabilities: where one lies outside 0..1 they are logits, and the sigmoid is taken."""
    if scores.min() >= 0 and scores.max() <= 1:
        return scores
    # By way of tanh, which cannot overflow.
    shares: FloatArray = np.float32(0.5) * (np.tanh(scores * np.float32(0.5)) + np.float32(1))
    return shares
