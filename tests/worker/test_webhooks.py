"""Webhooks over real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from rough_server import Handler, RoughServer, answer

from comfy_cpu_worker import webhooks as webhooks_module
from comfy_cpu_worker.urls import UrlPolicy
from comfy_cpu_worker.webhooks import Webhooks

DOCUMENT = {"id": "job-1", "status": "COMPLETED", "output": {"images": []}}
TRUSTED = UrlPolicy(allow_private=True, read_s=60)


@pytest.fixture
def server() -> Iterator[RoughServer]:
    with RoughServer() as running:
        yield running


def call(url: str, policy: UrlPolicy = TRUSTED, *, grace_s: float = 30) -> None:
    async def main() -> None:
        webhooks = Webhooks(policy, pauses_s=(0.01, 0.01))
        webhooks.call("job-1", url, DOCUMENT)
        await webhooks.close(grace_s)

    asyncio.run(main())


def in_turn(*handlers: Handler) -> Handler:
    left = iter(handlers)

    def handle(sock: socket.socket, ended: threading.Event) -> None:
        next(left)(sock, ended)

    return handle


def test_the_status_is_posted(server: RoughServer, caplog: pytest.LogCaptureFixture) -> None:
    server.paths["/hook?key=hush"] = answer(b"ok")
    call(server.url("/hook?key=hush"))
    (ask,) = server.asks
    assert (ask.method, ask.headers["content-type"]) == ("POST", "application/json")
    assert json.loads(ask.body) == DOCUMENT
    assert caplog.records == []


def test_it_is_tried_again(server: RoughServer, caplog: pytest.LogCaptureFixture) -> None:
    server.paths["/hook"] = in_turn(
        answer(status="500 Oops"), lambda sock, ended: None, answer(status="204 No Content")
    )
    call(server.url("/hook"))
    assert len(server.asks) == 3
    assert caplog.records == []


def test_it_is_given_up(server: RoughServer, caplog: pytest.LogCaptureFixture) -> None:
    server.paths["/hook?key=hush"] = answer(status="302 Found", headers={"Location": "/elsewhere"})
    call(server.url("/hook?key=hush"))
    assert [ask.target for ask in server.asks] == ["/hook?key=hush"] * 3
    assert caplog.messages == ["job job-1: its webhook could not be told: it answered with status 302"]


def test_a_webhook_that_is_not_allowed_is_not_tried_again(
    server: RoughServer, caplog: pytest.LogCaptureFixture
) -> None:
    call(server.url("/hook?key=hush"), UrlPolicy(ports=(server.port,)))
    assert server.asks == []
    assert caplog.messages == [
        "job job-1: its webhook could not be told: http://127.0.0.1 leads to an address that is not public"
    ]


@pytest.mark.parametrize("url", ["http://127.0.0.1/\r\nX-Evil: hush", "http://user:hush@127.0.0.1/", "nonsense hush"])
def test_no_line_is_smuggled_in_and_nothing_told(url: str, caplog: pytest.LogCaptureFixture) -> None:
    call(url)
    assert len(caplog.messages) == 1
    assert "hush" not in caplog.text


def test_a_call_holds_nobody_up(server: RoughServer, caplog: pytest.LogCaptureFixture) -> None:
    def hang(sock: socket.socket, ended: threading.Event) -> None:
        ended.wait(60)

    server.paths["/hook"] = hang
    with caplog.at_level(logging.WARNING):
        call(server.url("/hook"), grace_s=0.2)
    assert caplog.messages == ["1 webhooks were not called any more, since the worker ends"]
    for thread in threading.enumerate():  # whoever ends Python waits for them
        if thread.name.startswith("comfy-cpu-webhook"):
            thread.join(20)
            assert not thread.is_alive()


def test_there_is_a_limit(
    monkeypatch: pytest.MonkeyPatch, server: RoughServer, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhooks_module, "_LIMIT", 1)
    server.paths["/hook"] = answer()

    async def main() -> None:
        webhooks = Webhooks(TRUSTED)
        webhooks.call("job-1", server.url("/hook"), DOCUMENT)
        webhooks.call("job-2", server.url("/hook"), DOCUMENT)
        await webhooks.close(30)

    asyncio.run(main())
    assert caplog.messages == ["job job-2: its webhook is not called: 1 calls wait already"]
    assert len(server.asks) == 1


def test_a_document_that_is_no_json(server: RoughServer, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        webhooks = Webhooks(TRUSTED)
        document: dict[str, Any] = {"x": object()}
        webhooks.call("job-1", server.url("/hook"), document)
        await webhooks.close(30)

    asyncio.run(main())
    assert caplog.messages == ["job job-1: its webhook could not be told: TypeError"]
