"""Loaded models: one cache for the whole process, with a budget of memory.

A model is used inside a *lease*. While leased it stays in memory; between leases the cache may drop it to stay within
its budget, the least recently used first, and the next lease loads it again. The cache knows nothing of how models
work: it keeps anything that is a `Resident`, under any key.

A model loads in a thread of its own, because most libraries cannot be told to stop loading: whoever waits for it may go
away when the run should end, and the next run finds the model in memory. A library that can stop does so when nobody
waits any more.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

from comfy_cpu_core.errors import InputError, Interrupted, ModelError
from comfy_cpu_nodes import host

__all__ = [
    "CACHE_VARIABLE",
    "LoadedModel",
    "ModelCache",
    "ModelKey",
    "Resident",
    "cache_budget",
    "loaded_models",
    "model_cache",
    "release_models",
]

#: The environment variable that sets the budget by hand, in bytes; 0 keeps nothing between uses.
CACHE_VARIABLE = "COMFY_CPU_CACHE_BYTES"

#: The share of the memory that this process may use which goes to models that nobody is using just now. The rest is
#: for images, for working memory and for the peak while a model loads.
_SHARE = 0.5

#: How often, in seconds, whoever waits for a model asks whether the run should end.
_POLL_SECONDS = 0.1


class Resident(Protocol):
    """A model in memory. Its methods are called while nobody uses it, but for `memory_bytes`."""

    def memory_bytes(self) -> int:
        """How much memory it holds, as well as it knows."""

    def trim(self) -> None:
        """Give back what it only needs while it works; the next use may be slower once."""

    def close(self) -> None:
        """Give back everything."""


T = TypeVar("T", bound=Resident)


@dataclass(frozen=True)
class ModelKey:
    """What tells one loaded model from another: a file that was replaced is another model.

    Attributes:
        path: the file.
        size, mtime_ns: as they were when the file was looked at.
        runtime: what runs it: ``openvino``, ``onnxruntime``, ….
        precision: what it computes in.
    """

    path: Path
    size: int
    mtime_ns: int
    runtime: str
    precision: str

    @classmethod
    def of(cls, path: Path, *, runtime: str, precision: str) -> ModelKey:
        """The key of a file as it is now.

        Raises:
            ModelError: it cannot be looked at.
        """
        try:
            status = path.stat()
        except OSError as error:
            raise ModelError(f"model file {path} cannot be read: {error.strerror}") from error
        return cls(path.absolute(), status.st_size, status.st_mtime_ns, runtime, precision)


@dataclass(frozen=True)
class LoadedModel:
    """What `loaded_models` tells of one model."""

    key: Hashable
    memory_bytes: int
    in_use: bool


@dataclass
class _Entry(Generic[T]):
    resident: T | None = None
    loading: Future[T] | None = None  # two that want it load it once
    users: int = 0  # whoever loads it is one


class ModelCache:
    """Models by key, within a budget. Safe to use from several threads.

    Args:
        budget: how many bytes the models may hold together, asked each time; None for no limit. A model in use is
            never dropped, so that what is in use may exceed it.
    """

    def __init__(self, budget: Callable[[], int | None]) -> None:
        self._budget = budget
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry[Resident]] = OrderedDict()

    @contextmanager
    def lease(self, key: Hashable, load: Callable[[], T], *, expected_bytes: int = 0) -> Iterator[T]:
        """Use the model of that key inside the block, loading it if it is not in memory.

        Args:
            key: what tells it from others.
            load: loads it; called in another thread, in the caller's context.
            expected_bytes: how much memory it will hold, to make room before it loads.

        Raises:
            Interrupted, DeadlineExceeded: the run should end while the model loads (inside a ComfyUI: its own
                exception).
            Exception: what `load` raises; nothing is kept then, and the next lease tries again.
        """
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            entry.users += 1
        try:
            yield self._resident(key, cast("_Entry[T]", entry), load, expected_bytes)
        finally:
            self._leave(key, entry)
            self._make_room(0)

    def _resident(self, key: Hashable, entry: _Entry[T], load: Callable[[], T], expected_bytes: int) -> T:
        """The model of an entry that the caller uses: it is there, somebody loads it already, or it is loaded now."""
        with self._lock:
            if entry.resident is not None:
                return entry.resident
            loading = entry.loading
            if loading is None:
                loading = entry.loading = Future()
                entry.users += 1
                arguments = (self._load, key, entry, loading, load, expected_bytes)
                # Not a daemon: a library that still loads while Python ends may crash it.
                threading.Thread(target=contextvars.copy_context().run, args=arguments, name="model loader").start()
        while not wait([loading], _POLL_SECONDS).done:
            host.check_interrupt()
        try:
            return loading.result()
        except _NobodyWaits:  # but for us, who came a moment too late
            return self._resident(key, entry, load, expected_bytes)

    def _load(
        self, key: Hashable, entry: _Entry[T], loading: Future[T], load: Callable[[], T], expected_bytes: int
    ) -> None:
        failure: BaseException | None = None
        try:
            self._make_room(expected_bytes)
            with host.checked_by(lambda: _check_wanted(entry)):
                entry.resident = load()
        except BaseException as error:
            failure = error
        entry.loading = None
        self._leave(key, entry)
        with suppress(InputError):  # whoever waits is told by its own lease
            self._make_room(0)  # whoever wanted the model may have gone away
        # Last, so that whoever waits finds the cache as if it had loaded the model itself.
        if failure is not None:
            loading.set_exception(failure)
        else:
            loading.set_result(cast(T, entry.resident))

    def _leave(self, key: Hashable, entry: _Entry[Any]) -> None:
        with self._lock:
            entry.users -= 1
            if entry.resident is None and entry.users == 0:
                del self._entries[key]

    def release(self, *, drop: bool) -> list[Hashable]:
        """Give memory back that models hold which nobody uses now.

        Args:
            drop: drop the models; otherwise they only give back what they need while they work.

        Returns:
            The keys of the models that gave something back.
        """
        with self._lock:
            idle = [key for key, entry in self._entries.items() if not entry.users]
            entries = {key: self._entries.pop(key) if drop else self._entries[key] for key in idle}
            if not drop:  # nobody may start to use it while it trims
                return [key for key in entries if _trim(entries[key])]
        for entry in entries.values():
            _close(entry)
        return idle

    def models(self) -> list[LoadedModel]:
        """What is in memory now, the least recently used first."""
        with self._lock:
            return [
                LoadedModel(key, entry.resident.memory_bytes(), entry.users > 0)
                for key, entry in self._entries.items()
                if entry.resident is not None
            ]

    def _make_room(self, wanted: int) -> None:
        budget = self._budget()
        if budget is None:
            return
        dropped = []
        with self._lock:
            sizes = {key: e.resident.memory_bytes() for key, e in self._entries.items() if e.resident is not None}
            excess = sum(sizes.values()) + wanted - budget
            for key, size in sizes.items():
                if excess <= 0:
                    break
                if not self._entries[key].users:
                    dropped.append(self._entries.pop(key))
                    excess -= size
        for entry in dropped:
            _close(entry)


class _NobodyWaits(Interrupted):
    """Everybody who wanted a model went away while it loaded."""


def _check_wanted(entry: _Entry[Any]) -> None:
    if entry.users < 2:  # whoever loads it is the other one
        raise _NobodyWaits("nobody waits for the model any more")


def _trim(entry: _Entry[Resident]) -> bool:
    if entry.resident is None:
        return False
    entry.resident.trim()
    return True


def _close(entry: _Entry[Resident]) -> None:
    if entry.resident is not None:
        entry.resident.close()
        entry.resident = None


def cache_budget(environ: Mapping[str, str], memory_limit_bytes: int | None) -> int | None:
    """How much memory loaded models may hold: ``COMFY_CPU_CACHE_BYTES``, else half of what the process may use.

    Raises:
        InputError: the variable is not a number of bytes.
    """
    text = environ.get(CACHE_VARIABLE, "").strip()
    if not text:
        return int(memory_limit_bytes * _SHARE) if memory_limit_bytes is not None else None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise InputError(
            f"{CACHE_VARIABLE} is {text!r}, which is not a number of bytes",
            remedy="set it to a whole number, such as 4000000000, or unset it to use half of the memory",
        )
    return int(text)


def _budget_now() -> int | None:
    from comfy_cpu_core.resources import get_resources

    return cache_budget(os.environ, get_resources().memory_limit_bytes)


@lru_cache(maxsize=1)
def model_cache() -> ModelCache:
    """The cache of this process."""
    return ModelCache(_budget_now)


def release_models(aggressive: bool = False) -> list[Hashable]:
    """Give back memory that loaded models hold, but for those in use.

    Args:
        aggressive: drop the models, so that the next use loads them again; otherwise they stay, and give back only
            the memory that they need while they work.

    Returns:
        The keys (`ModelKey`) of the models that gave something back.
    """
    return model_cache().release(drop=aggressive)


def loaded_models() -> list[LoadedModel]:
    """The models that are in memory now, the least recently used first."""
    return model_cache().models()
