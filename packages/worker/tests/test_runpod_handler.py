from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from comfy_cpu_worker.loop import LoopThread
from comfy_cpu_worker.outcome import JobOutcome
from comfy_cpu_worker.runpod import MIN_MEMORY_GB, make_handler, prepare_sdk


class FakeRunner:
    """Stands in for `JobRunner`: says what it was asked and answers what it is told."""

    def __init__(self, outcome: JobOutcome | None) -> None:
        self.outcome = outcome
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.begun, self.cancelled = threading.Event(), threading.Event()

    async def run(
        self, job_id: str, document: Mapping[str, Any], *, on_progress: Callable[[Mapping[str, Any]], None]
    ) -> JobOutcome:
        self.asked.append((job_id, document))
        on_progress({"percent": 50.0})
        self.begun.set()
        if self.outcome is not None:
            return self.outcome
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        raise AssertionError


@pytest.fixture
def loop() -> Any:
    thread = LoopThread("test")
    yield thread
    thread.close()


def call(runner: FakeRunner, loop: LoopThread, job: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    sent: list[Any] = []
    handler = make_handler(runner, loop, lambda job, document: sent.append((job["id"], document)))  # type: ignore[arg-type]
    return asyncio.run(handler(job)), sent  # type: ignore[arg-type]


def test_a_job_that_completed(loop: LoopThread) -> None:
    runner = FakeRunner(JobOutcome("COMPLETED", {"images": [], "status": "completed"}))
    answer, sent = call(runner, loop, {"id": "a", "input": {"workflow": {}}})
    assert answer == {"images": [], "status": "completed"}
    assert runner.asked == [("a", {"id": "a", "input": {"workflow": {}}})]
    assert sent == [("a", {"percent": 50.0})]


def test_an_error_is_told_in_the_way_that_makes_runpod_fail_the_job(loop: LoopThread) -> None:
    runner = FakeRunner(JobOutcome("FAILED", {"images": [], "status": "blocked"}, "Content blocked", True))
    answer, _ = call(runner, loop, {"id": "a", "input": {}})
    assert answer == {"images": [], "status": "blocked", "error": "Content blocked", "refresh_worker": True}


def test_a_stop_reaches_the_back_end(loop: LoopThread) -> None:
    runner = FakeRunner(None)
    handler = make_handler(runner, loop, lambda job, document: None)  # type: ignore[arg-type]

    async def stop_in_the_middle() -> None:
        task = asyncio.ensure_future(handler({"id": "a", "input": {}}))
        assert await asyncio.to_thread(runner.begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(stop_in_the_middle())
    assert runner.cancelled.wait(10)


def test_a_small_worker_is_not_killed_by_the_sdk_for_its_memory() -> None:
    environ = {"PATH": "/bin"}
    prepare_sdk(environ)
    assert environ["RUNPOD_MIN_MEMORY_GB"] == MIN_MEMORY_GB
    assert environ["RUNPOD_LOG_LEVEL"] == "INFO"  # DEBUG, its own default, writes pictures into the log
    environ["RUNPOD_MIN_MEMORY_GB"] = "12"
    prepare_sdk(environ)
    assert environ["RUNPOD_MIN_MEMORY_GB"] == "12"
