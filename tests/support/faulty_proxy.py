"""A proxy in front of an HTTP server, on which requests go wrong as they do on a bad network."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

__all__ = ["FaultyProxy"]

#: What goes wrong: the connection breaks before or behind the request, the server is busy, or fails, without or with
#: having done what it was asked for.
FAULTS = ("reset before", "reset after", "busy", "error before", "error after")

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


class FaultyProxy:
    """A context manager: listens on a free port of 127.0.0.1.

    Args:
        upstream: the URL of the server.
        share: of requests that go wrong, 0 to 1.
        seed: for which ones.

    Attributes:
        faults: how often what went wrong.
    """

    def __init__(self, upstream: str, share: float, seed: int = 0) -> None:
        self.share = share
        self.faults: Counter[str] = Counter()
        self._upstream = urlsplit(upstream)
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65536
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                proxy._serve(self)

            do_POST = do_GET

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # whoever was connected went away

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        with self._lock:
            fault = self._random.choice(FAULTS) if self._random.random() < self.share else None
            if fault is not None:
                self.faults[fault] += 1
        if fault == "reset before":
            return _reset(handler)
        if fault == "busy":
            return _send(handler, 429, [("Retry-After", "0.1")], b"{}")
        if fault == "error before":
            return _send(handler, 500, [], b"{}")
        status, headers, answer = self._ask(handler, body)
        if fault == "reset after":
            return _reset(handler)
        if fault == "error after":
            return _send(handler, 502, [], b"{}")
        return _send(handler, status, headers, answer)

    def _ask(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self._upstream.hostname or "", self._upstream.port, timeout=60)
        try:
            headers = {name: value for name, value in handler.headers.items() if name.lower() not in _HOP | {"host"}}
            connection.request(handler.command, handler.path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


def _send(handler: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    handler.send_response_only(status)
    for name, value in headers:
        if name.lower() not in _HOP:
            handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def _reset(handler: BaseHTTPRequestHandler) -> None:
    """End the connection as a machine does that fell over."""
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
