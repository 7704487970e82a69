"""Jobs from document to outcome, over a back end that does what a test says."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_core.errors import TargetError
from comfy_cpu_core.results import EventSink, NodeFailure, NodeTiming, Output, Progress, Result
from comfy_cpu_worker.delivery import DeliveryPolicy
from comfy_cpu_worker.job import JobLimits
from comfy_cpu_worker.outcome import JobOutcome
from comfy_cpu_worker.runner import JobRunner
from comfy_cpu_worker.shelf import Shelf
from comfy_cpu_worker.throttle import INTERVAL_S
from comfy_cpu_worker.urls import UrlPolicy
from comfy_cpu_worker.work import BackendHealth, Work

WORKFLOW = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}
PNG = b"\x89PNG\r\n\x1a\nrest"
PICTURE = Output("9", "SaveImage", "image", "out.png", "image/png", PNG)
B64 = base64.b64encode(PNG).decode()
DONE = Result("completed", outputs=(PICTURE,), timings=(NodeTiming("9", "SaveImage", 0.1),), execution_seconds=0.5)


@dataclass
class FakeBackend:
    """Answers what it is told, and remembers what it was asked."""

    answer: Result | Exception | Callable[[Work], Result] = DONE
    events: tuple[Progress, ...] = ()
    hang: bool = False
    works: list[Work] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    interrupted: bool = False
    name: str = "fake"

    async def start(self) -> None: ...
    async def restart(self) -> None: ...
    async def close(self) -> None: ...
    def health(self) -> BackendHealth:
        return BackendHealth("ready")

    async def run(self, work: Work, *, on_event: EventSink) -> Result:
        self.works.append(work)
        self.begun.set()
        for event in self.events:
            on_event(event)
        if self.hang:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.interrupted = True
                raise
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer if isinstance(self.answer, Result) else self.answer(work)


def runner(backend: FakeBackend, shelf: Path | None = None, **more: Any) -> JobRunner:
    given: dict[str, Any] = {"limits": JobLimits(), "urls": None, "delivery": DeliveryPolicy(), **more}
    return JobRunner(backend, shelf=Shelf(shelf), **given)


def job(**fields: Any) -> dict[str, Any]:
    return {"input": {"workflow": WORKFLOW, "images": [{"name": "a.png", "image": B64}], **fields}}


def run(backend: FakeBackend, document: Any = None, **more: Any) -> JobOutcome:
    return asyncio.run(runner(backend, **more).run("job-1", job() if document is None else document))


def test_a_job_that_completes() -> None:
    backend = FakeBackend()
    outcome = run(backend, job(set={"1.x": 5}, convert=False, timeout=5))
    (work,) = backend.works
    assert (work.job_id, work.workflow, work.files, work.values, work.convert) == (
        "job-1", WORKFLOW, {"a.png": PNG}, {"1.x": 5}, False,
    )  # fmt: skip
    assert work.timeout_s is not None
    assert 4 < work.timeout_s <= 5
    assert (outcome.state, outcome.error, outcome.refresh_worker) == ("COMPLETED", None, False)
    assert outcome.output["images"][0]["data"] == B64
    assert outcome.output["result"]["timings"] == [
        {"node_id": "9", "class_type": "SaveImage", "seconds": 0.1, "cached": False}
    ]
    json.dumps(outcome.to_handler())


def test_a_job_may_ask_for_a_fresh_process() -> None:
    assert run(FakeBackend(), job(refresh_worker=True)).refresh_worker


def test_a_workflow_of_the_shelf(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text(json.dumps(WORKFLOW))
    backend = FakeBackend()
    run(backend, job(workflow="cut"), shelf=tmp_path)
    assert backend.works[0].workflow == WORKFLOW


def test_the_workers_key_where_a_job_brings_none() -> None:
    backend = FakeBackend()
    for document in (job(), job(comfy_org_api_key="the job's")):
        run(backend, document, comfy_org_api_key="the worker's")
    assert [work.comfy_org_api_key for work in backend.works] == ["the worker's", "the job's"]


# How jobs end ---------------------------------------------------------------------------------------------------------

BLOCKED = NodeFailure("blocked", "Content blocked by safety gate: nsfw", "5", "LLMSafetyGate")
BROKEN = NodeFailure("node_failed", "it broke", "4", "X", "Traceback …", "mend it")


@pytest.mark.parametrize(
    ("result", "state", "error"),
    [
        (Result("blocked", outputs=(PICTURE,), errors=(BLOCKED,)), "FAILED", BLOCKED.message),
        (Result("failed", outputs=(PICTURE,), errors=(BROKEN,)), "FAILED", "node 4 (X): it broke"),
        (Result("cancelled", errors=(NodeFailure("cancelled", "stopped"),)), "CANCELLED", "stopped"),
        (Result("timed_out", errors=(NodeFailure("deadline", "too late"),)), "TIMED_OUT", "too late"),
        (Result("failed"), "FAILED", "the job ended: failed"),
    ],
)
def test_what_did_not_complete(result: Result, state: str, error: str) -> None:
    outcome = run(FakeBackend(result))
    assert (outcome.state, outcome.error) == (state, error)
    assert outcome.output["images"] == []
    assert outcome.output["status"] == outcome.output["result"]["status"] == result.status
    assert outcome.to_handler()["error"] == error


def test_a_block_has_a_record_of_its_own() -> None:
    output = run(FakeBackend(Result("blocked", errors=(BLOCKED,)))).output
    assert output["blocked"] == {"node_id": "5", "class_type": "LLMSafetyGate", "message": BLOCKED.message}


def test_a_failure_has_its_traceback_and_remedy() -> None:
    (error,) = run(FakeBackend(Result("failed", errors=(BROKEN,)))).output["result"]["errors"]
    assert error == vars(BROKEN)


@pytest.mark.parametrize(
    ("document", "error", "code"),
    [
        ({}, "Please provide input", "input"),
        ({"input": "{"}, "Invalid JSON format in input", "input"),
        ({"input": {}}, "Missing 'workflow' parameter", "input"),
        (job(images="x"), "'images' must be a list of objects with 'name' and 'image' keys", "input"),
        (job(images=[{"name": "../x", "image": B64}]), "input.images[0].name: '../x' leads out of its folder", "input"),
        (job(images=[{"name": "x", "image": "?"}]), "input.images[0].image is not base64: ", "input"),
        (job(workflow="missing"), "input.workflow: no workflow 'missing' is baked into this worker", "input"),
        (job(outputs={"delivery": "s3"}), "input.outputs.delivery is 's3', and there is no bucket", "input"),
        (
            job(images=[{"name": "x", "image": "https://a/b"}]),
            "input.images[0].image is a URL, and this worker",
            "input",
        ),
    ],
)
def test_a_job_that_is_rejected(document: Any, error: str, code: str) -> None:
    backend = FakeBackend()
    outcome = run(backend, document)
    assert outcome.state == "FAILED"
    assert str(outcome.error).startswith(error)
    assert outcome.output["status"] == "failed"
    assert outcome.output["result"]["errors"][0]["code"] == code
    assert outcome.output["errors"] == [outcome.error]
    assert backend.works == []


def test_absurd_nesting_is_rejected() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    outcome = run(FakeBackend(), job(set={"1.x": deep}))
    assert (outcome.state, outcome.error) == ("FAILED", "the job is nested more than 120 levels deep")


def test_a_back_end_that_cannot_be_used() -> None:
    outcome = run(FakeBackend(TargetError("the engine's process ended", remedy="look at its log")))
    assert (outcome.state, outcome.error) == ("FAILED", "the engine's process ended")
    assert outcome.output["result"]["errors"][0]["remedy"] == "look at its log"


def test_a_fault_of_the_worker_is_a_failed_job(caplog: pytest.LogCaptureFixture) -> None:
    outcome = run(FakeBackend(RuntimeError("secret: hush-hush")), job(comfy_org_api_key="hush-hush"))
    assert (outcome.state, outcome.error) == ("FAILED", "the worker failed: RuntimeError; its log says more")
    assert "job job-1: the worker failed" in caplog.text
    assert "RuntimeError: secret: …" in caplog.text
    assert "hush" not in caplog.text


def test_outputs_that_cannot_be_delivered_fail_the_job_and_keep_its_record() -> None:
    outcome = run(FakeBackend(), delivery=DeliveryPolicy(output_bytes=100))
    assert outcome.state == "FAILED"
    assert "an answer may have 100" in str(outcome.error)
    assert outcome.output["images"] == []
    assert outcome.output["result"]["errors"][0]["code"] == "delivery"
    assert outcome.output["result"]["timings"]


def test_files_that_do_not_arrive_in_time() -> None:
    asked = threading.Event()

    def resolver(host: str, port: int) -> list[str]:
        asked.wait(60)
        return []

    document = job(images=[{"name": "a.png", "image": "http://host.example/a.png"}], timeout=0.2)
    outcome = run(FakeBackend(), document, limits=JobLimits(urls=True), urls=UrlPolicy(), resolver=resolver)
    asked.set()
    assert (outcome.state, outcome.error) == ("TIMED_OUT", "the job's files did not arrive within its 0.2 s")
    assert outcome.output["status"] == "timed_out"


def test_a_cancelled_task_interrupts_the_run() -> None:
    told: list[Mapping[str, Any]] = []

    async def main() -> FakeBackend:
        events = tuple(Progress("step", "4", "X", value=n, total=9, nodes=1) for n in range(9))
        backend = FakeBackend(hang=True, events=events)
        task = asyncio.create_task(runner(backend).run("job-1", job(), on_progress=told.append))
        await asyncio.wait_for(backend.begun.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(2 * INTERVAL_S)
        return backend

    assert asyncio.run(main()).interrupted
    assert [document["step"] for document in told] == [0], "nothing is told of a job behind its end"


# What is told ---------------------------------------------------------------------------------------------------------


def test_progress() -> None:
    events = (
        Progress("started", "4", "X", nodes=2),
        *(Progress("step", "4", "X", value=n, total=50, nodes=2) for n in range(50)),
        Progress("notice", "4", "X", nodes=2, message="mind the step"),
        Progress("finished", "4", "X", done=2, nodes=2),
    )
    told: list[Mapping[str, Any]] = []
    asyncio.run(runner(FakeBackend(events=events)).run("job-1", job(), on_progress=told.append))
    assert [(document["kind"], document["percent"]) for document in told] == [
        ("started", 0.0), ("step", 49.0), ("notice", 0.0), ("finished", 100.0),
    ]  # fmt: skip


def test_no_secret_is_repeated(caplog: pytest.LogCaptureFixture) -> None:
    secrets = ("key-1234567", "pass-1234567", "https://bucket/a.png?X-Amz-Signature=0123456789")
    document = job(comfy_org_api_key=secrets[0], set={"1.password": secrets[1]}) | {"webhook": secrets[2]}
    message = " ".join((*secrets, "worker-key-123"))
    failure = NodeFailure("node_failed", message, "4", "X", f"Traceback\n{message}", message)
    backend = FakeBackend(
        Result("failed", errors=(failure,), warnings=(message,)), events=(Progress("notice", message=message),)
    )
    told: list[Mapping[str, Any]] = []
    outcome = asyncio.run(
        runner(backend, comfy_org_api_key="worker-key-123").run("job-1", document, on_progress=told.append)
    )
    assert backend.works[0].values == {"1.password": secrets[1]}
    everything = json.dumps([outcome.to_handler(), told]) + caplog.text
    assert "… … … …" in str(outcome.error)
    assert not [secret for secret in (*secrets, "worker-key-123") if secret in everything]


def test_what_nodes_made_stays_as_it_is() -> None:
    text = Output("7", "ShowText", "text", "7_text.txt", "text/plain", b"the key is key-1234567")
    outcome = run(FakeBackend(Result("completed", outputs=(text,))), job(comfy_org_api_key="key-1234567"))
    assert outcome.output["texts"][0]["data"] == "the key is key-1234567"
