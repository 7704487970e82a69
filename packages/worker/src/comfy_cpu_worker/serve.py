"""The whole worker with its local API, from the first process to the last answer."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_cpu_worker.backends import open_backend
from comfy_cpu_worker.settings import WorkerSettings
from comfy_cpu_worker.shelf import Shelf
from comfy_cpu_worker.work import Backend

if TYPE_CHECKING:
    from comfy_cpu_worker.api.assembly import Assembly
    from comfy_cpu_worker.api.server import ApiServer

__all__ = ["serve"]

log = logging.getLogger(__name__)

#: Seconds that webhooks are given which are called when the worker ends.
_WEBHOOK_S = 2.0

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def serve(
    settings: WorkerSettings,
    sockets: list[socket.socket],
    state: Path,
    shelf: Shelf,
    *,
    on_ready: Callable[[], None],
) -> None:
    """Serve until a signal (SIGTERM, SIGINT) asks for the end.

    At the first signal no more jobs are taken, and the one that runs may end in the grace period; clients are answered
    all the while. A second signal ends the grace period.

    Args:
        settings: all of them.
        sockets: where to listen.
        state: the state directory, locked.
        shelf: the workflows that jobs may name.
        on_ready: called when a job would run.

    Raises:
        TargetError: the back end did not become ready.
        StorageFailed, ComfyCpuError: the state directory cannot be used.
    """
    async with AsyncExitStack() as stack:
        signals = stack.enter_context(_Signals())
        backend = open_backend(settings)
        stack.push_async_callback(backend.close)
        # First of all, so that its process starts, and its models load, while the rest of this one is imported.
        starting = asyncio.create_task(backend.start(), name="comfy-cpu-backend-start")
        stack.push_async_callback(_end, starting)
        parts = await asyncio.to_thread(_assemble, settings, backend, shelf)
        queue = parts.queue
        if parts.webhooks is not None:
            stack.push_async_callback(parts.webhooks.close, _WEBHOOK_S)
        stack.push_async_callback(queue.close)
        await queue.open(state)
        serving = asyncio.create_task(parts.server.serve(sockets), name="comfy-cpu-api")
        stack.push_async_callback(_end_server, parts.server, serving)
        if await _first(starting, serving, signals.asked):
            dispatching = queue.start()
            on_ready()
            await _first(dispatching, serving, signals.asked)
        if signals.asked.done():
            log.info("the worker ends; a job that runs has %g s", settings.grace_s)
            signals.on_next = queue.hurry
            await queue.drain(settings.grace_s)


def _assemble(settings: WorkerSettings, backend: Backend, shelf: Shelf) -> Assembly:
    from comfy_cpu_worker.api.assembly import assemble

    return assemble(settings, backend, shelf)


async def _first(expected: asyncio.Future[None], serving: asyncio.Task[None], asked: asyncio.Future[None]) -> bool:
    """Wait for the first of them; whether it is the expected one. What failed raises."""
    done, _ = await asyncio.wait({expected, serving, asked}, return_when=asyncio.FIRST_COMPLETED)
    for future in done:
        future.result()
    return expected in done


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def _end_server(server: ApiServer, serving: asyncio.Task[None]) -> None:
    server.should_exit = True
    await asyncio.wait({serving})


class _Signals:
    """Signals that ask for the end, while the block lasts.

    Attributes:
        asked: done at the first one.
        on_next: called at every other.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.asked: asyncio.Future[None] = self._loop.create_future()
        self.on_next: Callable[[], None] = lambda: None

    def __enter__(self) -> _Signals:
        for number in _SIGNALS:
            self._loop.add_signal_handler(number, self._take)
        return self

    def __exit__(self, *error: object) -> None:
        for number in _SIGNALS:
            self._loop.remove_signal_handler(number)

    def _take(self) -> None:
        if self.asked.done():
            self.on_next()
        else:
            self.asked.set_result(None)
