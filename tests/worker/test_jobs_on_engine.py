"""Whole jobs on the real engine: what existing clients send, and the same outputs as in this process."""

from __future__ import annotations

import base64
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfy_cpu_client import Client
from comfy_cpu_client.payload import output_to_result
from comfy_cpu_worker.backends.engine import EngineBackend, EngineOptions
from comfy_cpu_worker.delivery import DeliveryPolicy
from comfy_cpu_worker.job import JobLimits
from comfy_cpu_worker.loop import LoopThread
from comfy_cpu_worker.outcome import JobOutcome
from comfy_cpu_worker.runner import JobRunner
from comfy_cpu_worker.shelf import Shelf

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "examples" / "astronaut.jpg"
WORKFLOWS = ROOT / "examples" / "workflows"
UI_WORKFLOW = "BG_remove_BEN2_simple_2nd"

#: As a client of the reference worker has it: exported in API format.
WORKFLOW = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photo.jpg"}},
    "4": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], "upscale_method": "bilinear", "width": 64, "height": 64, "crop": "disabled"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "out"}},
}  # fmt: skip

Run = Callable[..., JobOutcome]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def runner(stand_in_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[JobRunner, LoopThread]]:
    base = tmp_path_factory.mktemp("worker")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("COMFY_CPU_", "HF_", "RUNPOD_"))}
    environ = {**kept, "HOME": str(base), "HF_HUB_OFFLINE": "1"}
    loop = LoopThread("test")
    backend = EngineBackend(
        EngineOptions(models=stand_in_models, workdir=base / "work", prefetch=False), environ=environ
    )
    try:
        loop.run(backend.start())
        policy = DeliveryPolicy()
        yield JobRunner(backend, shelf=Shelf(WORKFLOWS), limits=JobLimits(), urls=None, delivery=policy), loop
    finally:
        loop.run(backend.close())
        loop.close()


@pytest.fixture
def run(runner: tuple[JobRunner, LoopThread]) -> Run:
    job_runner, loop = runner

    def run(told: list[Any] | None = None, job: dict[str, Any] | None = None, **fields: Any) -> JobOutcome:
        document = {"input": {"workflow": WORKFLOW, **fields}, **(job or {})}
        sink = None if told is None else told.append
        return loop.run(job_runner.run("job-1", document, on_progress=sink))

    return run


def test_what_an_existing_client_sends_and_reads(run: Run) -> None:
    outcome = run(images=[{"name": "photo.jpg", "image": f"data:image/jpeg;base64,{b64(PHOTO.read_bytes())}"}])
    assert outcome.state == "COMPLETED", outcome.error
    (item,) = outcome.to_handler()["images"]
    assert item["filename"].startswith("out_")
    with Image.open(io.BytesIO(base64.b64decode(item["data"]))) as picture:
        assert picture.size == (64, 64)


def test_the_same_outputs_as_in_this_process(run: Run, stand_in_models: Path) -> None:
    told: list[Any] = []
    photo = {"name": "me.jpg", "data": b64(PHOTO.read_bytes())}
    outcome = run(told, workflow=UI_WORKFLOW, inputs={"1.image": photo})
    assert outcome.state == "COMPLETED", outcome.error
    result = output_to_result(json.loads(json.dumps(outcome.output)))
    with Client("embedded", models=stand_in_models) as client:
        here = client.run(WORKFLOWS / f"{UI_WORKFLOW}.json", inputs={"1.image": PHOTO})
    assert [(o.node_id, o.class_type, o.folder, o.sha256) for o in result.outputs] == [
        (o.node_id, o.class_type, o.folder, o.sha256) for o in here.outputs
    ]
    assert result.changes == json.loads(json.dumps(here.changes))
    assert result.stand_in
    assert [timing.class_type for timing in result.timings] == [timing.class_type for timing in here.timings]
    assert told[-1]["percent"] == 100.0


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"images": [{"name": "photo.jpg", "image": b64(b"no picture")}]}, "photo.jpg"),
        ({}, "photo.jpg"),
        ({"workflow": {"1": {"class_type": "NoSuchNode", "inputs": {}}}}, "NoSuchNode"),
        ({"set": {"77.x": 1}}, "there is no node '77'"),
    ],
)
def test_what_is_wrong_is_said_and_the_next_job_runs(run: Run, fields: dict[str, Any], error: str) -> None:
    outcome = run(**fields)
    assert outcome.state == "FAILED"
    assert error in str(outcome.error)
    assert outcome.output["images"] == []
    assert run(images=[{"name": "photo.jpg", "image": b64(PHOTO.read_bytes())}]).state == "COMPLETED"


def test_a_picture_that_would_fill_the_memory(run: Run) -> None:
    """A few kilobytes that say they are 60,000 × 60,000 pixels."""
    buffer = io.BytesIO()
    Image.new("1", (8, 8)).save(buffer, "PNG")
    bomb = bytearray(buffer.getvalue())
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    outcome = run(images=[{"name": "photo.jpg", "image": b64(bytes(bomb))}])
    assert outcome.state == "FAILED"
    assert "photo.jpg" in str(outcome.error)
    assert run(images=[{"name": "photo.jpg", "image": b64(PHOTO.read_bytes())}]).state == "COMPLETED"


def test_a_time_limit(run: Run) -> None:
    photo = [{"name": "photo.jpg", "image": b64(PHOTO.read_bytes())}]
    outcome = run(job={"policy": {"executionTimeout": 1}}, images=photo)
    assert outcome.state == "TIMED_OUT"
    assert run(images=photo).state == "COMPLETED"
