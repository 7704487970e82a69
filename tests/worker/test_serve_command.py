"""``comfy-cpu serve``: what it says when it starts, and how it fails."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from worker_client import WorkerClient, poll
from worker_server import WorkerServer, node_job

Serve = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def serve(tmp_path: Path, clean_environment: dict[str, str]) -> Serve:
    """Run the command to its end."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("comfy-cpu")), "serve", *map(str, arguments)]
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            env={**clean_environment, "XDG_STATE_HOME": str(tmp_path / "xdg"), **environment},
            timeout=60,
        )
        assert "Traceback" not in done.stderr
        return done

    return run


def test_a_taken_port(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve("--port", str(port))
    assert done.returncode == 2
    assert f"error: port {port} of 127.0.0.1 is taken by" in done.stderr
    assert f"(pid {os.getpid()})" in done.stderr
    assert "--port" in done.stderr


def test_beyond_this_machine_without_a_token(serve: Serve) -> None:
    done = serve("--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 2
    assert "error: listening on 0.0.0.0" in done.stderr
    assert "COMFY_CPU_TOKEN" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "error"),
    [
        (["--port", "70000"], {}, 2, "--port"),
        (["--backend", "gpu"], {}, 2, "--backend"),
        (["--workflows", "nowhere"], {}, 2, "there is no directory of workflows nowhere"),
        (["--token-file", "nowhere"], {}, 3, "cannot read the token file nowhere"),
        (["--state", "/dev/null/state"], {}, 2, "the state directory /dev/null/state cannot be written"),
        ([], {"COMFY_CPU_QUEUE": "many"}, 2, "COMFY_CPU_QUEUE is 'many'"),
        ([], {"BUCKET_ENDPOINT_URL": "https://s3.example"}, 2, "BUCKET_ACCESS_KEY_ID is missing"),
    ],
)
def test_what_makes_no_sense(
    serve: Serve, arguments: list[str], environment: dict[str, str], code: int, error: str
) -> None:
    done = serve("--port", "0", *arguments, **environment)
    assert done.returncode == code
    assert error in done.stderr
    assert done.stdout == ""


def test_a_back_end_that_cannot_start(tmp_path: Path) -> None:
    """Its last words are in the error; nobody waits for ever."""
    site = tmp_path / "site"
    (site / "deadly-1.0.dist-info").mkdir(parents=True)
    (site / "deadly-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1.0\n")
    (site / "deadly-1.0.dist-info" / "entry_points.txt").write_text("[comfy_cpu]\ndeadly = deadly\n")
    (site / "deadly.py").write_text(
        "import os, sys\nfrom comfy_cpu_core.hookspecs import hookimpl\n"
        "@hookimpl\ndef comfy_cpu_node_classes():\n    print('these are my last words', file=sys.stderr, flush=True)\n"
        "    os._exit(3)\n"
    )
    worker = WorkerServer(tmp_path, environment={"PYTHONPATH": str(site)}, ready=False)
    try:
        assert worker.ended() == 7
        assert "these are my last words" in worker.log_text()
        assert [line for line in worker.log_text().splitlines() if line.startswith("error: ")]
        assert "Traceback" not in worker.log_text()
    finally:
        worker.close()


def test_the_token_of_a_file_is_asked_for_and_shown_nowhere(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret-token\n")
    with WorkerServer(tmp_path, "--token-file", str(token), "--host", "0.0.0.0") as worker:
        port = worker.client.port
        stranger = WorkerClient(port)
        assert stranger.post("/v2/local/run", node_job()).status == 401
        assert stranger.get("/v2/local/health", authorization="Bearer s3cret-toke").status == 401
        friend = WorkerClient(port, "s3cret-token")
        assert friend.runsync(node_job())["status"] == "COMPLETED"
        assert friend.get("/v2/local/health", host="any.example").status == 200
        assert worker.stop() == 0
        assert "s3cret" not in worker.log_text()


def test_bodies_hosts_and_origins(tmp_path: Path) -> None:
    with WorkerServer(tmp_path, environment={"COMFY_CPU_RUN_BYTES": "10000"}) as worker:
        client = worker.client
        assert client.post("/v2/local/run", node_job(text="x" * 20_000)).status == 413
        assert client.get("/v2/local/health", host="evil.example").status == 403
        assert client.post("/v2/local/purge-queue", origin="https://evil.example").status == 403
        assert client.runsync(node_job())["status"] == "COMPLETED"


def test_what_is_loaded_is_said_in_one_line(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "greeting.json").write_text(json.dumps(node_job(text="hello")["input"]["workflow"]))
    worker = WorkerServer(tmp_path, "--workflows", str(shelf), "--no-warm-up", ready=False)
    try:
        assert worker.process.stdout is not None
        line = worker.process.stdout.readline()
        assert line.startswith("comfy-cpu worker ready at http://127.0.0.1:")
        assert f"(engine; models in {tmp_path / 'models'}; workflows: greeting)" in line
        client = WorkerClient(int(line.split(":")[2].split()[0]))
        assert [entry["name"] for entry in client.get("/workflows").json["workflows"]] == ["greeting"]
        status = client.runsync({"input": {"workflow": "greeting", "set": {"1.text": "good bye"}}})
        assert status["output"]["texts"][0]["data"] == "good bye"
        assert worker.stop() == 0
        assert worker.process.stdout.read() == ""
    finally:
        worker.close()


def test_with_refresh_worker_each_job_has_a_fresh_process(tmp_path: Path) -> None:
    with WorkerServer(tmp_path, environment={"REFRESH_WORKER": "true"}) as worker:
        client = worker.client
        for number in (1, 2):
            assert client.runsync(node_job())["status"] == "COMPLETED"
            restarts = f"comfy_cpu_backend_restarts_total {number}.0"
            poll(lambda text=restarts: text in client.get("/metrics").body.decode(), restarts)  # type: ignore[misc]
