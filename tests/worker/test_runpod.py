"""The handler under RunPod's real SDK: its worker loop against a server that plays RunPod, and its own local server."""

from __future__ import annotations

import base64
import hashlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from faulty_nodes import faulty_environment, one_node
from runpod_server import RunPodServer

from comfy_cpu_client import Client

pytest.importorskip("runpod", reason="the RunPod SDK is not installed")

ROOT = Path(__file__).parents[2]
PHOTO = (ROOT / "examples" / "astronaut.jpg").read_bytes()
CUTOUT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "astronaut.jpg"}},
    "2": {
        "class_type": "BEN2_ONNX_RemoveBg",
        "inputs": {"image": ["1", 0], "provider": "CUDA", "background_color": "none"},
    },
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "cut"}},
}
INPUT = {"workflow": CUTOUT, "images": [{"name": "astronaut.jpg", "image": base64.b64encode(PHOTO).decode()}]}

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(clean_environment: dict[str, str], stand_in_models: Path, tmp_path: Path) -> Iterator[Start]:
    """Start the worker as an image does; whatever it was, it is gone at the end."""
    running: list[subprocess.Popen[str]] = []
    log = (tmp_path / "worker.log").open("w+")

    def begin(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "comfy_cpu_worker.runpod", *arguments],
            env={**clean_environment, "COMFY_CPU_MODELS": str(stand_in_models), **environment},
            stdout=log,
            stderr=log,
            text=True,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
            process.wait()
    log.seek(0)
    print(log.read()[-6000:])
    log.close()


@pytest.fixture
def runpod() -> Iterator[RunPodServer]:
    with RunPodServer() as server:
        yield server


def embedded(models: Path) -> dict[str, Any]:
    with Client("embedded", models=models) as client:
        result = client.run(CUTOUT, files={"astronaut.jpg": PHOTO})
    assert result.ok
    return {output.filename: output.data for output in result.images}


def pictures(output: dict[str, Any]) -> dict[str, bytes]:
    return {item["filename"]: base64.b64decode(item["data"], validate=True) for item in output["images"]}


def test_a_job_from_the_queue_gives_what_the_embedded_engine_gives(
    start: Start, runpod: RunPodServer, stand_in_models: Path
) -> None:
    start(**runpod.environment())
    job = runpod.submit(INPUT)
    result = runpod.wait(job, timeout_s=90)
    assert "error" not in result
    assert pictures(result["output"]) == embedded(stand_in_models)
    (item,) = result["output"]["images"]
    assert item["type"] == "base64"
    assert item["sha256"] == hashlib.sha256(base64.b64decode(item["data"])).hexdigest()
    changes = result["output"]["result"]["changes"]["changes"]
    assert [(change["node_id"], change["input"], change["old"], change["new"]) for change in changes] == [
        ("2", "provider", "CUDA", "CPU")
    ]
    updates = runpod.progress(job)
    assert updates
    assert all(0 <= update["percent"] <= 100 for update in updates)
    assert runpod.posted[job][-1] == result  # no update comes behind the result


def test_what_fails_is_failed_and_the_next_job_runs(start: Start, runpod: RunPodServer) -> None:
    start(**runpod.environment())
    broken = runpod.submit({**INPUT, "images": [{"name": "astronaut.jpg", "image": "bm90IGEgcGljdHVyZQ=="}]})
    nothing = runpod.submit({"images": []})
    good = runpod.submit(INPUT)
    failed = runpod.wait(broken, timeout_s=90)
    assert "astronaut.jpg" in failed["error"]
    (error,) = failed["output"]["result"]["errors"]
    assert (error["node_id"], error["class_type"]) == ("1", "LoadImage")
    assert failed["output"]["images"] == []
    assert runpod.wait(nothing, timeout_s=30)["error"] == "Missing 'workflow' parameter"
    assert "error" not in runpod.wait(good, timeout_s=60)


@pytest.mark.parametrize("polite", [True, False], ids=["that looks", "that never looks"])
def test_a_stopped_job_ends_and_the_next_one_runs(
    start: Start, runpod: RunPodServer, tmp_path: Path, polite: bool
) -> None:
    start(**runpod.environment(), **faulty_environment(tmp_path))
    slow = runpod.submit({"workflow": one_node("TestSleep", seconds=120, polite=polite)})
    runpod.wait_for_progress(slow, timeout_s=90)
    runpod.stop(slow)
    good = runpod.submit(INPUT)
    assert "error" not in runpod.wait(good, timeout_s=60)
    assert runpod.result(slow) is None  # RunPod knows already that it is cancelled


def test_a_worker_that_is_asked_to_end_finishes_its_job(start: Start, runpod: RunPodServer) -> None:
    process = start(**runpod.environment())
    job = runpod.submit(INPUT)
    deadline = time.monotonic() + 60
    while not runpod.taken and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert "error" not in runpod.wait(job, timeout_s=60)
    assert process.wait(30) == 0


def test_the_sdk_s_own_local_server(start: Start, stand_in_models: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = start("--rp_serve_api", "--rp_api_host", "127.0.0.1", "--rp_api_port", str(port))
    url = f"http://127.0.0.1:{port}/runsync"
    deadline = time.monotonic() + 90
    while True:
        try:
            answer = requests.post(url, json={"input": INPUT}, timeout=60)
            break
        except requests.ConnectionError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert answer.status_code == 200, answer.text[:300]
    document = answer.json()
    assert document["status"] == "COMPLETED"
    assert pictures(document["output"]) == embedded(stand_in_models)
