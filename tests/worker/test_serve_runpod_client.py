"""The client of RunPod's own SDK, pointed at ``comfy-cpu serve``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from worker_server import WorkerServer, node_job, slow

PROGRAM = """
import json, sys, time
import runpod

base, jobs = json.loads(sys.argv[1])
runpod.endpoint_url_base = base
runpod.api_key = "the-token"
endpoint = runpod.Endpoint("any-id")
said = {}

said["run_sync"] = endpoint.run_sync(jobs["text"])
job = endpoint.run(jobs["text"])
said["output"] = job.output(timeout=30)
said["status"] = job.status()
steps = endpoint.run(jobs["steps"])
said["stream"] = list(steps.stream())
slow = endpoint.run(jobs["slow"])
while slow.status() == "IN_QUEUE":
    time.sleep(0.05)
said["running"] = slow.status()
waiting = endpoint.run(jobs["text"])
said["health"] = endpoint.health()
said["purge"] = endpoint.purge_queue()
said["purged"] = waiting.status()
said["cancel"] = slow.cancel()
said["cancelled"] = slow.status()
failed = endpoint.run(jobs["failed"])
said["failed_output"] = failed.output(timeout=30)
said["failed"] = failed.status()
runpod.api_key = "another-token"
try:
    runpod.Endpoint("any-id").run(jobs["text"])
except RuntimeError as error:
    said["refused"] = str(error)
print(json.dumps(said))
"""


def test_the_sdk_works_unchanged(tmp_path: Path, clean_environment: dict[str, str]) -> None:
    pytest.importorskip("requests")
    jobs = {
        "text": node_job(text="through the SDK"),
        "steps": node_job("TestSteps", steps=3, seconds=0.3),
        "slow": slow(),
        "failed": node_job("TestRaise", text="went wrong"),
    }
    with WorkerServer(tmp_path, environment={"COMFY_CPU_TOKEN": "the-token"}) as worker:
        base = f"http://127.0.0.1:{worker.client.port}/v2"
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps([base, jobs])],
            check=False,
            capture_output=True,
            text=True,
            env=clean_environment,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    for output in (said["run_sync"], said["output"]):
        assert output["texts"][0]["data"] == "through the SDK"
    assert said["status"] == "COMPLETED"
    assert [chunk["kind"] for chunk in said["stream"]].count("step") >= 2
    assert said["running"] == "IN_PROGRESS"
    assert (said["health"]["jobs"]["inProgress"], said["health"]["jobs"]["inQueue"]) == (1, 1)
    assert said["purge"] == {"removed": 1, "status": "completed"}
    assert said["purged"] == "CANCELLED"
    assert (said["cancel"]["status"], said["cancelled"]) == ("CANCELLED", "CANCELLED")
    assert said["failed"] == "FAILED"
    assert said["failed_output"]["status"] == "failed"
    assert "401" in said["refused"]
