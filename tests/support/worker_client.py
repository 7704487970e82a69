"""A client for a worker's API that does as it is told: no retries, no redirects, bad requests too."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

__all__ = ["FINAL", "Answer", "WorkerClient", "poll"]

FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}

T = TypeVar("T")

#: Seconds after which what did not happen will not.
DEADLINE_S = 60.0


def poll(look: Callable[[], T | None], what: str, *, deadline_s: float = DEADLINE_S) -> T:
    """Look again and again until there is something (neither None nor False)."""
    until = time.monotonic() + deadline_s
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        assert time.monotonic() < until, f"{what} did not happen within {deadline_s:g} s"
        time.sleep(0.01)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class WorkerClient:
    """Speaks to one worker.

    Attributes:
        port: on 127.0.0.1.
        token: sent where there is one.
        prefix: of the queue's paths.
    """

    port: int
    token: str | None = field(default=None, repr=False)
    prefix: str = "/v2/local"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request; a body that is not bytes is sent as JSON. ``x_y="z"`` is the header ``x-y: z``."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token is not None:
            given.setdefault("authorization", f"Bearer {self.token}")
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        with closing(self.connect()) as connection:
            connection.request(method, path, content, given)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.ask("POST", path, body, **headers)

    def run(self, document: Any, **headers: str) -> str:
        """Submit a job that is accepted; gives its id."""
        answer = self.post(f"{self.prefix}/run", document, **headers)
        assert answer.status == 200, answer
        return str(answer.json["id"])

    def runsync(self, document: Any, **headers: str) -> Any:
        answer = self.post(f"{self.prefix}/runsync", document, **headers)
        assert answer.status == 200, answer
        return answer.json

    def status(self, job_id: str) -> Any:
        answer = self.get(f"{self.prefix}/status/{job_id}")
        assert answer.status == 200, answer
        return answer.json

    def wait(self, job_id: str, states: set[str] = FINAL) -> Any:
        """Wait until a job is in one of some states."""
        return poll(lambda: s if (s := self.status(job_id))["status"] in states else None, f"{job_id} in {states}")

    def events(self, job_id: str, **headers: str) -> Iterator[tuple[str, Any]]:
        """The server-sent events of a job: (event, data)."""
        given = {"accept": "text/event-stream", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if self.token is not None:
            given["authorization"] = f"Bearer {self.token}"
        with closing(self.connect()) as connection:
            connection.request("GET", f"{self.prefix}/stream/{job_id}", headers=given)
            response = connection.getresponse()
            assert response.status == 200
            assert response.getheader("content-type", "").startswith("text/event-stream")
            fields: dict[str, str] = {}
            for line in iter(response.readline, b""):
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif fields:
                    yield fields.get("event", ""), json.loads(fields["data"])
                    fields = {}
