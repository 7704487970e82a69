"""The whole way of a job on RunPod: the client, a queue, the worker loop of RunPod's real SDK, our handler, and back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_runpod import KEY, FakeQueue, FakeRunPod
from faulty_nodes import faulty_environment, one_node
from runpod_server import RunPodServer

from comfy_cpu_client import Client

pytest.importorskip("runpod", reason="the RunPod SDK is not installed")

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "examples" / "astronaut.jpg"
WORKFLOW = ROOT / "examples" / "workflows" / "background_removal.json"


class Bridge(FakeQueue):
    """An endpoint whose jobs go to a worker."""

    def __init__(self, worker: RunPodServer) -> None:
        super().__init__()
        self.worker = worker
        self.cancelled: set[str] = set()

    def answer(
        self, operation: str, job_id: str | None, document: Any, now: float, *, key: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        if operation == "run":
            return 200, {"id": self.worker.submit(document["input"]), "status": "IN_QUEUE"}
        if job_id not in self.worker.posted:
            return 404, {"error": "job not found"}
        if operation == "cancel":
            self.worker.stop(job_id)
            self.cancelled.add(job_id)
        return 200, {"id": job_id, **self.state(job_id)}

    def state(self, job_id: str) -> dict[str, Any]:
        if job_id in self.cancelled:
            return {"status": "CANCELLED"}
        result = self.worker.result(job_id)
        if result is not None:
            said = {name: result[name] for name in ("output", "error") if name in result}
            return {"status": "FAILED" if "error" in result else "COMPLETED", "executionTime": 5, **said}
        progress = self.worker.progress(job_id)
        if progress:
            return {"status": "IN_PROGRESS", "output": progress[-1]}
        return {"status": "IN_PROGRESS" if job_id in self.worker.taken else "IN_QUEUE"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, stand_in_models: Path) -> Iterator[Client]:
    import os

    folder = tmp_path_factory.mktemp("sdk")
    shutil.copytree(stand_in_models, folder / "models")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("COMFY_CPU_", "HF_", "RUNPOD_"))}
    with RunPodServer() as worker, FakeRunPod(Bridge(worker)) as runpod, (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "comfy_cpu_worker.runpod"],
            env={
                **kept,
                "HOME": str(folder),
                "COMFY_CPU_MODELS": str(folder / "models"),
                **worker.environment(),
                **faulty_environment(folder),
            },
            stdout=log,
            stderr=log,
        )
        try:
            with Client("runpod://abc123", api_key=KEY, base_url=runpod.url, sync=False) as client:
                yield client
        finally:
            process.kill()
            process.wait()
            log.seek(0)
            print(log.read()[-6000:])


def test_the_same_as_the_embedded_engine(client: Client, stand_in_models: Path) -> None:
    with Client("embedded", models=stand_in_models) as embedded:
        expected = embedded.run(WORKFLOW, inputs=PHOTO)
    result = client.run(WORKFLOW, inputs=PHOTO, timeout_s=300)
    assert result.status == "completed", result.errors
    described = [(output.node_id, output.kind, output.folder, output.data) for output in result.outputs]
    assert described == [(output.node_id, output.kind, output.folder, output.data) for output in expected.outputs]
    assert result.changes == expected.changes
    assert result.timings
    assert result.stand_in


def test_progress(client: Client) -> None:
    run = client.submit(one_node("TestSteps", steps=4, seconds=1.0))
    assert "step" in {event.kind for event in run.stream()}
    assert run.wait(60).ok


def test_a_failure_and_a_block(client: Client) -> None:
    result = client.run(one_node("TestRaise", text="it broke"))
    assert (result.status, result.errors[0].code, result.errors[0].class_type) == ("failed", "node_failed", "TestRaise")
    assert "Traceback" in result.errors[0].details
    result = client.run(one_node("TestRaise", block=True, text="Content blocked by Test: no"))
    assert (result.status, result.errors[0].code, result.errors[0].node_id) == ("blocked", "blocked", "1")


def test_cancel(client: Client) -> None:
    run = client.submit(one_node("TestSleep", seconds=120))
    next(iter(run.stream()))  # it runs
    run.cancel()
    assert run.wait(30).status == "cancelled"
    assert client.run(one_node("TestText", text="next"), timeout_s=60).ok
