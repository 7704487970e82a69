"""A worker that says what a test tells it to: the real page, and of the API only what the page calls."""

from __future__ import annotations

import base64
import hashlib
import io
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from comfy_cpu_worker.page import routes

__all__ = [
    "DOMAINS",
    "EVIL",
    "ONE",
    "FakeWorker",
    "Script",
    "completed",
    "cut_out",
    "failed",
    "output",
    "picture_item",
    "serve",
    "step",
    "text_item",
    "timing",
]

#: What a stranger may call things.
EVIL = "<img src=x onerror=\"alert('x')\"><script>alert('y')</script>"

#: A workflow as GET /workflows describes it.
ONE = {"name": "cutout", "title": "Cut out", "inputs": [{"key": "1.image", "title": "Photo"}], "gate": True}

#: What MultiDomainSafetyClassifier says of a harmless picture.
DOMAINS = {"sexual": "SAFE", "violence": "SAFE", "hate": "SAFE", "disturbing": "SAFE", "drugs": "SAFE"}

FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}


@dataclass
class Script:
    """What becomes of a job.

    Attributes:
        updates: progress documents, one for each look at the stream.
        answer: what GET /status says in the end, but for the id.
        hold: whether the job runs until it is cancelled, or `FakeWorker.released` is set.
    """

    answer: Mapping[str, Any]
    updates: Sequence[Mapping[str, Any]] = ()
    hold: bool = False


@dataclass
class FakeWorker:
    """Serves the page and scripted answers.

    Attributes:
        workflows: what GET /workflows gives.
        script: makes the script of a job from its ``input``.
        token: what the API asks for; None for nothing.
        refusal: an HTTP status and a body with which POST /run answers instead.
        jobs: the ``input`` of each job that came.
        calls: method and path of each request.
    """

    script: Callable[[Mapping[str, Any]], Script]
    workflows: list[Mapping[str, Any]] = field(default_factory=list)
    token: str | None = None
    refusal: tuple[int, Mapping[str, Any]] | None = None
    jobs: list[Mapping[str, Any]] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    _running: list[tuple[Script, list[Mapping[str, Any]]]] = field(default_factory=list)
    _cancelled: set[int] = field(default_factory=set)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                *routes(),
                Route("/ready", self._ready),
                Route("/workflows", self._guarded(self._list)),
                Route("/v2/local/run", self._guarded(self._run), methods=["POST"]),
                Route("/v2/local/stream/{job}", self._guarded(self._stream)),
                Route("/v2/local/status/{job}", self._guarded(self._status)),
                Route("/v2/local/cancel/{job}", self._guarded(self._cancel), methods=["POST"]),
            ]
        )

    def _guarded(self, answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def guarded(request: Request) -> JSONResponse:
            self.calls.append((request.method, request.url.path))
            if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
                return JSONResponse({"error": "the token is missing or wrong"}, status_code=401)
            response: JSONResponse = await answer(request)
            return response

        return guarded

    async def _ready(self, request: Request) -> JSONResponse:
        return JSONResponse({"ready": True})

    async def _list(self, request: Request) -> JSONResponse:
        return JSONResponse({"workflows": self.workflows})

    async def _run(self, request: Request) -> JSONResponse:
        if self.refusal is not None:
            return JSONResponse(self.refusal[1], status_code=self.refusal[0])
        job = (await request.json())["input"]
        self.jobs.append(job)
        script = self.script(job)
        self._running.append((script, list(script.updates)))
        return JSONResponse({"id": f"job-{len(self.jobs) - 1}", "status": "IN_QUEUE"})

    def _state(self, number: int) -> str:
        script, left = self._running[number]
        if number in self._cancelled:
            return "CANCELLED"
        if left or (script.hold and not self.released.is_set()):
            return "IN_PROGRESS"
        return str(script.answer["status"])

    async def _stream(self, request: Request) -> JSONResponse:
        number = int(request.path_params["job"].removeprefix("job-"))
        left = self._running[number][1]
        news = [{"output": left.pop(0)}] if left and number not in self._cancelled else []
        return JSONResponse({"status": self._state(number), "stream": news})

    async def _status(self, request: Request) -> JSONResponse:
        number = int(request.path_params["job"].removeprefix("job-"))
        state = self._state(number)
        if state == "CANCELLED" and number in self._cancelled:
            answer: Mapping[str, Any] = {"error": "the job was cancelled", "output": output("cancelled", timings=[])}
        else:
            answer = self._running[number][0].answer if state in FINAL else {}
        return JSONResponse({**answer, "id": request.path_params["job"], "status": state})

    async def _cancel(self, request: Request) -> JSONResponse:
        self._cancelled.add(int(request.path_params["job"].removeprefix("job-")))
        return JSONResponse({"id": request.path_params["job"], "status": "CANCELLED"})


class serve:  # used as a function: with serve(app) as address
    """Serve an application on a free port of this machine, in a thread."""

    def __init__(self, app: Any) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        until = time.monotonic() + 30
        while not self._server.started:
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.01)
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self._socket.close()


def output(status: str, *items: Mapping[str, Any], **result: Any) -> dict[str, Any]:
    """A job's ``output``: its items by kind, and the record of the run."""
    record = {
        "status": status, "stand_in": False, "errors": [], "models": [], "changes": None, "warnings": [],
        "queue_seconds": 0.002, "execution_seconds": 1.25,
        "timings": [timing("1", "LoadImage", 0.012), timing("4", "BEN2_ONNX_RemoveBg", 1.12), timing("9", "SaveImage", 0.08)],
    }  # fmt: skip
    document: dict[str, Any] = {"images": [item for item in items if item["kind"] == "image"]}
    texts = [item for item in items if item["kind"] in {"text", "json"}]
    if texts:
        document["texts"] = texts
    return {**document, "status": status, "result": {**record, **result}}


def completed(*items: Mapping[str, Any], **result: Any) -> Script:
    """The script of a job that completes; `items` are its output, `result` what is special in the record."""
    return Script(
        {"status": "COMPLETED", "delayTime": 2, "executionTime": 1250, "output": output("completed", *items, **result)}
    )


def failed(error: Mapping[str, Any], *, status: str = "failed", state: str = "FAILED") -> Script:
    """The script of a job that does not complete."""
    error = {"code": "node_failed", "node_id": None, "class_type": None, "details": "", "remedy": None, **error}
    return Script({"status": state, "error": error["message"], "output": output(status, errors=[error])})


def timing(node_id: str, class_type: str, seconds: float, *, cached: bool = False) -> dict[str, Any]:
    return {"node_id": node_id, "class_type": class_type, "seconds": seconds, "cached": cached}


def step(done: int, nodes: int, node_id: str, class_type: str, percent: float) -> dict[str, Any]:
    """A progress document, as `comfy_cpu_worker.outcome.progress_document` makes it."""
    return {
        "kind": "started", "node_id": node_id, "class_type": class_type, "step": 0, "steps": 0,
        "nodes_done": done, "nodes": nodes, "percent": percent, "message": "",
    }  # fmt: skip


def picture_item(
    picture: Image.Image, filename: str = "ComfyUI_00001_.png", *, node_id: str = "9", class_type: str = "SaveImage"
) -> dict[str, Any]:
    """A picture of a job's output."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    data = buffer.getvalue()
    return {
        "filename": filename, "type": "base64", "data": base64.b64encode(data).decode(), "node_id": node_id,
        "class_type": class_type, "kind": "image", "subfolder": "", "folder": "output", "media_type": "image/png",
        "size": len(data), "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip


def text_item(
    text: str, *, node_id: str = "18", class_type: str = "ShowText|pysssss", kind: str = "text"
) -> dict[str, Any]:
    """A text of a job's output."""
    data = text.encode()
    return {
        "filename": f"text_{node_id}.txt", "type": "text", "data": text, "node_id": node_id, "class_type": class_type,
        "kind": kind, "subfolder": "", "folder": "output", "media_type": "text/plain", "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip


@cache
def cut_out(photo: Path) -> Image.Image:
    """A photo whose outer part is transparent."""
    with Image.open(photo) as file:
        picture = file.convert("RGBA")
    picture.putalpha(Image.radial_gradient("L").resize(picture.size).point(lambda distance: 255 * (distance < 150)))
    return picture
