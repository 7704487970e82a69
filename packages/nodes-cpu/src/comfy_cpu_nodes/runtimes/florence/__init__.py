"""Florence-2 through transformers' own classes: no code out of a model's directory is ever run, no pickle ever read.

`open_florence` checks a directory and gives a `Florence`, a handle; `lease_florence` gives the loaded model.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from comfy_cpu_core.errors import InputError
from comfy_cpu_core.resources import get_resources
from comfy_cpu_core.results import ModelUse
from comfy_cpu_nodes import host
from comfy_cpu_nodes.runtimes.cache import model_cache
from comfy_cpu_nodes.runtimes.florence.decode import Sampling
from comfy_cpu_nodes.runtimes.florence.folder import STAND_IN_KEY, read_folder
from comfy_cpu_nodes.runtimes.florence.library import has_libraries, load_libraries, runtime_name
from comfy_cpu_nodes.runtimes.florence.lora import adapter_files, read_changes
from comfy_cpu_nodes.runtimes.florence.model import FlorenceModel
from comfy_cpu_nodes.runtimes.florence.tokens import SPECIAL_TOKENS
from comfy_cpu_nodes.runtimes.onnx import PRECISION_VARIABLE

__all__ = [
    "SPECIAL_TOKENS",
    "STAND_IN_KEY",
    "Adapter",
    "Attention",
    "Florence",
    "FlorenceModel",
    "Precision",
    "Sampling",
    "best_precision",
    "has_libraries",
    "lease_florence",
    "load_libraries",
    "open_adapter",
    "open_florence",
    "runtime_name",
]

Precision = Literal["bf16", "f32"]
Attention = Literal["sdpa", "eager"]


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter, checked but not read.

    Attributes:
        path: its directory.
        fetch: the command that gets it, for errors.
        fingerprint: size and time of its files.
    """

    path: Path
    fetch: str
    fingerprint: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Florence:
    """A model that can be leased: its directory, and how it is to compute. Two equal ones share one copy in memory.

    Attributes:
        path: the directory.
        name: what messages and results call it: its path inside the model tree.
        fetch: the command that gets it, for errors.
        fingerprint: name, size and time of its files: a model that was replaced is another one.
        precision, attention, adapter: how it computes.
    """

    path: Path
    name: str
    fetch: str
    fingerprint: tuple[tuple[str, int, int], ...]
    precision: Precision
    attention: Attention
    adapter: Adapter | None


def best_precision(environ: Mapping[str, str] = os.environ) -> Precision:
    """What models compute in: ``bf16`` where the CPU multiplies it in hardware, else ``f32``.

    ``COMFY_CPU_PRECISION=f32`` forces the latter.

    Raises:
        InputError: the variable says something else.
    """
    forced = environ.get(PRECISION_VARIABLE, "")
    if forced not in {"", "auto", "f32"}:
        raise InputError(
            f"{PRECISION_VARIABLE} is {forced!r}, which is no precision", remedy="set it to auto or f32, or unset it"
        )
    return "bf16" if get_resources().has_bf16 and forced != "f32" else "f32"


def open_adapter(path: Path, *, fetch: str) -> Adapter:
    """Check the directory of a LoRA adapter.

    Raises:
        ModelMissing, ModelCorrupt, ModelError: a file is not there, cannot be read, or is of a kind that is not for us.
    """
    files = [file.stat() for file in adapter_files(path, fetch=fetch)]
    return Adapter(path, fetch, tuple((status.st_size, status.st_mtime_ns) for status in files))


def open_florence(
    path: Path,
    *,
    name: str,
    fetch: str,
    precision: Precision,
    attention: Attention = "sdpa",
    adapter: Adapter | None = None,
) -> Florence:
    """Check the directory of a model, and load it, so that what is wrong with it shows here.

    Args:
        path: the directory, in the native or the old layout.
        name: what messages and results call it.
        fetch: the command that gets it, for errors.

    Raises:
        ModelMissing, ModelCorrupt, ModelError: a file is not there, cannot be read, or is of a kind that is not for us.
    """
    fingerprint = read_folder(path, fetch=fetch).fingerprint
    florence = Florence(path, name, fetch, fingerprint, precision, attention, adapter)
    with lease_florence(florence):
        return florence


@contextmanager
def lease_florence(florence: Florence) -> Iterator[FlorenceModel]:
    """Use a model inside the block: from the process's cache, or loaded.

    The current run, if there is one, learns that the model is used, and warns the user of a stand-in.

    Raises:
        ModelMissing, ModelCorrupt, ModelError: as `open_florence`.
    """
    spent = 0.0

    def load() -> FlorenceModel:
        nonlocal spent
        started = time.monotonic()
        model = _load(florence)
        spent = time.monotonic() - started
        return model

    size = sum(size for name, size, _ in florence.fingerprint if name.endswith(".safetensors"))
    with model_cache().lease(florence, load, expected_bytes=2 * size) as model:
        _tell_run(florence, model, spent)
        yield model


def _load(florence: Florence) -> FlorenceModel:
    libraries, adapter = load_libraries(), florence.adapter

    def changes(shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, Any]:
        return read_changes(libraries, adapter.path, shapes, fetch=adapter.fetch) if adapter else {}

    return FlorenceModel(
        libraries,
        read_folder(florence.path, fetch=florence.fetch),
        precision=florence.precision,
        attention=florence.attention,
        read_changes=changes,
    )


def _tell_run(florence: Florence, model: FlorenceModel, load_seconds: float) -> None:
    lacks = (
        "its weights are random numbers, its answers are not about the picture; "
        "use its results for demonstrations and tests only"
    )
    threads = get_resources().threads
    use = ModelUse(florence.name, runtime_name(), florence.precision, threads, model.stand_in, load_seconds)
    host.model_used(use, lacks)
