"""The application over real sockets, with a runner that does what jobs tell it to."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_runner import FakeBackend, FakeRunner, job
from worker_client import WorkerClient, poll

from comfy_cpu_worker.api.app import create_app
from comfy_cpu_worker.api.server import make_server
from comfy_cpu_worker.loop import LoopThread
from comfy_cpu_worker.queue import JobQueue, QueueLimits
from comfy_cpu_worker.settings import WorkerSettings
from comfy_cpu_worker.shelf import Shelf


class Served:
    """A worker's API in this process."""

    def __init__(self, state: Path, settings: WorkerSettings, shelf: Shelf, limits: QueueLimits) -> None:
        self.runner = FakeRunner()
        self.backend = FakeBackend()
        self._loop = LoopThread("test-api")
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.client = WorkerClient(self._socket.getsockname()[1], settings.token)
        self._loop.run(self._start(state, settings, shelf, limits))

    async def _start(self, state: Path, settings: WorkerSettings, shelf: Shelf, limits: QueueLimits) -> None:
        self.queue = JobQueue(self.runner, self.backend, limits)
        await self.queue.open(state)
        self.queue.start()
        self._server = make_server(create_app(settings, self.queue, self.backend, shelf))
        self._serving = asyncio.create_task(self._server.serve([self._socket]))

    async def _stop(self) -> None:
        await self.queue.drain(0)
        self._server.should_exit = True
        await self._serving
        await self.queue.close()

    def release(self) -> None:
        """Let jobs with ``hold`` go on."""
        self._loop.run(self._set())

    async def _set(self) -> None:
        self.runner.hold.set()

    def drain(self) -> None:
        self._loop.submit(self.queue.drain(1000))
        poll(lambda: self.queue.draining, "draining")

    def close(self) -> None:
        self._loop.run(self._stop())
        self._loop.close()
        self._socket.close()


@contextmanager
def serving(
    tmp_path: Path, settings: WorkerSettings | None = None, shelf: Path | None = None, **limits: Any
) -> Iterator[Served]:
    state = tmp_path / "state"
    state.mkdir(exist_ok=True)
    served = Served(state, settings or WorkerSettings(worker_id="w1"), Shelf(shelf), QueueLimits(**limits))
    try:
        yield served
    finally:
        served.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as found:
        yield found


def test_run_and_status(served: Served) -> None:
    client = served.client
    answer = client.post("/v2/anything/run", job(echo="hello"))
    assert (answer.status, answer.json["status"]) == (200, "IN_QUEUE")
    status = client.wait(answer.json["id"])
    assert set(status) == {"id", "status", "delayTime", "executionTime", "workerId", "attempts", "output"}
    assert (status["status"], status["workerId"], status["attempts"]) == ("COMPLETED", "w1", 1)
    assert status["output"] == {"images": [], "echo": "hello"}
    assert isinstance(status["delayTime"], int)
    assert isinstance(status["executionTime"], int)
    assert client.post(f"/v2/local/status/{status['id']}").json == status  # as older clients ask


def test_runsync(served: Served) -> None:
    answer = served.client.post("/v2/local/runsync", job(echo=1))
    assert answer.json["status"] == "COMPLETED"
    assert answer.json["output"]["echo"] == 1
    assert answer.json["id"].startswith("sync-")


def test_runsync_answers_when_its_time_is_over(served: Served) -> None:
    answer = served.client.post("/v2/local/runsync?wait=1", job(hold=True))
    assert answer.json["status"] in {"IN_QUEUE", "IN_PROGRESS"}
    served.release()
    assert served.client.wait(answer.json["id"])["status"] == "COMPLETED"
    assert served.client.post("/v2/local/runsync?wait=soon", job()).status == 400


def test_without_the_prefix(served: Served) -> None:
    client = replace(served.client, prefix="")
    job_id = client.run(job(echo=2))
    assert client.post(f"/status/{job_id}").status == 200
    assert client.wait(job_id)["output"]["echo"] == 2
    assert client.runsync(job(echo=3))["output"]["echo"] == 3
    assert client.get("/health").status == 200


def test_a_failed_job_has_error_and_output(served: Served) -> None:
    status = served.client.runsync(job(state="FAILED", error="Content blocked by X", output={"status": "blocked"}))
    assert (status["status"], status["error"]) == ("FAILED", "Content blocked by X")
    assert status["output"] == {"status": "blocked"}


def test_an_output_with_every_kind_of_text(served: Served) -> None:
    output = {"text": '</script>" \u2028 \ud800 é \x00', "deep": [[{}]]}
    assert served.client.runsync(job(output=output))["output"] == output


def test_stream_gives_progress_once(served: Served) -> None:
    client = served.client
    job_id = client.run(job(steps=3, hold=True))
    client.wait(job_id, {"IN_PROGRESS"})
    taken: list[Any] = []

    def take() -> bool:
        answer = client.get(f"/v2/local/stream/{job_id}").json
        taken.extend(chunk["output"]["step"] for chunk in answer["stream"])
        return len(taken) >= 3

    poll(take, "three steps")
    assert taken == [1, 2, 3]
    assert client.status(job_id)["output"] == {"kind": "step", "step": 3}  # as RunPod shows progress
    served.release()
    client.wait(job_id)
    assert client.post(f"/v2/local/stream/{job_id}").json == {"id": job_id, "status": "COMPLETED", "stream": []}


def test_events(served: Served) -> None:
    client = served.client
    job_id = client.run(job(steps=2, hold=True))
    seen = []
    for name, data in client.events(job_id):
        seen.append((name, data.get("step") or data["status"]))
        if seen[-1] == ("progress", 2):
            served.release()
    assert [item for item in seen if item[0] == "progress"] == [("progress", 1), ("progress", 2)]
    assert [state for name, state in seen if name == "status"][-2:] == ["IN_PROGRESS", "COMPLETED"]
    assert seen[-1] == ("status", "COMPLETED")
    late = [(name, data.get("step")) for name, data in client.events(job_id, last_event_id="1")]
    assert late == [("progress", 2), ("status", None)]


def test_a_silent_stream_says_that_it_is_still_there(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_cpu_worker.api.jobs.KEEP_ALIVE_S", 0.01)
    job_id = served.client.run(job(hold=True))
    with closing(served.client.connect()) as connection:
        connection.request("GET", f"/v2/local/stream/{job_id}", headers={"accept": "text/event-stream"})
        response = connection.getresponse()
        while response.readline() != b": still there\n":
            pass


def test_a_listener_that_goes_away_ends_nothing(served: Served) -> None:
    client = served.client
    job_id = client.run(job(steps=1, hold=True))
    events = client.events(job_id)
    next(events)
    events.close()
    served.release()
    assert client.wait(job_id)["status"] == "COMPLETED"


def test_a_client_that_goes_away_during_runsync_ends_nothing(served: Served) -> None:
    client = served.client
    body = json.dumps(job(hold=True)).encode()
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        head = f"POST /v2/local/runsync HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        poll(lambda: bool(served.runner.ran), "the start of the job")
    served.release()
    job_id = served.runner.ran[0][0]
    assert client.wait(job_id)["status"] == "COMPLETED"
    assert served.runner.interrupted == []


def test_cancel(served: Served) -> None:
    client = served.client
    running, waiting = client.run(job(hold=True)), client.run(job())
    for job_id in (waiting, running):
        answer = client.post(f"/v2/local/cancel/{job_id}")
        assert (answer.status, answer.json["status"]) == (200, "CANCELLED")
    assert client.runsync(job())["status"] == "COMPLETED"


def test_retry(served: Served) -> None:
    client = served.client
    job_id = client.run(job(state="TIMED_OUT", error="too slow"))
    client.wait(job_id)
    answer = client.post(f"/v2/local/retry/{job_id}")
    assert (answer.status, answer.json["id"], answer.json["status"]) == (200, job_id, "IN_QUEUE")
    assert client.wait(job_id)["attempts"] == 2
    done = client.runsync(job())["id"]
    answer = client.post(f"/v2/local/retry/{done}")
    assert (answer.status, answer.json["code"]) == (409, "conflict")


def test_purge_and_health(served: Served) -> None:
    client = served.client
    running = client.run(job(hold=True))
    client.wait(running, {"IN_PROGRESS"})
    waiting = [client.run(job()) for _ in range(3)]
    health = client.get("/v2/local/health").json
    assert health["jobs"] == {"completed": 0, "failed": 0, "inProgress": 1, "inQueue": 3, "retried": 0}
    assert health["workers"] == {
        "idle": 0, "initializing": 0, "ready": 1, "running": 1, "throttled": 0, "unhealthy": 0,
    }  # fmt: skip
    assert client.post("/v2/local/purge-queue").json == {"removed": 3, "status": "completed"}
    assert {client.status(job_id)["status"] for job_id in waiting} == {"CANCELLED"}
    served.release()
    client.wait(running)
    assert client.get("/v2/local/health").json["workers"]["idle"] == 1


def test_a_full_queue_is_429(tmp_path: Path) -> None:
    with serving(tmp_path, waiting=2) as served:
        client = served.client
        client.wait(client.run(job(hold=True)), {"IN_PROGRESS"})
        for _ in range(2):
            client.run(job())
        answer = client.post("/v2/local/run", job())
        assert (answer.status, answer.json["code"]) == (429, "queue_full")
        assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_a_worker_that_ends_is_503(served: Served) -> None:
    client = served.client
    running = client.run(job(hold=True))
    client.wait(running, {"IN_PROGRESS"})
    assert client.get("/ready").status == 200
    served.drain()
    for answer in (client.post("/v2/local/run", job()), client.get("/ready")):
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
    assert client.get("/healthz").status == 200
    assert client.status(running)["status"] == "IN_PROGRESS"
    served.release()
    assert client.wait(running)["status"] == "COMPLETED"


def test_idempotency(served: Served) -> None:
    client = served.client
    job_id = client.run(job(echo=1), idempotency_key="k1")
    assert client.run(job(echo=1), idempotency_key="k1") == job_id
    assert client.run(job(echo=1, idempotency_key="k1")) == job_id
    answer = client.post("/v2/local/run", job(echo=2), idempotency_key="k1")
    assert (answer.status, answer.json["code"]) == (422, "key_reused")
    assert client.post("/v2/local/run", job(), idempotency_key="two words").status == 400
    assert client.post("/v2/local/run", job(idempotency_key="a"), idempotency_key="b").status == 400
    client.wait(job_id)
    assert len(served.runner.ran) == 1


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "no JSON"), (b"{", "no JSON"), (b"[]", "the job"), (b"{}", "Please provide input"),
        (b'{"input": "{"}', "Invalid JSON format in input"), (b'{"input": {}}', "Missing 'workflow' parameter"),
        (b'{"input": {"workflow": {"1": {}}, "images": 1}}', "'images' must be a list"),
        (b"[" * 10_000, "nested"), (b'{"input": {"workflow": {"a": NaN}}}', "NaN"),
        (b'{"input": {"workflow": {"1": {}}}, "webhook": "https://example.com/hook"}', "webhook"),
        (b'{"input": {"workflow": {"1": {}}, "inputs": {"1.image": "https://example.com/a"}}}', "is a URL"),
    ],
)  # fmt: skip
def test_a_malformed_job_is_400(served: Served, body: bytes, error: str) -> None:
    answer = served.client.post("/v2/local/run", body)
    assert answer.status == 400
    assert error in answer.json["error"]
    assert answer.json["code"] == "input"
    assert served.client.get("/v2/local/health").json["jobs"]["inQueue"] == 0


def test_a_body_that_is_too_large_is_413(tmp_path: Path) -> None:
    with serving(tmp_path, WorkerSettings(run_bytes=1000, runsync_bytes=2000)) as served:
        large = job(echo="x" * 1500)
        answer = served.client.post("/v2/local/run", large)
        assert (answer.status, answer.json["code"]) == (413, "too_large")
        assert served.client.runsync(large)["status"] == "COMPLETED"
        assert served.client.post("/v2/local/runsync", job(echo="x" * 2500)).status == 413
        body = json.dumps(large).encode()
        with closing(served.client.connect()) as connection:  # without saying how long it is
            connection.request("POST", "/v2/local/run", iter([body]), encode_chunked=True)
            assert connection.getresponse().status == 413


def test_the_token(tmp_path: Path) -> None:
    with serving(tmp_path, WorkerSettings(token="s3cret")) as served:
        stranger = replace(served.client, token=None)
        assert stranger.post("/v2/local/run", job()).status == 401
        answer = stranger.get("/v2/local/health", authorization="Bearer wrong")
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        for path in ("/metrics", "/workflows", "/status/x", "/stream/x", "/nowhere"):
            assert stranger.get(path).status == 401
        for path in ("/", "/ready", "/healthz", "/openapi.json"):
            assert stranger.get(path).status == 200
            assert b"s3cret" not in stranger.get(path).body
        assert served.client.runsync(job())["status"] == "COMPLETED"
        assert served.runner.ran[0][1] == job()


def test_host_and_origin(served: Served) -> None:
    client = served.client
    assert client.get("/v2/local/health", host="evil.example").status == 403
    assert client.post("/v2/local/purge-queue", origin="http://evil.example").status == 403
    assert client.post("/v2/local/run", job(), origin="null").status == 403
    own = f"http://127.0.0.1:{client.port}"
    assert client.post("/v2/local/run", job(), origin=own).status == 200


@pytest.mark.parametrize(
    "path", ["/v2/local/status/%0d%0aSet-Cookie:%20a=b", "/v2/local/stream/../../etc", "/status/%00"]
)
def test_ids_that_are_nobodys(served: Served, path: str) -> None:
    answer = served.client.get(path)
    assert answer.status == 404
    assert "set-cookie" not in answer.headers
    assert answer.json["code"] in {"unknown_job", "http"}


def test_a_path_that_is_none_and_a_method_that_does_not_fit(served: Served) -> None:
    answer = served.client.get("/v2/local/nothing")
    assert (answer.status, answer.json) == (404, {"error": "there is no such path", "code": "http"})
    answer = served.client.get("/v2/local/run")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_every_answer_is_data_and_never_a_page(served: Served) -> None:
    for path in ("/v2/local/health", "/v2/local/status/<script>", "/metrics"):
        headers = served.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_probes(served: Served) -> None:
    client = served.client
    assert client.get("/healthz").json == {"service": "comfy-cpu-worker", "version": "0.1.0", "endpoint": "local"}
    assert client.get("/ready").json == {"ready": True, "state": "ready", "backend": "engine"}
    served.backend.state = "restarting"
    answer = client.get("/ready")
    assert answer.status == 503
    assert answer.json["problem"] == "the back end is restarting"
    assert client.get("/v2/local/health").json["workers"]["initializing"] == 1


def test_metrics(served: Served) -> None:
    client = served.client
    client.runsync(job())
    client.runsync(job(state="FAILED", error="e"))
    text = client.get("/metrics").body.decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['comfy_cpu_jobs_total{state="COMPLETED"}'] == "1.0"
    assert lines['comfy_cpu_jobs_total{state="FAILED"}'] == "1.0"
    assert lines['comfy_cpu_job_duration_seconds_bucket{le="+Inf"}'] == "2.0"
    assert lines["comfy_cpu_job_duration_seconds_count"] == "2.0"
    assert lines["comfy_cpu_queue_length"] == "0.0"
    assert lines["comfy_cpu_ready"] == "1.0"
    assert lines["comfy_cpu_backend_restarts_total"] == "0.0"
    assert float(lines['comfy_cpu_job_duration_seconds_bucket{le="0.05"}']) <= 2


def test_workflows(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "cut_out.json").write_text(json.dumps({"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}))
    (shelf / "broken.json").write_text("{")
    with serving(tmp_path, shelf=shelf) as served:
        broken, good = served.client.get("/workflows").json["workflows"]
    assert (good["name"], good["inputs"][0]["key"], good["problem"]) == ("cut_out", "1.image", "")
    assert broken["problem"]


def test_many_clients_at_once(served: Served) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: served.client.runsync(job(echo=n)), range(48)))
    assert [answer["output"]["echo"] for answer in answers] == list(range(48))
    assert len({answer["id"] for answer in answers}) == 48
