"""The target ``embedded``: one run at a time, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_core.context import current_run
from comfy_cpu_core.errors import DeadlineExceeded, UsageError, WorkflowInvalid
from comfy_cpu_core.nodes import NodeClass
from comfy_cpu_core.results import Job, Progress, RunRequest, Target
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_engine.engine import Engine
from comfy_cpu_engine.target import EmbeddedTarget, open_embedded


class Workshop:
    """A node that waits until the test lets it go on, and what it has done so far."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.ran: list[str] = []
        self.together = 0
        self.most = 0

    def work(self, name: str) -> dict[str, Any]:
        run = current_run()
        assert run is not None
        self.together += 1
        self.most = max(self.most, self.together)
        self.began.release()
        try:
            while not self.go_on.acquire(timeout=0.01):
                run.check()
        finally:
            self.together -= 1
        self.ran.append(name)
        return {"ui": {"text": [name]}}


@pytest.fixture
def workshop() -> Workshop:
    return Workshop()


@pytest.fixture
def target(
    make_engine: Callable[..., Engine], toy: Callable[..., NodeClass], workshop: Workshop
) -> Iterator[EmbeddedTarget]:
    made = toy("Work", workshop.work, required={"name": ("STRING",)}, returns=(), OUTPUT_NODE=True)
    target = EmbeddedTarget(make_engine(made))
    yield target
    target.close()


def request(name: str, timeout_s: float | None = None) -> RunRequest:
    return RunRequest({"w": {"class_type": "Work", "inputs": {"name": name}}}, timeout_s=timeout_s)


def test_it_is_what_core_calls_a_target(target: EmbeddedTarget, workshop: Workshop) -> None:
    assert isinstance(target, Target)
    workshop.go_on.release()
    job = target.submit(request("a"))
    assert isinstance(job, Job)
    result = job.wait()
    assert (result.status, job.status()) == ("completed", "completed")
    assert [output.text for output in result.outputs] == ["a"]
    assert job.wait() is result, "it can be asked again"
    assert result.queue_seconds >= 0


def test_one_at_a_time_in_order(target: EmbeddedTarget, workshop: Workshop) -> None:
    jobs = [target.submit(request(name)) for name in "abcd"]
    assert workshop.began.acquire(timeout=10)
    assert [job.status() for job in jobs] == ["running", "queued", "queued", "queued"]
    assert target.health() == {
        "ready": True, "target": "embedded", "queued": 3, "running": 1, "models": target.health()["models"]
    }  # fmt: skip
    workshop.go_on.release(4)
    assert [job.wait().status for job in jobs] == ["completed"] * 4
    assert workshop.ran == ["a", "b", "c", "d"]
    assert workshop.most == 1
    assert len({job.id for job in jobs}) == 4


def test_waiting_no_longer_than_that(target: EmbeddedTarget, workshop: Workshop) -> None:
    job = target.submit(request("a"))
    with pytest.raises(DeadlineExceeded, match=job.id):
        job.wait(0.05)
    workshop.go_on.release()
    assert job.wait(10).ok


def test_cancel_what_waits(target: EmbeddedTarget, workshop: Workshop) -> None:
    first, second, third = (target.submit(request(name)) for name in "abc")
    assert workshop.began.acquire(timeout=10)
    second.cancel()
    assert second.status() == "cancelled"
    assert second.wait(0).status == "cancelled", "at once: the first still runs"
    assert first.status() == "running"
    workshop.go_on.release(2)
    assert first.wait().ok
    assert third.wait().ok
    assert workshop.ran == ["a", "c"]


def test_cancel_what_runs(target: EmbeddedTarget, workshop: Workshop) -> None:
    job, after = target.submit(request("a")), target.submit(request("b"))
    assert workshop.began.acquire(timeout=10)
    job.cancel()
    assert job.wait(10).status == "cancelled"
    workshop.go_on.release()
    assert after.wait(10).ok, "the target goes on"
    job.cancel()
    assert job.status() == "cancelled"
    after.cancel()
    assert after.status() == "completed", "nothing happens after the end"


def test_deadline_of_a_request(target: EmbeddedTarget) -> None:
    assert target.submit(request("a", timeout_s=0.05)).wait(10).status == "timed_out"


def test_a_request_that_is_refused(target: EmbeddedTarget, workshop: Workshop) -> None:
    job = target.submit(RunRequest({"w": {"class_type": "Unknown", "inputs": {}}}))
    with pytest.raises(WorkflowInvalid, match="Unknown"):
        job.wait(10)
    assert job.status() == "failed"
    workshop.go_on.release()
    assert target.submit(request("a")).wait(10).ok, "the target goes on"


def test_events_come_from_the_target_s_thread(target: EmbeddedTarget, workshop: Workshop) -> None:
    threads: set[str] = set()
    events: list[Progress] = []

    def listen(event: Progress) -> None:
        threads.add(threading.current_thread().name)
        events.append(event)

    workshop.go_on.release()
    target.submit(request("a"), on_event=listen).wait(10)
    assert [event.kind for event in events] == ["started", "finished"]
    assert threads == {"comfy-cpu-embedded"}


def test_close_ends_everything(target: EmbeddedTarget, workshop: Workshop, workdir: Path) -> None:
    running, waiting = target.submit(request("a")), target.submit(request("b"))
    assert workshop.began.acquire(timeout=10)
    target.close()
    assert (running.wait(0).status, waiting.wait(0).status) == ("cancelled", "cancelled")
    assert workshop.ran == []
    assert list(workdir.iterdir()) == []
    target.close()
    assert target.health()["ready"] is False
    with pytest.raises(UsageError, match="closed"):
        target.submit(request("c"))


def test_close_does_not_wait_for_what_cannot_be_stopped(
    make_engine: Callable[..., Engine], toy: Callable[..., NodeClass], monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def load_a_model() -> dict[str, Any]:
        began.set()
        assert go_on.wait(60)
        return {}

    monkeypatch.setattr("comfy_cpu_engine.target.CLOSE_SECONDS", 0.05)
    target = EmbeddedTarget(make_engine(toy("Load", load_a_model, returns=(), OUTPUT_NODE=True)))
    job = target.submit(RunRequest({"w": {"class_type": "Load", "inputs": {}}}))
    assert began.wait(10)
    target.close()
    assert job.status() == "running"
    go_on.set()
    assert job.wait(10).status == "cancelled"
    target.close()  # the thread ends


def test_close_from_a_listener_does_not_wait_for_itself(target: EmbeddedTarget) -> None:
    job = target.submit(request("a"), on_event=lambda event: target.close())
    assert job.wait(10).status == "cancelled"


def test_close_without_any_run(make_engine: Callable[..., Engine]) -> None:
    EmbeddedTarget(make_engine()).close()


def test_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for models in (tmp_path, str(tmp_path), ModelTree(tmp_path)):
        target = open_embedded("embedded", {"models": models})
        assert target.health()["models"] == str(tmp_path)
        target.close()
    monkeypatch.setenv("COMFY_CPU_MODELS", str(tmp_path / "mine"))
    assert open_embedded("embedded", {}).health()["models"] == str(tmp_path / "mine")
    with pytest.raises(UsageError, match="'modles'"):
        open_embedded("embedded", {"modles": tmp_path})
    with pytest.raises(UsageError, match="embedded://x"):
        open_embedded("embedded://x", {})
