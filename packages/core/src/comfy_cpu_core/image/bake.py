"""What is prepared at build time, so that a container starts faster: baked models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_cpu_core.tree import ModelTree

__all__ = ["BakeJob", "BakeStep", "BakedFile"]

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class BakeStep:
    """A preparation of one model (hook ``comfy_cpu_bake``).

    Attributes:
        name: unique for the model: ``openvino``.
        model_id: the model that it prepares.
        function: ``package.module:function``, called with a `BakeJob` in a process of its own; gives an iterable of
            `BakedFile`. The runtime that owns the format has it; a plugin names it and its parameters.
        verify: ``package.module:function``, called the same way once the files are there; raises where the baked
            model does not give what the unbaked one gives.
        instruction_sets: what the CPU of a container must have, in the kernel's spelling (``amx_bf16``); on others
            the unbaked model is used.
        parameters: JSON for the function.
    """

    name: str
    model_id: str
    function: str
    verify: str
    instruction_sets: frozenset[str] = frozenset()
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for function in (self.function, self.verify):
            if not _FUNCTION.fullmatch(function):
                raise ValueError(f"bake step {self.name}: {function!r} is not package.module:function")


@dataclass(frozen=True)
class BakeJob:
    """One bake step under way, as its function sees it.

    Attributes:
        models: the model tree, with the unbaked model; read only.
        output: an empty directory with the layout of a model tree; what is written here joins the image's tree.
        parameters: as the step has them.
        threads: how many threads to use.
    """

    models: ModelTree
    output: Path
    parameters: Mapping[str, Any]
    threads: int


@dataclass(frozen=True)
class BakedFile:
    """A file that a bake step wrote: its path below `BakeJob.output`, with ``/``."""

    target: str
