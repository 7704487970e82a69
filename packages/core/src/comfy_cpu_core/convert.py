"""CPU conversion: what changes in a workflow so that it runs without a GPU, and the report of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["CannotRun", "InputChange"]


@dataclass(frozen=True)
class InputChange:
    """A plugin's wish to change one input of a node (hook ``comfy_cpu_convert_node``).

    Attributes:
        input: the input's name.
        new: its new value.
        reason: why, in words that the user understands.
    """

    input: str
    new: Any
    reason: str


@dataclass(frozen=True)
class CannotRun:
    """A plugin's word that a node cannot run on a CPU, and why."""

    reason: str
