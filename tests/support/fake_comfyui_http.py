"""HTTP and websocket of the fake ComfyUI, on sockets that can be broken at will."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import select
import socket
import ssl
import struct
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message as Headers
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from fake_comfyui import FakeComfyUI

__all__ = ["Fault", "Handler", "Seen", "Server", "Websocket", "reset"]


@dataclass
class Seen:
    """One request, noted before its answer is sent."""

    method: str
    path: str
    query: dict[str, str]
    headers: Headers
    document: Any = None
    upload: str | None = None


@dataclass
class Fault:
    """How the server misbehaves at a place, for so many requests (-1: all).

    Attributes:
        place: the first part of the path: ``prompt``, ``history``, ``queue``, ``upload``, ``view``, ``ws``, …; or ``any``.
        status, headers: answer so.
        html: answer 200 with a page.
        reset: reset the connection instead of an answer.
        lose: do what was asked, then reset the connection instead of an answer.
        delay_s: wait before the answer.
        drip_s: send the body in pieces, with so much time between them.
        truncate_to: close the connection after so many bytes of the body.
        gzip: compress the body, though nobody asked for it.
    """

    place: str
    times: int = -1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    html: bool = False
    reset: bool = False
    lose: bool = False
    delay_s: float = 0.0
    drip_s: float = 0.0
    truncate_to: int | None = None
    gzip: bool = False


def reset(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        connection.close()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    comfyui: FakeComfyUI
    tls: ssl.SSLContext | None = None

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is not None:
            request = self.tls.wrap_socket(request, server_side=True)
        self.comfyui._connections.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            self.comfyui._connections.discard(request)
            if self.tls is not None:
                with suppress(OSError):
                    request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # whoever asked went away, or does not trust the certificate


class Websocket:
    """A websocket, server side. Sends whole frames, and reads only what ComfyUI would."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.sent = 0
        self.flags: dict[str, Any] = {}

    def send(self, message: dict[str, Any] | bytes) -> None:
        if isinstance(message, bytes):
            self._frame(2, message)
        else:
            self._frame(1, json.dumps(message).encode())
        self.sent += 1

    def _frame(self, opcode: int, data: bytes) -> None:
        size = len(data)
        head = bytes([0x80 | opcode])
        if size < 126:
            head += bytes([size])
        elif size < 65536:
            head += struct.pack(">BH", 126, size)
        else:
            head += struct.pack(">BQ", 127, size)
        with self._lock, suppress(OSError):
            self._connection.sendall(head + data)

    def reset(self) -> None:
        reset(self._connection)

    def read(self) -> None:
        """Read until the client closes."""
        while len(head := self._take(2)) == 2:
            opcode, size = head[0] & 15, head[1] & 127
            if size == 126:
                (size,) = struct.unpack(">H", self._take(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self._take(8))
            mask = self._take(4)
            data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(self._take(size)))
            if opcode == 8:
                self._frame(8, data)
                return
            if opcode == 9:
                self._frame(10, data)
            elif opcode == 1:
                told = json.loads(data)
                if told.get("type") == "feature_flags":
                    self.flags = told["data"]

    def _take(self, count: int) -> bytes:
        """That many bytes, or fewer at the end. Never reads while another thread writes: TLS cannot bear it."""
        data = b""
        while len(data) < count:
            while not self._readable():
                pass
            with self._lock:
                part = self._connection.recv(count - len(data))
            if not part:
                break
            data += part
        return data

    def _readable(self) -> bool:
        if isinstance(self._connection, ssl.SSLSocket) and self._connection.pending():
            return True
        try:
            return bool(select.select([self._connection], [], [], 0.05)[0])
        except ValueError:  # closed meanwhile
            return True


class Handler(BaseHTTPRequestHandler):
    comfyui: FakeComfyUI
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        server = self.comfyui
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        self._query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        place = path.split("/")[1]
        seen = Seen(self.command, path, self._query, self.headers)
        server.seen.append(seen)
        if server.hung.is_set():
            while not server.closing:
                time.sleep(0.05)
            return
        self._fault = fault = server.fault_at(place) or Fault(place)
        if fault.delay_s:
            time.sleep(fault.delay_s)
        if fault.reset:
            self._reset()
        elif fault.status is not None:
            self._send(fault.status, b"no", "text/plain", fault.headers)
        elif fault.html:
            self._send(200, b"<html>Please log in</html>", "text/html")
        elif server.authorization is not None and self.headers.get("Authorization") != server.authorization:
            self._send(401, b"no", "text/plain")
        else:
            self._route(path, body, seen)

    def _route(self, path: str, body: bytes, seen: Seen) -> None:
        server = self.comfyui
        if self.command == "POST" and path == "/upload/image":
            self._upload(body, seen)
            return
        if self.command == "POST":
            seen.document = json.loads(body) if body else {}
        if path == "/ws":
            self._websocket()
        elif path == "/system_stats":
            self._json(200, {"system": {"comfyui_version": "0.3.64", "os": "posix"}, "devices": []})
        elif path == "/queue" and self.command == "GET":
            self._json(200, server.queue())
        elif path == "/queue":
            server.delete(seen.document.get("delete", []))
            self._send(200, b"", "text/plain")
        elif path == "/interrupt":
            server.interrupt(seen.document)
            self._send(200, b"", "text/plain")
        elif path == "/prompt" and self.command == "POST":
            self._json(*server.accept(seen.document))
        elif match := re.fullmatch(r"/history(?:/(.+))?", path):
            self._json(200, server.history(match[1]))
        elif match := re.fullmatch(r"/object_info(?:/(.+))?", path):
            self._json(200, server.object_info(match[1]))
        elif path == "/view":
            self._view()
        else:
            self._send(404, b"404: Not Found", "text/plain")

    def _upload(self, body: bytes, seen: Seen) -> None:
        kind = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        fields = {
            part.get_param("name", header="Content-Disposition"): part
            for part in BytesParser().parsebytes(kind + body).get_payload()
        }
        image = fields["image"]
        data = image.get_payload(decode=True)
        subfolder = fields["subfolder"].get_payload() if "subfolder" in fields else ""
        name = image.get_filename()
        folder = self.comfyui.input / subfolder
        folder.mkdir(parents=True, exist_ok=True)
        stem, suffix = Path(name).stem, Path(name).suffix
        number = 1
        while (folder / name).exists() and (folder / name).read_bytes() != data:
            name = f"{stem} ({number}){suffix}"
            number += 1
        (folder / name).write_bytes(data)
        seen.upload = f"{subfolder}/{name}" if subfolder else name
        self._json(200, {"name": name, "subfolder": subfolder, "type": "input"})

    def _view(self) -> None:
        base = self.comfyui.folder(self._query.get("type", "output"))
        path = base / self._query.get("subfolder", "") / self._query["filename"]
        if path.is_file() and path.resolve().is_relative_to(base.resolve()):
            self._send(200, path.read_bytes(), "application/octet-stream")
        else:
            self._send(404, b"", "text/plain")

    def _websocket(self) -> None:
        server, sid = self.comfyui, self._query.get("clientId") or uuid.uuid4().hex
        accept = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        digest = hashlib.sha1(accept.encode(), usedforsecurity=False).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.end_headers()
        self.close_connection = True
        websocket = Websocket(self.connection)
        server._sockets[sid] = websocket
        websocket.send({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": sid}})
        try:
            with suppress(OSError, ValueError, struct.error, IndexError):
                websocket.read()
        finally:
            if server._sockets.get(sid) is websocket:
                del server._sockets[sid]

    def _json(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        if self._fault.lose:
            self._reset()
            return
        if self._fault.gzip:
            body, headers = gzip.compress(body), {**(headers or {}), "Content-Encoding": "gzip"}
        self.send_response(status)
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self._fault.truncate_to is not None:
            self.wfile.write(body[: self._fault.truncate_to])
            self.close_connection = True
            return
        if not self._fault.drip_s:
            self.wfile.write(body)
            return
        for index in range(len(body)):
            self.wfile.write(body[index : index + 1])
            time.sleep(self._fault.drip_s)

    def _reset(self) -> None:
        self.close_connection = True
        reset(self.connection)
