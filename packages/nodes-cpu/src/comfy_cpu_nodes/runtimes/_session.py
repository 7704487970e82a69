"""What the ONNX backends have in common: a model in memory that infers, one call at a time."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from comfy_cpu_nodes.runtimes._process import resident_bytes

__all__ = ["POLL_SECONDS", "Array", "Check", "Session", "TensorInfo"]

#: How often a running inference asks whether it should end.
POLL_SECONDS = 0.1

Array = np.ndarray[Any, np.dtype[Any]]

#: Raises if the run should end.
Check = Callable[[], None]


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a model.

    Attributes:
        name: as the file has it.
        shape: a dimension that may vary is None.
        dtype: of the elements.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        dimensions = ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.dtype} [{dimensions}]"

    def accepts(self, array: Array) -> bool:
        """Whether an array has this type and shape."""
        return (
            array.dtype == self.dtype
            and array.ndim == len(self.shape)
            and all(want is None or want == have for want, have in zip(self.shape, array.shape, strict=True))
        )


class Session(ABC):
    """A model that a backend holds in memory; a `comfy_cpu_nodes.runtimes.cache.Resident`.

    Attributes:
        runtime: the backend with its version.
        precision: what it computes in.
        threads: how many threads it uses.
        inputs, outputs: in the file's order.
    """

    runtime: str
    precision: str
    threads: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def __init__(self, held_bytes: int) -> None:
        self._held = held_bytes
        self._working = 0
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, Array], check: Check) -> dict[str, Array]:
        """Infer, after whoever is inferring now. `check` is called often, and ends the inference by raising."""
        while not self._lock.acquire(timeout=POLL_SECONDS):
            check()
        try:
            check()
            before = resident_bytes()
            result = self.infer(feeds, check)
            self._working = max(self._working, resident_bytes() - before)
            return result
        finally:
            self._lock.release()

    def memory_bytes(self) -> int:
        """What the process grew by when the model was loaded and when it first worked."""
        return self._held + self._working

    def trim(self) -> None:
        """Give back the memory that it only needs while it works."""
        self.give_back()
        self._working = 0

    @abstractmethod
    def infer(self, feeds: Mapping[str, Array], check: Check) -> dict[str, Array]:
        """Infer on arrays that fit `inputs`; called by one thread at a time."""

    @abstractmethod
    def give_back(self) -> None:
        """Release working memory."""

    @abstractmethod
    def close(self) -> None:
        """Release everything."""
