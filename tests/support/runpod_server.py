"""RunPod's side of a serverless worker on a loopback port, for tests that run the real ``runpod`` SDK against it.

It speaks what the SDK's worker loop asks for (read in runpod-python 1.12.0): ``job-take`` hands out a job, ``job-done``
takes progress updates and results, ``job-stop`` says which jobs are to end, ``ping`` is the heartbeat::

    with RunPodServer() as runpod:
        environment = {**clean, **runpod.environment()}
        job = runpod.submit({"workflow": …})
        ...
        final = runpod.wait(job, timeout_s=30)
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

__all__ = ["RunPodServer"]


class RunPodServer:
    """A queue of jobs, and what the worker said of them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[dict[str, Any]] = deque()
        self._stops: deque[str] = deque()
        self._ids = 0
        #: job id → every body that was posted for it: progress (with ``status`` IN_PROGRESS) and the result.
        self.posted: dict[str, list[dict[str, Any]]] = {}
        #: job ids in the order in which they were handed out.
        self.taken: list[str] = []
        #: the job ids of each ping.
        self.pings = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                place = urlsplit(self.path).path.split("/")[1]
                if place == "job-take":
                    job = server._take()
                    self._answer(200 if job else 204, job)
                elif place == "job-stop":
                    self._answer(200, {"jobsToStop": server._take_stops()})
                elif place == "ping":
                    server.pings += 1
                    self._answer(200, {})
                else:
                    self._answer(404, {})

            def do_POST(self) -> None:
                parts = urlsplit(self.path).path.split("/")
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if parts[1] in {"job-done", "job-stream"}:
                    server._post(parts[3], json.loads(body))
                    self._answer(200, {})
                else:
                    self._answer(404, {})

            def _answer(self, status: int, document: Any) -> None:
                body = b"" if status == 204 else json.dumps(document).encode()
                with suppress(ConnectionError):  # a worker that has ended no longer listens
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> RunPodServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def environment(self) -> dict[str, str]:
        """What RunPod sets in a worker's environment; the SDK's checks that go out to the internet are off."""
        base = f"http://127.0.0.1:{self._server.server_port}"
        return {
            "RUNPOD_POD_ID": "pod1",
            "RUNPOD_AI_API_KEY": "a-key-of-this-test",
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?x=1",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?x=1",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?x=1",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID",
            "RUNPOD_PING_INTERVAL": "1000",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
            "NO_PROXY": "127.0.0.1",
        }

    def submit(self, job_input: Any, **more: Any) -> str:
        """Queue a job; gives its id."""
        with self._changed:
            self._ids += 1
            job_id = f"job-{self._ids}"
            self.posted[job_id] = []
            self._waiting.append({"id": job_id, "input": job_input, **more})
            self._changed.notify_all()
        return job_id

    def stop(self, job_id: str) -> None:
        """Ask the worker to stop a job, as a cancellation does."""
        with self._changed:
            self._stops.append(job_id)
            self._changed.notify_all()

    def wait(self, job_id: str, timeout_s: float) -> dict[str, Any]:
        """The result of a job, as the worker posted it.

        Raises:
            TimeoutError: there is none after `timeout_s` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.result(job_id) is not None, timeout_s):
                raise TimeoutError(f"{job_id} has no result; posted so far: {self.posted[job_id]!r:.2000}")
            result = self.result(job_id)
            assert result is not None
            return result

    def result(self, job_id: str) -> dict[str, Any] | None:
        """The result of a job so far."""
        return next((body for body in self.posted[job_id] if body.get("status") != "IN_PROGRESS"), None)

    def progress(self, job_id: str) -> list[Any]:
        """The progress updates of a job so far."""
        return [body["output"] for body in self.posted[job_id] if body.get("status") == "IN_PROGRESS"]

    def wait_for_progress(self, job_id: str, timeout_s: float) -> None:
        """Wait until a job has said something of itself."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.progress(job_id), timeout_s), f"{job_id} made no progress"

    def _take(self) -> dict[str, Any] | None:
        with self._changed:  # the real one holds the request open, too
            self._changed.wait_for(lambda: self._waiting, timeout=1)
            if not self._waiting:
                return None
            job = self._waiting.popleft()
            self.taken.append(job["id"])
            return job

    def _take_stops(self) -> list[str]:
        deadline = time.monotonic() + 1
        with self._changed:
            self._changed.wait_for(lambda: self._stops, timeout=deadline - time.monotonic())
            stops = list(self._stops)
            self._stops.clear()
            return stops

    def _post(self, job_id: str, body: dict[str, Any]) -> None:
        with self._changed:
            self.posted[job_id].append(body)
            self._changed.notify_all()
