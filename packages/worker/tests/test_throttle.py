from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from comfy_cpu_core.results import Progress
from comfy_cpu_worker.throttle import Throttle


def step(value: int) -> Progress:
    return Progress("step", "4", "X", value=value, total=100, nodes=1)


class Sink:
    """Takes documents; knows when the first so many are there."""

    def __init__(self) -> None:
        self.documents: list[Mapping[str, Any]] = []
        self.more = asyncio.Event()

    def __call__(self, document: Mapping[str, Any]) -> None:
        self.documents.append(document)
        self.more.set()

    @property
    def steps(self) -> list[float]:
        return [document["step"] for document in self.documents]


def test_the_first_and_the_last() -> None:
    async def main() -> list[float]:
        sink = Sink()
        throttle = Throttle(sink, interval_s=3600)
        for value in range(100):
            throttle(step(value))
        throttle.flush()
        throttle.flush()
        return sink.steps

    assert asyncio.run(main()) == [0, 99]


def test_what_is_held_back_comes_by_itself() -> None:
    async def main() -> list[float]:
        sink = Sink()
        throttle = Throttle(sink, interval_s=0.02)
        throttle(step(1))
        sink.more.clear()
        throttle(step(2))
        throttle(step(3))
        assert sink.steps == [1]
        await asyncio.wait_for(sink.more.wait(), 10)
        return sink.steps

    assert asyncio.run(main()) == [1, 3]


def test_notices_are_never_lost_and_keep_their_place() -> None:
    async def main() -> list[tuple[Any, Any]]:
        sink = Sink()
        throttle = Throttle(sink, interval_s=3600)
        throttle(step(1))
        throttle(step(2))
        for text in ("one", "two"):
            throttle(Progress("notice", "4", "X", message=text))
        return [(document["kind"], document["message"] or document["step"]) for document in sink.documents]

    assert asyncio.run(main()) == [("step", 1), ("step", 2), ("notice", "one"), ("notice", "two")]


def test_a_listener_that_raises_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def sink(document: Mapping[str, Any]) -> None:
        calls.append(document)
        raise OSError("gone")

    async def main() -> None:
        throttle = Throttle(sink, interval_s=0)
        throttle(step(1))
        throttle(step(2))

    asyncio.run(main())
    assert len(calls) == 1
    assert caplog.messages == ["progress is no longer reported: OSError: gone"]


def test_nothing_comes_behind_the_end() -> None:
    async def main() -> list[float]:
        sink = Sink()
        throttle = Throttle(sink, interval_s=0.01)
        throttle(step(1))
        throttle(step(2))
        throttle.close()
        throttle(step(3))
        await asyncio.sleep(0.05)
        return sink.steps

    assert asyncio.run(main()) == [1]
