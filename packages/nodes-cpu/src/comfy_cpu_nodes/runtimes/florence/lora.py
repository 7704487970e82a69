"""LoRA adapters in PEFT's format, added to a model's weights when it is loaded.

An adapter has two small matrices A ``[rank, inputs]`` and B ``[outputs, rank]`` for each weight that it changes; the
change is ``scale · B·A``. Adding it once gives what PEFT computes on every call, and costs nothing afterwards.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfy_cpu_core.errors import ModelCorrupt, ModelError
from comfy_cpu_nodes.runtimes.florence.folder import VERIFY, read_json, weight_files
from comfy_cpu_nodes.runtimes.florence.library import Libraries
from comfy_cpu_nodes.runtimes.florence.weights import native_name, read_tensors

__all__ = ["adapter_files", "read_changes"]

_CONFIG = "adapter_config.json"
_NAME = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight")

# Settings that change what an adapter means, and the values that mean the plain thing.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": (None, "none"),
    "use_dora": (None, False),
    "fan_in_fan_out": (None, False),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "trainable_token_indices": (None,),
}


def adapter_files(folder: Path, *, fetch: str) -> tuple[Path, ...]:
    """The files of an adapter: configuration and weights.

    Raises:
        ModelMissing: one is not there.
        ModelError: the weights are a pickle, or the adapter is of a kind that cannot be added to the weights.
        ModelCorrupt: the configuration cannot be read.
    """
    settings = read_json(folder / _CONFIG, fetch=fetch)
    for name, plain in _PLAIN.items():
        if settings.get(name) not in plain:
            raise ModelError(
                f"the adapter {folder} cannot be added to the weights: {name} is {settings.get(name)!r}",
                remedy="use a plain LoRA, or a model that the adapter is merged into",
            )
    return (folder / _CONFIG, *weight_files(folder, "adapter_model", fetch=fetch))


def read_changes(
    libraries: Libraries, folder: Path, shapes: Mapping[str, tuple[int, ...]], *, fetch: str
) -> dict[str, Any]:
    """What an adapter adds to each weight, float32.

    Args:
        folder: the adapter's.
        shapes: the weights that the model has.

    Raises:
        ModelMissing, ModelError, ModelCorrupt: as `adapter_files`; or the adapter is not whole or does not fit the model.
    """
    _, *files = adapter_files(folder, fetch=fetch)
    settings = read_json(folder / _CONFIG, fetch=fetch)
    pairs: dict[str, dict[str, Any]] = {}
    for file in files:
        for name, tensor in read_tensors(libraries, file):
            match = _NAME.fullmatch(name)
            if match is None:
                raise ModelError(f"the adapter {file} has {name!r}, which cannot be added to a weight")
            pairs.setdefault(match[1], {})[match[2]] = tensor.float()
    changes = {}
    for module, pair in pairs.items():
        weight = native_name(f"{module}.weight")
        if weight is None or weight not in shapes:
            raise ModelError(f"the adapter {folder} changes {module!r}, which the model does not have")
        if pair.keys() != {"A", "B"}:
            raise ModelCorrupt(f"the adapter {folder} has only half of what it needs for {module!r}", remedy=VERIFY)
        a, b = pair["A"], pair["B"]
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or (b.shape[0], a.shape[1]) != shapes[weight]:
            raise ModelError(
                f"the adapter {folder} does not fit the model: {module!r} would change by "
                f"{tuple(b.shape)}·{tuple(a.shape)}, its weight is {shapes[weight]}",
                remedy="use it with the model that it was made for",
            )
        changes[weight] = _scale(folder, settings, rank=a.shape[0]) * (b @ a)
    return changes


def _scale(folder: Path, settings: Mapping[str, Any], *, rank: int) -> float:
    alpha = settings.get("lora_alpha", rank)
    if not isinstance(alpha, int | float) or not math.isfinite(alpha) or rank < 1:
        raise ModelCorrupt(f"the adapter {folder}: lora_alpha is {alpha!r}, the rank is {rank}", remedy=VERIFY)
    return float(alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank))
