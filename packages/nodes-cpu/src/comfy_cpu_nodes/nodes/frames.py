"""What the nodes share: walking over the frames of a batch, with progress and a chance to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy_cpu_nodes import host
from comfy_cpu_nodes.arrays import like, to_numpy
from comfy_cpu_nodes.ops.pixels import Pixels, stack, to_pixels
from comfy_cpu_nodes.ops.resize import Size

__all__ = ["image_size", "map_frames"]


def image_size(image: Any, *, name: str = "image") -> Size:
    """Width and height of an IMAGE's frames."""
    frames = to_numpy(image, name=name)
    return frames.shape[2], frames.shape[1]


def map_frames(image: Any, change: Callable[[Pixels], Pixels]) -> Any:
    """An IMAGE with every frame changed, of the kind that was given.

    Args:
        change: uint8 [H,W,C] to uint8; all results must have one shape.
    """
    frames = to_numpy(image)
    steps = host.progress(len(frames))
    changed = []
    for frame in frames:
        changed.append(change(to_pixels(frame)))
        steps.step()
    return like(stack(changed), image)
