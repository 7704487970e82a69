"""A small Hugging Face Hub on a loopback port, for tests that run the real huggingface_hub against it.

It speaks the part of the Hub's protocol that fetching a model needs: ``/api/models/…``, ``/OWNER/NAME/resolve/…`` with
the Hub's headers, and a redirect of LFS files to a "CDN" under another host name. It counts what it sends, and can be
told to misbehave::

    with HubServer() as hub:
        commit = hub.commit("owner/name", {"model.onnx": b"…"}, lfs=["model.onnx"])
        hub.fault("cdn", die_after=1000, times=1)
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

__all__ = ["Fault", "HubServer", "Seen"]

_CHUNK = 16 * 1024


@dataclass
class Seen:
    """One request, noted before its answer is sent, so that a client that has the answer finds it here.

    Attributes:
        place: ``api``, ``resolve`` or ``cdn``; ``other`` for what is none of them.
        authorization, range, accept_encoding: these headers, None if not sent.
        sent: bytes of a file's content that were sent so far.
    """

    method: str
    place: str
    path: str
    status: int
    authorization: str | None
    range: str | None
    accept_encoding: str | None
    sent: int = 0


@dataclass
class Fault:
    """How the server misbehaves at a place, for so many requests.

    Attributes:
        place: ``api``, ``resolve``, ``cdn`` or ``any``.
        times: for how many requests; -1 for all.
        status, headers: answer with an error.
        die_after: reset the connection after so many bytes of the body.
        truncate_to: close the connection properly after so many bytes, although Content-Length says more.
        short_to: serve a file that has only so many bytes, and a Content-Length that says so.
        corrupt: serve other bytes, as many as there should be.
        too_long: serve so many bytes more.
        ignore_range: answer 200 with everything to a request for a part.
        delay_s: wait before every 16 KiB.
        html: answer 200 with a page, as a captive portal does.
    """

    place: str
    times: int = -1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    die_after: int | None = None
    truncate_to: int | None = None
    short_to: int | None = None
    corrupt: bool = False
    too_long: int = 0
    ignore_range: bool = False
    delay_s: float = 0.0
    html: bool = False


@dataclass(frozen=True)
class _Content:
    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def git_oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data, usedforsecurity=False).hexdigest()


class HubServer:
    """The server; starts with the ``with`` block and stops with it.

    Attributes:
        seen: every request, in the order in which they were answered.
        tokens: if not None, repositories are read with one of these only.
    """

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.tokens: set[str] | None = None
        self._commits: dict[str, dict[str, dict[str, _Content]]] = {}
        self._branches: dict[str, dict[str, str]] = {}
        self._blobs: dict[str, bytes] = {}
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def cdn(self) -> str:
        """Where LFS files are redirected to: another host name, so that a token must not follow."""
        return f"http://localhost:{self.port}/cdn"

    def commit(self, repo: str, files: Mapping[str, bytes], *, lfs: Iterable[str] = (), branch: str = "main") -> str:
        """Put a commit with these files on a branch; give back its hash."""
        in_lfs = set(lfs)
        contents = {name: _Content(data, name in in_lfs) for name, data in files.items()}
        parent = self._branches.get(repo, {}).get(branch, "")
        named = json.dumps([parent, {name: content.sha256 for name, content in contents.items()}])
        commit = hashlib.sha1(named.encode(), usedforsecurity=False).hexdigest()
        self._commits.setdefault(repo, {})[commit] = contents
        self._branches.setdefault(repo, {})[branch] = commit
        self._blobs.update({content.sha256: content.data for content in contents.values() if content.lfs})
        return commit

    def forget(self, repo: str, commit: str) -> None:
        """Make a commit go away, as a force push does."""
        del self._commits[repo][commit]

    def fault(self, place: str, **how: Any) -> Fault:
        """Misbehave from now on."""
        fault = Fault(place, **how)
        self._faults.append(fault)
        return fault

    def heal(self) -> None:
        """Behave again."""
        self._faults.clear()

    def bytes_sent(self) -> int:
        """How many bytes of files were sent so far."""
        return sum(seen.sent for seen in self.seen)

    def ranges(self) -> list[str]:
        """The Range headers that came with requests for a file's content, in order."""
        return [seen.range for seen in self.seen if seen.range is not None and seen.sent]

    def _fault_at(self, place: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.place in (place, "any") and fault.times != 0:
                    fault.times -= 1 if fault.times > 0 else 0
                    return fault
        return None

    def _note(self, seen: Seen) -> None:
        with self._lock:
            self.seen.append(seen)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self._fault: Fault | None = None
        self._place = "other"
        path = unquote(urlsplit(self.path).path)
        if api := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._enter("api")
            self._send_info(api[1], api[2] or "main")
        elif resolve := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._enter("resolve")
            self._send_resolved(*resolve.groups())
        elif cdn := re.fullmatch(r"/cdn/([0-9a-f]{64})", path):
            self._enter("cdn")
            data = self.hub._blobs.get(cdn[1])
            if self._faulty():
                return
            if data is None:
                self._send_error(404)
            else:
                self._send_content(data, {"ETag": f'"{cdn[1]}"'})
        else:
            self._send_error(404)

    def _enter(self, place: str) -> None:
        self._place = place
        self._fault = self.hub._fault_at(place)

    def _send_info(self, repo: str, revision: str) -> None:
        if self._faulty() or not (found := self._find(repo, revision)):
            return
        commit, contents = found
        siblings = []
        for name, content in contents.items():
            sibling: dict[str, Any] = {"rfilename": name, "size": len(content.data), "blobId": content.git_oid}
            if content.lfs:
                sibling["lfs"] = {"sha256": content.sha256, "size": len(content.data), "pointerSize": 134}
            siblings.append(sibling)
        info = {"_id": "0", "id": repo, "modelId": repo, "sha": commit, "private": False, "siblings": siblings}
        self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _send_resolved(self, repo: str, revision: str, name: str) -> None:
        if self._faulty() or not (found := self._find(repo, revision)):
            return
        commit, contents = found
        if name not in contents:
            self._send_error(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
            return
        content = contents[name]
        headers = {"X-Repo-Commit": commit}
        if not content.lfs:
            self._send_content(content.data, {**headers, "ETag": f'"{content.git_oid}"'})
            return
        headers |= {
            "X-Linked-Etag": f'"{content.sha256}"',
            "X-Linked-Size": str(len(content.data)),
            "ETag": f'"{content.git_oid}"',
            "Location": f"{self.hub.cdn}/{content.sha256}",
        }
        self._send(302, b"", headers)

    def _find(self, repo: str, revision: str) -> tuple[str, dict[str, _Content]] | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if self.hub.tokens is not None and token not in self.hub.tokens:
            self._send_error(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."})
            return None
        commits = self.hub._commits.get(repo)
        if commits is None:
            self._send_error(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return None
        commit = self.hub._branches[repo].get(revision, revision)
        if commit not in commits:
            self._send_error(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
            return None
        return commit, commits[commit]

    def _faulty(self) -> bool:
        """Answer with the fault's error, if it has one."""
        fault = self._fault
        if fault is None:
            return False
        if fault.status is not None:
            self._send_error(fault.status, fault.headers)
            return True
        if fault.html:
            self._send(200, b"<html><body>Please log in to this network.</body></html>", {"Content-Type": "text/html"})
            return True
        return False

    def _send_error(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, b'{"error": "no"}', {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self._note(status)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_content(self, data: bytes, headers: Mapping[str, str]) -> None:
        fault = self._fault or Fault(self._place)
        if fault.corrupt:
            data = bytes(byte ^ 0xFF for byte in data)
        if fault.short_to is not None:
            data = data[: fault.short_to]
        data += b"x" * fault.too_long
        start, status = 0, 200
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted and not fault.ignore_range:
            start, status = int(wanted[1]), 206
            if start >= len(data):
                self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
        body = data[start:]
        seen = self._note(status)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(body, fault, seen)

    def _send_body(self, body: bytes, fault: Fault, seen: Seen) -> None:
        ends = [limit for limit in (fault.die_after, fault.truncate_to) if limit is not None]
        end = min([len(body), *ends])
        try:
            while seen.sent < end:
                if fault.delay_s:
                    time.sleep(fault.delay_s)
                chunk = body[seen.sent : min(seen.sent + _CHUNK, end)]
                seen.sent += len(chunk)
                self.connection.sendall(chunk)
        except OSError:
            # Whoever asked went away.
            self.close_connection = True
            return
        if fault.die_after is not None:
            # Let what was sent arrive, then reset instead of closing.
            time.sleep(0.1)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if ends:
            self.connection.close()
            self.close_connection = True

    def _note(self, status: int) -> Seen:
        seen = Seen(
            method=self.command,
            place=self._place,
            path=self.path,
            status=status,
            authorization=self.headers.get("Authorization"),
            range=self.headers.get("Range"),
            accept_encoding=self.headers.get("Accept-Encoding"),
        )
        self.hub._note(seen)
        return seen
