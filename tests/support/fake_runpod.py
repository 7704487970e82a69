"""RunPod's queue API as it behaves in production, on a loopback port: its states, its limits, and its faults.

`FakeQueue` answers requests at a given time and opens nothing, so that tests may use it with a clock of their own;
`FakeRunPod` serves it over HTTP, and does to connections what networks and gateways do::

    with FakeRunPod() as runpod:
        runpod.queue.plan(Script(run_s=0.1, output={"images": []}))
        runpod.fail("status", Fault(status=429, headers={"Retry-After": "1"}), Fault(cut="body"))
        ...
        assert len(runpod.queue.jobs) == 1
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

__all__ = ["KEY", "PNG", "FakeJob", "FakeQueue", "FakeRunPod", "Fault", "Script", "picture"]

#: The key that lets requests in.
KEY = "rpa_SECRET0123456789"

FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFElEQVR4nGP4z8DAAMIM/4GQAQAl1QP9jZzJWQAAAABJRU5ErkJggg=="
)


def picture(data: bytes = PNG, filename: str = "ComfyUI_00001_.png") -> dict[str, Any]:
    """The output of a job that made one picture, as worker-comfyui has it."""
    return {"images": [{"filename": filename, "type": "base64", "data": base64.b64encode(data).decode()}]}


@dataclass(frozen=True)
class Script:
    """What becomes of a job.

    Attributes:
        queue_s, run_s: how long it waits and runs; infinity for a job that is stuck.
        final: how it ends.
        output, error: what its last status says; None for nothing.
        progress: its ``output`` while it runs.
        states: what the first statuses say, whatever is true: states that come in any order.
        forget_after: from so many statuses on, nobody knows it: 404.
        empty: so many times the last status has no output yet.
        says: what the last status says besides: times of a clock that was set.
        ignore_cancel: whether it goes on when it is cancelled.
    """

    queue_s: float = 0.0
    run_s: float = 0.0
    final: Literal["COMPLETED", "FAILED", "TIMED_OUT"] = "COMPLETED"
    output: Any = field(default_factory=picture)
    error: Any = None
    progress: Any = None
    states: Sequence[str] = ()
    forget_after: int | None = None
    empty: int = 0
    says: Mapping[str, Any] = field(default_factory=dict)
    ignore_cancel: bool = False


@dataclass
class FakeJob:
    """A job that was accepted."""

    id: str
    document: Mapping[str, Any]
    script: Script
    since: float
    key: str | None = None
    asked: int = 0
    cancelled: bool = False
    runs: int = 1

    def state(self, now: float) -> str:
        if self.cancelled and not self.script.ignore_cancel:
            return "CANCELLED"
        if now < self.since + self.script.queue_s:
            return "IN_QUEUE"
        if now < self.since + self.script.queue_s + self.script.run_s:
            return "IN_PROGRESS"
        return self.script.final


class FakeQueue:
    """An endpoint.

    Args:
        endpoint: its id.
        keyed: whether it takes idempotency keys, as our worker does.

    Attributes:
        jobs: every job that was accepted, in order.
        asked: every operation that was asked for, in order.
    """

    def __init__(self, endpoint: str = "abc123", *, keyed: bool = False) -> None:
        self.endpoint = endpoint
        self.keyed = keyed
        self.jobs: list[FakeJob] = []
        self.asked: list[str] = []
        self.workers = {"idle": 1, "running": 0, "throttled": 0, "unhealthy": 0, "initializing": 0, "ready": 1}
        self._scripts: deque[Script] = deque()

    def plan(self, *scripts: Script) -> None:
        """Say what becomes of the next jobs; the others complete at once."""
        self._scripts.extend(scripts)

    def job(self, job_id: str) -> FakeJob | None:
        """The job of that id."""
        return next((job for job in self.jobs if job.id == job_id), None)

    def answer(
        self, operation: str, job_id: str | None, document: Any, now: float, *, key: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        """The status and the body for a request; `now` is any clock's."""
        self.asked.append(operation)
        if operation in {"run", "runsync"}:
            return 200, self._status(self._accept(document, key, now, operation), now, last=operation == "runsync")
        if operation == "health":
            return 200, {"jobs": self._counts(now), "workers": self.workers}
        if operation == "purge-queue":
            waiting = [job for job in self.jobs if job.state(now) == "IN_QUEUE"]
            for job in waiting:
                job.cancelled = True
            return 200, {"removed": len(waiting), "status": "completed"}
        job = self.job(job_id or "")
        if job is None:
            return 404, {"error": "job not found"}
        job.asked += operation == "status"
        if job.script.forget_after is not None and job.asked > job.script.forget_after:
            return 404, {"error": "job not found"}
        if operation == "cancel":
            ended = job.state(now) in FINAL
            job.cancelled = job.cancelled or not ended
            return 200, {"id": job.id, "status": job.state(now)}
        if operation == "retry":
            if job.state(now) not in {"FAILED", "TIMED_OUT"}:
                return 400, {"error": "the job is not FAILED or TIMED_OUT"}
            job.script, job.since, job.runs = self._next(), now, job.runs + 1
            return 200, {"id": job.id, "status": "IN_QUEUE"}
        if operation == "stream":
            chunks = [{"output": job.script.progress}] if job.script.progress and not job.asked else []
            return 200, {"status": job.state(now), "stream": chunks}
        if operation == "status":
            return 200, self._status(job, now, last=True)
        return 404, {"error": "not found"}

    def wait_s(self, job_id: str, now: float) -> float:
        """How long a ``runsync`` of a job would wait for its end."""
        job = self.job(job_id)
        return max(0.0, job.since + job.script.queue_s + job.script.run_s - now) if job else 0.0

    def _accept(self, document: Any, key: str | None, now: float, operation: str) -> FakeJob:
        if self.keyed and key is not None:
            for job in self.jobs:
                if job.key == key:
                    return job
        prefix = "sync-" if operation == "runsync" else ""
        job = FakeJob(f"{prefix}{len(self.jobs) + 1}-u1", document, self._next(), now, key)
        self.jobs.append(job)
        return job

    def _next(self) -> Script:
        return self._scripts.popleft() if self._scripts else Script()

    def _counts(self, now: float) -> dict[str, int]:
        states = [job.state(now) for job in self.jobs]
        names = {"COMPLETED": "completed", "FAILED": "failed", "IN_PROGRESS": "inProgress", "IN_QUEUE": "inQueue"}
        return {**{name: states.count(state) for state, name in names.items()}, "retried": 0}

    def _status(self, job: FakeJob, now: float, *, last: bool) -> dict[str, Any]:
        script = job.script
        if not last:
            return {"id": job.id, "status": "IN_QUEUE"}
        if 0 < job.asked <= len(script.states):
            return {"id": job.id, "status": script.states[job.asked - 1]}
        state = job.state(now)
        document: dict[str, Any] = {"id": job.id, "status": state}
        if state == "IN_PROGRESS" and script.progress is not None:
            document["output"] = script.progress
        if state in FINAL:
            document |= {
                "delayTime": round(script.queue_s * 1000) if script.queue_s < 1e9 else 0,
                "executionTime": round(script.run_s * 1000) if script.run_s < 1e9 else 0,
                "workerId": "w1",
                **script.says,
            }
        if state == script.final and (script.ignore_cancel or not job.cancelled):
            if job.asked > script.empty and script.output is not None:
                document["output"] = script.output
            if script.error is not None:
                document["error"] = script.error
        return document


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    Attributes:
        status: answered with this instead.
        headers, body: of that answer.
        carried_out: whether the request is carried out all the same: a gateway lost the answer.
        cut: the connection breaks: ``before`` anything was done, ``after`` it was done, or in the middle of the ``body``.
        garbage: whether the answer is a web page.
        slow_s: seconds before the answer.
        drip_s: seconds between two bytes of the answer's body.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    carried_out: bool = False
    cut: Literal["before", "after", "body"] | None = None
    garbage: bool = False
    slow_s: float = 0.0
    drip_s: float = 0.0


class FakeRunPod:
    """Endpoints over HTTP.

    Attributes:
        url: what ``RUNPOD_ENDPOINT_BASE_URL`` would be.
        queue: the first endpoint.
        headers: those of every request, by operation.
        files: path → bytes that are served to everybody: a bucket.
    """

    def __init__(self, *queues: FakeQueue, key: str | None = KEY, tls: ssl.SSLContext | None = None) -> None:
        self.queues = {queue.endpoint: queue for queue in queues or (FakeQueue(),)}
        self.queue = next(iter(self.queues.values()))
        self.key = key
        self.headers: dict[str, list[Mapping[str, str]]] = defaultdict(list)
        self.files: dict[str, bytes] = {}
        self.lock = threading.Lock()
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._closing = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                fake.serve(self)

            do_POST = do_GET  # the library's name

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that went away

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}/v2"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> FakeRunPod:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fail(self, operation: str, *faults: Fault) -> None:
        """Say what goes wrong with the next requests of an operation."""
        self._faults[operation].extend(faults)

    # --- a request ------------------------------------------------------------------------------------------------

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if parts.path in self.files:
            self.headers["file"].append(dict(handler.headers))
            _send(handler, 200, self.files[parts.path])
            return
        names = parts.path.strip("/").split("/")
        operation = names[2] if len(names) > 2 else ""
        with self.lock:
            self.headers[operation].append(dict(handler.headers))
            fault = self._faults[operation].popleft() if self._faults[operation] else Fault()
        if fault.cut == "before":
            _reset(handler)
            return
        if fault.status is not None and not fault.carried_out:
            self._closing.wait(fault.slow_s)
            _send(handler, fault.status, json.dumps(dict(fault.body)).encode(), fault.headers)
            return
        status, document = self._answer(handler, names, parse_qs(parts.query), body)
        self._closing.wait(fault.slow_s)
        content = (
            b"<html>503 Service Temporarily Unavailable</html>" if fault.garbage else json.dumps(document).encode()
        )
        if fault.cut == "after":
            _reset(handler)
        elif fault.cut == "body":
            _send(handler, status, content, cut=True)
        elif fault.status is not None:
            _send(handler, fault.status, json.dumps(dict(fault.body)).encode(), fault.headers)
        else:
            _send(handler, status, content, drip_s=fault.drip_s, closing=self._closing)

    def _answer(
        self, handler: BaseHTTPRequestHandler, names: list[str], query: Mapping[str, list[str]], body: bytes
    ) -> tuple[int, dict[str, Any]]:
        if self.key is not None and handler.headers.get("Authorization") != f"Bearer {self.key}":
            return 401, {"error": "unauthorized"}
        queue = self.queues.get(names[1]) if len(names) > 2 and names[0] == "v2" else None
        if queue is None:
            return 404, {"error": "endpoint not found"}
        operation, job_id = names[2], names[3] if len(names) > 3 else None
        document = json.loads(body) if body else None
        with self.lock:
            found = queue.answer(
                operation, job_id, document, time.monotonic(), key=handler.headers.get("Idempotency-Key")
            )
            if operation != "runsync":
                return found
            job = queue.job(found[1]["id"])
            assert job is not None
            left = min(queue.wait_s(job.id, time.monotonic()), int(query["wait"][0]) / 1000)
        self._closing.wait(left)
        with self.lock:
            job.asked += 1
            return 200, queue._status(job, time.monotonic(), last=True)


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    content: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    cut: bool = False,
    drip_s: float = 0.0,
    closing: threading.Event | None = None,
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(content)))
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.end_headers()
    if cut:
        handler.wfile.write(content[: len(content) // 2])
        _reset(handler)
    elif drip_s and closing is not None:
        for byte in content:
            handler.wfile.write(bytes([byte]))
            if closing.wait(drip_s):
                break
        handler.close_connection = True
    else:
        handler.wfile.write(content)


def _reset(handler: BaseHTTPRequestHandler) -> None:
    """Break the connection, without the goodbye that TCP has."""
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RD)
    handler.rfile.close()
    handler.connection.close()
