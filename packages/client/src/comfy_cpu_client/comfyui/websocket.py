"""A websocket for a thread that blocks, carried out by an event loop in a thread of its own.

Everything that touches the connection happens in the loop's thread. With a websocket that is read in one thread and
closed or pinged from another, two threads would use one TLS connection at once, which ends in a segmentation fault now
and then before Python 3.14.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

__all__ = ["Closed", "Websocket"]

T = TypeVar("T")

#: What closing and opening may take beyond their own limits, in seconds: the loop's thread is busy with nothing else.
_SLACK_SECONDS = 5.0


class Closed(Exception):
    """The websocket was closed."""


class Websocket:
    """An open websocket; for one thread.

    Args:
        url: ``ws://…`` or ``wss://…``. Redirects are not followed.
        open_timeout: seconds for opening it.
        close_timeout: seconds that the other side may take to close it.
        options: the rest of what ``websockets.asyncio.client.connect`` takes.

    Raises:
        InvalidStatus, WebSocketException, OSError, TimeoutError, ValueError: as ``connect``.
    """

    def __init__(self, url: str, *, open_timeout: float, close_timeout: float, options: Mapping[str, Any]) -> None:
        self._close_timeout = close_timeout
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="comfy-cpu-websocket", daemon=True)
        self._thread.start()
        try:
            self._connection = self._run(
                _open(url, {**options, "open_timeout": open_timeout, "close_timeout": close_timeout}),
                open_timeout + _SLACK_SECONDS,
            )
        except BaseException:
            self._end()
            raise

    def send(self, text: str) -> None:
        """Send a message.

        Raises:
            Closed: there is nobody any more.
        """
        from websockets.exceptions import ConnectionClosed

        try:
            self._run(self._connection.send(text))
        except (ConnectionClosed, OSError):
            raise Closed from None

    def receive(self, timeout_s: float) -> str | bytes | None:
        """The next message; None if there is none within `timeout_s` seconds.

        Raises:
            Closed: there will be no more.
        """
        from websockets.exceptions import ConnectionClosed

        try:
            return self._run(self._receive(timeout_s))
        except TimeoutError:
            return None
        except (ConnectionClosed, OSError):
            raise Closed from None

    def close(self) -> None:
        """Close it. May be called twice."""
        if self._thread.is_alive():
            with suppress(Exception):  # whatever state it is in, it is not needed any more
                self._run(self._connection.close(), self._close_timeout + _SLACK_SECONDS)
            self._end()

    async def _receive(self, timeout_s: float) -> str | bytes:
        async with asyncio.timeout(timeout_s):
            return await self._connection.recv()

    def _run(self, awaitable: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(awaitable, self._loop)
        try:
            return future.result(timeout_s)
        except BaseException:  # an interrupt, too
            future.cancel()
            raise

    def _work(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(_drain())
        finally:
            self._loop.close()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SLACK_SECONDS)


async def _open(url: str, options: Mapping[str, Any]) -> ClientConnection:
    from websockets.asyncio.client import connect

    class Connect(connect):
        def process_redirect(self, exc: Exception) -> Exception:
            return exc  # the user's password goes where the user says, and nowhere else

    opening: Awaitable[ClientConnection] = Connect(url, **options)
    return await opening


async def _drain() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
