"""A bare URL is asked what it leads to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from comfy_cpu_client import Client
from comfy_cpu_client.errors import TargetUnreachable
from comfy_cpu_core.errors import TargetError, UsageError

WORKER = {"service": "comfy-cpu-worker", "version": "0.1.0"}


@contextmanager
def serve(pages: Mapping[str, tuple[int, Any]]) -> Iterator[tuple[str, list[tuple[str, Mapping[str, str]]]]]:
    """Pages by path, and all requests that came."""
    seen: list[tuple[str, Mapping[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, dict(self.headers)))
            status, document = pages.get(self.path, (404, {}))
            content = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_worker_is_known_by_its_own_word() -> None:
    with serve({"/healthz": (200, WORKER)}) as (url, seen), Client(url, token="SECRET") as client:
        assert client._target._endpoints[0].url == f"{url}/v2/local"  # type: ignore[attr-defined]
    assert [path for path, _ in seen] == ["/healthz"]
    assert "SECRET" not in str(seen)


@pytest.mark.parametrize("status", [200, 401])
def test_a_comfyui_is_known_by_its_statistics_or_wants_a_login(status: int) -> None:
    pytest.importorskip("websockets")
    with serve({"/comfy/system_stats": (status, {"system": {}})}) as (url, seen), Client(f"{url}/comfy") as client:
        assert type(client._target).__name__ == "ComfyUITarget"
    assert [path for path, _ in seen] == ["/healthz", "/comfy/system_stats"]
    assert all("Authorization" not in headers for _, headers in seen)


@pytest.mark.parametrize(
    "pages",
    [
        {},
        {"/healthz": (200, {"service": "another"}), "/system_stats": (200, [])},
        {"/healthz": (302, WORKER), "/system_stats": (302, {"system": {}})},
        {"/healthz": (200, b"<html>"), "/system_stats": (200, b"\xff" * 100)},
        {"/healthz": (500, WORKER)},
    ],
)
def test_something_else(pages: dict[str, tuple[int, Any]]) -> None:
    with serve(pages) as (url, _), pytest.raises(TargetError, match="neither") as caught:
        Client(url)
    assert "worker+http" in str(caught.value.remedy)


def test_nothing() -> None:
    with pytest.raises(TargetUnreachable, match="Connection refused"):
        Client("http://127.0.0.1:1")
    with pytest.raises(UsageError, match="no URL"):
        Client("http://")
    with pytest.raises(TargetUnreachable) as caught:
        Client("http://user:SECRET@127.0.0.1:1/?token=SECRET")
    assert "SECRET" not in str(caught.value)
