"""Jobs whose files are on the web."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from rough_server import RoughServer, answer

from comfy_cpu_core.results import EventSink, Result
from comfy_cpu_worker.delivery import DeliveryPolicy
from comfy_cpu_worker.job import JobLimits
from comfy_cpu_worker.outcome import JobOutcome
from comfy_cpu_worker.runner import JobRunner
from comfy_cpu_worker.shelf import Shelf
from comfy_cpu_worker.urls import UrlPolicy
from comfy_cpu_worker.work import Work

LIMITS = JobLimits(urls=True, file_bytes=1000, total_bytes=1500)


class Remembers:
    """A back end that only looks at what it gets."""

    name = "test"

    def __init__(self) -> None:
        self.works: list[Work] = []

    async def run(self, work: Work, *, on_event: EventSink) -> Result:
        self.works.append(work)
        return Result("completed")


@pytest.fixture
def server() -> Iterator[RoughServer]:
    with RoughServer() as running:
        yield running


def runner(backend: Remembers, urls: UrlPolicy | None = None) -> JobRunner:
    policy = UrlPolicy(allow_private=True) if urls is None else urls
    return JobRunner(backend, shelf=Shelf(None), limits=LIMITS, urls=policy, delivery=DeliveryPolicy())  # type: ignore[arg-type]


def job(**fields: Any) -> dict[str, Any]:
    return {"input": {"workflow": {"1": {}}, **fields}}


def run(backend: Remembers, urls: UrlPolicy | None = None, **fields: Any) -> JobOutcome:
    return asyncio.run(runner(backend, urls).run("job-1", job(**fields)))


def test_files_are_fetched(server: RoughServer) -> None:
    server.paths |= {"/a": answer(b"a"), "/dir/b%20c.png?key=hush": answer(b"b"), "/d": answer(b"\xff\xd8\xff")}
    backend = Remembers()
    outcome = run(
        backend,
        images=[{"name": "x.png", "image": server.url("/a")}],
        inputs={"1.image": {"url": server.url("/dir/b%20c.png?key=hush")}, "2.image": server.url("/d")},
    )
    assert outcome.state == "COMPLETED", outcome.error
    (work,) = backend.works
    assert work.files == {"x.png": b"a"}
    assert {key: (file.name, file.data) for key, file in work.inputs.items()} == {
        "1.image": ("b c.png", b"b"),
        "2.image": ("d", b"\xff\xd8\xff"),
    }


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (answer(status="404 Not Found"), "input.files[0].url: http://127.0.0.1 answered with status 404"),
        (answer(b""), "input.files[0].url is empty"),
        (answer(b"x" * 1001), "input.files[0].url: http://127.0.0.1 gives more than 1,000 bytes"),
    ],
)
def test_an_error_names_the_field_and_no_secret(server: RoughServer, body: Any, error: str) -> None:
    server.paths["/a?key=hush"] = body
    backend = Remembers()
    outcome = run(backend, files=[{"name": "a", "url": server.url("/a?key=hush")}])
    assert (outcome.state, outcome.error) == ("FAILED", error)
    assert backend.works == []


def test_all_files_together_have_a_limit(server: RoughServer) -> None:
    server.paths["/a"] = answer(b"x" * 800)
    outcome = run(Remembers(), files=[{"name": name, "url": server.url("/a")} for name in "ab"])
    assert str(outcome.error) == "input.files[1].url: http://127.0.0.1 gives more than 700 bytes"


def test_a_private_address_is_refused(server: RoughServer) -> None:
    outcome = run(Remembers(), UrlPolicy(ports=(server.port,)), files=[{"name": "a", "url": server.url("/a")}])
    assert str(outcome.error) == "input.files[0].url: http://127.0.0.1 leads to an address that is not public"
    assert outcome.output["result"]["errors"][0]["code"] == "url_refused"
    assert server.asks == []


def test_a_job_that_is_cancelled_fetches_no_more(server: RoughServer) -> None:
    begun, gone = threading.Event(), threading.Event()

    def say_nothing_more(sock: socket.socket, ended: threading.Event) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        begun.set()
        with suppress(ConnectionResetError):
            assert sock.recv(1) == b""
        gone.set()

    async def main() -> None:
        server.paths["/a"] = say_nothing_more
        fetching = runner(Remembers()).run("job-1", job(files=[{"name": "a", "url": server.url("/a")}]))
        task = asyncio.create_task(fetching)
        assert await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(gone.wait, 10), "the connection is still there"

    asyncio.run(main())
