"""Results that are kept between runs.

A node's result is kept under its signature: the class, its values, and the signatures of all that it is connected to.
What is kept is bounded by its size in memory: the result that was not used for the longest time goes first. Only plain
data is kept (arrays, text, numbers, and lists or dicts of them); a handle of a model or a tensor is not, because its
size is unknown and models have a cache of their own.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comfy_cpu_core.results import ModelUse

__all__ = ["CachedResult", "ResultCache", "read_only"]

#: What a value costs besides its data.
_OVERHEAD = 64


@dataclass(frozen=True)
class CachedResult:
    """A node's outputs, and what must be said of them whenever they are used.

    Attributes:
        outputs: per output its list of values.
        models: every model that had a part in them, also in the nodes before: a result of a stand-in stays one.
        warnings: likewise.
    """

    outputs: Sequence[Sequence[Any]]
    models: tuple[ModelUse, ...] = ()
    warnings: tuple[str, ...] = ()


class ResultCache:
    """Keeps results up to a number of bytes; safe to use from several threads.

    Args:
        max_bytes: 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[str, tuple[CachedResult, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """How much is kept now."""
        return self._bytes

    def get(self, signature: str) -> CachedResult | None:
        """The result of that signature, or None. Its arrays are read-only, its lists and dicts are new ones."""
        with self._lock:
            if signature not in self._entries:
                return None
            self._entries.move_to_end(signature)
            result, _ = self._entries[signature]
        return _copied(result)

    def put(self, signature: str, result: CachedResult) -> None:
        """Keep a result, if it is plain data and not larger than the whole cache."""
        size = _size(result.outputs)
        if size is None or size > self.max_bytes:
            return
        copied = _copied(result)
        with self._lock:
            if signature in self._entries:
                self._bytes -= self._entries.pop(signature)[1]
            self._entries[signature] = (copied, size)
            self._bytes += size
            while self._bytes > self.max_bytes:
                _, (_, gone) = self._entries.popitem(last=False)
                self._bytes -= gone


def read_only(value: Any) -> Any:
    """An array as a view that nobody can write to, so that a node cannot change what others get; the rest as it is."""
    if not isinstance(value, np.ndarray):
        return value
    view = value.view()
    view.flags.writeable = False
    return view


def _copied(result: CachedResult) -> CachedResult:
    return CachedResult(_plain_copy(result.outputs), result.models, result.warnings)


def _plain_copy(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain_copy(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_plain_copy(item) for item in value)
    if isinstance(value, dict):
        return {key: _plain_copy(item) for key, item in value.items()}
    return read_only(value)


def _size(value: Any) -> int | None:
    """Bytes that a value holds in memory, or None if it is not plain data."""
    if value is None or type(value) in {bool, int, float, np.float32, np.float64, np.int64, np.bool_}:
        return _OVERHEAD
    if type(value) in {str, bytes}:
        return _OVERHEAD + len(value)
    if type(value) is np.ndarray and value.dtype.kind in "biufc":
        base: Any = value
        while isinstance(base.base, np.ndarray):  # a view keeps all of its array alive
            base = base.base
        return _OVERHEAD + int(base.nbytes)
    if type(value) in {list, tuple}:
        return _sum(value)
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return _sum(value.values())
    return None


def _sum(values: Any) -> int | None:
    total = _OVERHEAD
    for value in values:
        size = _size(value)
        if size is None:
            return None
        total += size
    return total
