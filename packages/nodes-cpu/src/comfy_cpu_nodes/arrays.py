"""IMAGE and MASK, whichever kind they are: torch tensors inside a ComfyUI, numpy arrays in our engine.

A node turns what it is given into numpy with `to_numpy` (or `mask_to_numpy`), and what it made back with `like`.
torch is never imported here: where a tensor comes in, somebody else has done so.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comfy_cpu_nodes.host import node_error

__all__ = ["FloatArray", "like", "mask_to_numpy", "to_numpy"]

FloatArray = NDArray[np.float32]

_CHANNELS = (1, 3, 4)


def to_numpy(image: Any, *, name: str = "image") -> FloatArray:
    """An IMAGE as an array [B,H,W,C], float32, 0..1, C one of 1, 3, 4.

    The array shares its memory with what was given wherever it can, and is therefore read-only.

    Args:
        name: the input's name, for the error.

    Raises:
        NodeError: it is not an image, or an empty one.
    """
    array = _floats(image, name, "IMAGE [B,H,W,C]")
    if array.ndim != 4 or array.shape[3] not in _CHANNELS:
        raise node_error(f"{name}: an IMAGE [B,H,W,C] with 1, 3 or 4 channels is needed, not shape {array.shape}")
    return _not_empty(array, name)


def mask_to_numpy(mask: Any, *, name: str = "mask") -> FloatArray:
    """A MASK as an array [B,H,W], float32, 0..1; a single [H,W] becomes a batch of one. Read-only, as `to_numpy`.

    Raises:
        NodeError: it is not a mask, or an empty one.
    """
    array = _floats(mask, name, "MASK [B,H,W]")
    if array.ndim == 2:
        array = array[np.newaxis]
    if array.ndim != 3:
        raise node_error(f"{name}: a MASK [B,H,W] is needed, not shape {array.shape}")
    return _not_empty(array, name)


def like(array: FloatArray, reference: Any) -> Any:
    """`array` as the kind that `reference` is: a torch tensor on the CPU, or the array itself."""
    if _is_tensor(reference):
        return sys.modules["torch"].from_numpy(np.ascontiguousarray(array))
    return array


def _is_tensor(value: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == "torch" for kind in type(value).__mro__)


def _floats(value: Any, name: str, wanted: str) -> FloatArray:
    if _is_tensor(value):
        value = value.detach().cpu().float().numpy()
    if not isinstance(value, np.ndarray):
        raise node_error(f"{name}: {wanted} is needed, not {type(value).__name__}")
    if value.dtype.kind != "f":
        raise node_error(f"{name}: {wanted} holds floating-point numbers from 0 to 1, not {value.dtype}")
    array = value.astype(np.float32, copy=False).view()
    array.flags.writeable = False
    return array


def _not_empty(array: FloatArray, name: str) -> FloatArray:
    if array.size == 0:
        raise node_error(f"{name}: the batch is empty, its shape is {array.shape}")
    return array
