"""A forward proxy on a loopback port: CONNECT, and plain HTTP by absolute URL."""

from __future__ import annotations

import base64
import socket
import socketserver
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

__all__ = ["ProxyServer"]


class ProxyServer:
    """The proxy; starts with the ``with`` block and stops with it.

    Attributes:
        asked: the first line of every connection.
        login: if not None, what ``user:password`` it wants.
    """

    def __init__(self, login: str | None = None) -> None:
        self.asked: list[str] = []
        self.login = login
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> ProxyServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        login = f"{self.login}@" if self.login else ""
        return f"http://{login}127.0.0.1:{self._server.server_address[1]}"


class _Handler(socketserver.StreamRequestHandler):
    proxy: ProxyServer

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return
            head += line
        first = head.split(b"\r\n")[0].decode()
        self.proxy.asked.append(first)
        method, url, _ = first.split(" ", 2)
        if self.proxy.login is not None:
            wanted = base64.b64encode(self.proxy.login.encode())
            if b"proxy-authorization: basic " + wanted.lower() not in head.lower():
                self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
        host = urlsplit(url if "//" in url else f"//{url}")
        with socket.create_connection((host.hostname or "", host.port or 80)) as upstream:
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:  # our servers understand an absolute URL
                upstream.sendall(head)
            back = threading.Thread(target=_relay, args=(upstream.recv, self.connection), daemon=True)
            back.start()
            _relay(self.rfile.read1, upstream)
            back.join()


def _relay(read: Any, to: socket.socket) -> None:
    with suppress(OSError):
        while data := read(65536):
            to.sendall(data)
    with suppress(OSError):
        to.shutdown(socket.SHUT_WR)
