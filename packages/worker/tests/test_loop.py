from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError
from typing import NoReturn

import pytest

from comfy_cpu_worker.loop import LoopThread


def test_coroutines_of_several_callers_share_one_loop_and_thread() -> None:
    async def where() -> tuple[asyncio.AbstractEventLoop, int]:
        return asyncio.get_running_loop(), threading.get_ident()

    loop = LoopThread("test")
    first, second = loop.run(where()), loop.run(where())
    assert first == second
    assert first[1] != threading.get_ident()
    loop.close()
    loop.close()


def test_an_exception_reaches_the_caller() -> None:
    async def fail() -> NoReturn:
        raise KeyError("what")

    loop = LoopThread("test")
    with pytest.raises(KeyError, match="what"):
        loop.run(fail())
    loop.close()


def test_cancelling_the_future_cancels_the_task() -> None:
    begun, ended = threading.Event(), threading.Event()

    async def forever() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
            raise

    loop = LoopThread("test")
    future = loop.submit(forever())
    assert begun.wait(10)
    future.cancel()
    assert ended.wait(10)
    loop.close()


def test_close_ends_what_still_runs() -> None:
    begun = threading.Event()
    cleaned: list[str] = []

    async def forever() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append("up")

    loop = LoopThread("test")
    future = loop.submit(forever())
    assert begun.wait(10)
    loop.close()
    assert cleaned == ["up"]
    with pytest.raises(CancelledError):
        future.result(0)
