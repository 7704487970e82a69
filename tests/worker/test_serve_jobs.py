"""Jobs through a real ``comfy-cpu serve``: what a client of RunPod's queue API does."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from worker_client import WorkerClient, poll
from worker_server import WorkerServer, node_job, slow


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerServer]:
    environment = {"COMFY_CPU_URLS": "true", "COMFY_CPU_WEBHOOKS": "true", "COMFY_CPU_URL_PRIVATE": "true"}
    with WorkerServer(tmp_path_factory.mktemp("serve"), environment=environment) as worker:
        yield worker


@pytest.fixture
def client(worker: WorkerServer) -> WorkerClient:
    return worker.client


def text_of(status: dict) -> str:
    """The text that the job's node shows."""
    assert status["status"] == "COMPLETED", status
    return str(status["output"]["texts"][0]["data"])


def test_run_status_and_runsync(client: WorkerClient) -> None:
    status = client.wait(client.run(node_job(text="first")))
    assert text_of(status) == "first"
    assert status["delayTime"] >= 0
    assert status["executionTime"] > 0
    assert status["output"]["result"]["timings"][0]["class_type"] == "TestText"
    assert text_of(client.runsync(node_job(text="second"))) == "second"


def test_the_payload_of_the_reference_test_script(client: WorkerClient) -> None:
    picture = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFElEQVR4nGP4z8DAAMIM/4GQAQAl1QP9jZzJWQAAAABJRU5ErkJggg=="
    )
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "test.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "ComfyUI"}},
    }
    images = [{"name": "test.png", "image": base64.b64encode(picture).decode()}]
    answer = client.runsync({"input": {"workflow": workflow, "images": images}})
    assert answer["status"] == "COMPLETED", answer
    (item,) = answer["output"]["images"]
    assert (item["type"], item["filename"]) == ("base64", "ComfyUI_00001_.png")
    assert base64.b64decode(item["data"]).startswith(b"\x89PNG")
    # and in the way of older clients: input as text, no prefix, POST for the status
    job_id = client.post("/run", {"input": json.dumps({"workflow": workflow, "images": images})}).json["id"]
    poll(lambda: client.post(f"/status/{job_id}").json["status"] == "COMPLETED", "the end of the job")


def test_progress_as_stream_and_as_events(client: WorkerClient) -> None:
    job_id = client.run(node_job("TestSteps", steps=3, seconds=0.3))
    events = list(client.events(job_id))
    assert events[-1][0] == "status"
    assert events[-1][1]["status"] == "COMPLETED"
    progress = [data for name, data in events if name == "progress"]
    assert {data["kind"] for data in progress} >= {"started", "step", "finished"}
    percents = [data["percent"] for data in progress]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    answer = client.get(f"/v2/local/stream/{job_id}").json
    assert [chunk["output"] for chunk in answer["stream"]] == progress
    assert client.get(f"/v2/local/stream/{job_id}").json["stream"] == []


def test_a_node_that_fails(client: WorkerClient) -> None:
    status = client.wait(client.run(node_job("TestRaise", text="this went wrong")))
    assert status["status"] == "FAILED"
    assert "this went wrong" in status["error"]
    (error,) = status["output"]["result"]["errors"]
    assert (error["node_id"], error["class_type"]) == ("1", "TestRaise")
    assert "Traceback" in error["details"]
    retried = client.post(f"/v2/local/retry/{status['id']}").json
    assert retried["status"] == "IN_QUEUE"
    assert client.wait(status["id"])["attempts"] == 2


def test_a_gate_that_blocks(client: WorkerClient) -> None:
    status = client.runsync(node_job("TestRaise", text="Content blocked by the gate", block=True))
    assert (status["status"], status["error"]) == ("FAILED", "Content blocked by the gate")
    assert status["output"]["status"] == "blocked"
    assert status["output"]["images"] == []


def test_a_job_that_takes_too_long(client: WorkerClient) -> None:
    status = client.runsync(slow(given={"timeout": 0.2}))
    assert status["status"] == "TIMED_OUT"
    status = client.runsync({**slow(), "policy": {"executionTimeout": 200}})
    assert status["status"] == "TIMED_OUT"


def test_a_webhook_is_told_the_last_status(client: WorkerClient) -> None:
    told: Queue[Any] = Queue()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hook = f"http://127.0.0.1:{server.server_port}/hook?secret=s3cret"
        job_id = client.run({**node_job(text="told"), "webhook": hook})
        status = told.get(timeout=60)
        server.shutdown()
    assert status == client.status(job_id)
    assert text_of(status) == "told"


def test_urls_that_lead_nowhere_are_refused_at_once(client: WorkerClient) -> None:
    for url in ("http://user:pw@127.0.0.1/a.png", "http://exa mple/a.png", "ftp://127.0.0.1/a.png"):
        job = node_job(given={"images": [{"name": "a.png", "url": url}]})
        answer = client.post("/v2/local/run", job)
        assert answer.status == 400
        assert "input.images[0]" in answer.json["error"]
        assert "fetches none" not in answer.json["error"]
        assert "pw" not in answer.json["error"]


def test_cancel_while_it_waits_and_while_it_runs(client: WorkerClient) -> None:
    running, waiting = client.run(slow()), client.run(node_job())
    client.wait(running, {"IN_PROGRESS"})
    for job_id in (waiting, running):
        assert client.post(f"/v2/local/cancel/{job_id}").json["status"] == "CANCELLED"
    assert text_of(client.runsync(node_job(text="next"))) == "next"
    assert client.status(waiting)["status"] == "CANCELLED"
    assert "attempts" not in client.status(waiting)


def test_purge_and_health(client: WorkerClient) -> None:
    running = client.run(slow())
    client.wait(running, {"IN_PROGRESS"})
    waiting = [client.run(node_job()) for _ in range(3)]
    health = client.get("/v2/local/health").json
    assert (health["jobs"]["inProgress"], health["jobs"]["inQueue"]) == (1, 3)
    assert client.post("/v2/local/purge-queue").json == {"removed": 3, "status": "completed"}
    assert {client.status(job_id)["status"] for job_id in waiting} == {"CANCELLED"}
    client.post(f"/v2/local/cancel/{running}")
    assert client.runsync(node_job())["status"] == "COMPLETED"


def test_a_client_that_goes_away_during_runsync(client: WorkerClient) -> None:
    body = json.dumps(node_job("TestSleep", seconds=0.3, text="alone", given={"idempotency_key": "alone"})).encode()
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        head = f"POST /v2/local/runsync HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        poll(lambda: client.get("/v2/local/health").json["jobs"]["inProgress"] == 1, "the start of the job")
    # The key finds the job again: it went on, and runs once.
    assert text_of(client.wait(client.run(json.loads(body)))) == "alone"


def test_200_jobs_against_a_bound_of_50(client: WorkerClient) -> None:
    running = client.run(slow())
    client.wait(running, {"IN_PROGRESS"})
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: client.post("/v2/local/run", node_job(text=str(n))), range(200)))
    accepted = [(n, answer.json["id"]) for n, answer in enumerate(answers) if answer.status == 200]
    refused = [answer for answer in answers if answer.status == 429]
    assert (len(accepted), len(refused)) == (50, 150)
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    client.post(f"/v2/local/cancel/{running}")
    for n, job_id in accepted:
        assert text_of(client.wait(job_id)) == str(n)


def test_200_jobs_from_16_clients(client: WorkerClient) -> None:
    """None is lost, none is answered twice."""
    numbers = iter(range(200))

    def submit(_: int) -> list[tuple[int, str, str]]:
        done = []
        for number in numbers:
            status = client.runsync(node_job(text=f"job {number}"))
            done.append((number, status["id"], text_of(status)))
        return done

    with ThreadPoolExecutor(16) as pool:
        done = [item for items in pool.map(submit, range(16)) for item in items]
    assert sorted(number for number, _, _ in done) == list(range(200))
    assert len({job_id for _, job_id, _ in done}) == 200
    assert all(text == f"job {number}" for number, _, text in done)


def test_the_worker_is_what_it_says(client: WorkerClient, worker: WorkerServer) -> None:
    assert client.get("/healthz").json["service"] == "comfy-cpu-worker"
    assert client.get("/ready").json["backend"] == "engine"
    assert "comfy_cpu_jobs_total" in client.get("/metrics").body.decode()
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "'unsafe-inline'" not in page.headers["content-security-policy"]
    assert worker.state.stat().st_mode & 0o777 == 0o700


def test_the_state_directory_is_for_one_worker(worker: WorkerServer, tmp_path: Path) -> None:
    second = WorkerServer(worker.folder, ready=False)
    try:
        assert second.ended() == 2
        assert f"in use by another worker (pid {worker.process.pid})" in second.log_text()
    finally:
        second.close()
