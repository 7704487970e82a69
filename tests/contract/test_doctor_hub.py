"""``comfy-cpu doctor`` and the Hub: huggingface_hub's own client against a local server."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from command_line import CommandLine
from hub_server import HubServer

TOKEN = "hf_a_secret_of_tests"


@contextmanager
def server_that_answers(status: int) -> Iterator[tuple[str, list[BaseHTTPRequestHandler]]]:
    seen: list[BaseHTTPRequestHandler] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            seen.append(self)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def hub_check(comfy_cpu: CommandLine, **environment: str) -> dict[str, str]:
    done = comfy_cpu("doctor", "--json", **environment)
    assert TOKEN not in done.stdout + done.stderr
    (check,) = [c for c in json.loads(done.stdout)["checks"] if c["name"] == "Hugging Face Hub"]
    return {key: str(value) for key, value in check.items()}


def test_a_hub_that_answers(comfy_cpu: CommandLine, hub: HubServer) -> None:
    found = hub_check(comfy_cpu)
    assert found["state"] == "ok"
    assert found["detail"] == f"{hub.url} answers; no token is set"


@pytest.mark.parametrize(("status", "state"), [(200, "ok"), (403, "missing"), (429, "note"), (503, "missing")])
def test_what_it_answers_and_that_no_token_is_sent(comfy_cpu: CommandLine, status: int, state: str) -> None:
    with server_that_answers(status) as (url, seen):
        found = hub_check(comfy_cpu, HF_ENDPOINT=url, HF_TOKEN=TOKEN)
    assert found["state"] == state
    assert "a token is set" in found["detail"]
    assert len(seen) == 1
    assert "Authorization" not in seen[0].headers


def test_nobody_listens(comfy_cpu: CommandLine) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        found = hub_check(comfy_cpu, HF_ENDPOINT=f"http://me:{TOKEN}@127.0.0.1:{unused.getsockname()[1]}")
    assert found["state"] == "missing"
    assert "cannot be reached" in found["detail"]
    assert found["remedy"]


def test_a_hub_that_never_answers(comfy_cpu: CommandLine) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        found = hub_check(comfy_cpu, HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")
        took = time.monotonic() - start
    assert found["state"] == "missing"
    assert took < 20, "three seconds for the Hub, the rest for a slow machine"


def test_a_proxy_is_used(comfy_cpu: CommandLine) -> None:
    with server_that_answers(200) as (proxy, seen):
        found = hub_check(comfy_cpu, HF_ENDPOINT="http://hub.invalid", HTTP_PROXY=proxy, NO_PROXY="")
    assert found["state"] == "ok"
    assert seen[0].path == "http://hub.invalid/"


def test_an_offline_hub_is_not_asked(comfy_cpu: CommandLine) -> None:
    with server_that_answers(200) as (url, seen):
        found = hub_check(comfy_cpu, HF_ENDPOINT=url, HF_HUB_OFFLINE="1")
    assert found["state"] == "note"
    assert seen == []


def test_an_endpoint_that_is_no_address(comfy_cpu: CommandLine) -> None:
    found = hub_check(comfy_cpu, HF_ENDPOINT="http://[")
    assert found["state"] == "missing"
    assert "HF_ENDPOINT" in found["remedy"]
