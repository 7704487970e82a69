"""The store's own thread: SQLite waits for the disk, and the event loop must not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from comfy_cpu_worker.store import Store

__all__ = ["StoreThread"]

P = ParamSpec("P")
T = TypeVar("T")


class StoreThread:
    """Calls a store's methods one after the other, in the one thread that it belongs to.

    A call that was begun is carried out, even if the task that waits for it is cancelled.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "comfy-cpu-store")
        self._store: Store | None = None

    async def open(self, directory: Path) -> None:
        """Open the store.

        Raises:
            StorageFailed, ComfyCpuError: see `Store`.
        """
        self._store = await asyncio.get_running_loop().run_in_executor(self._thread, Store, directory)

    async def call(self, method: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method: ``await thread.call(Store.get, job_id)``."""
        assert self._store is not None, "open() comes first"  # noqa: S101
        work = partial(method, self._store, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Close the store and end the thread. May be called twice."""
        if self._store is not None:
            await self.call(Store.close)
            self._store = None
        self._thread.shutdown()
