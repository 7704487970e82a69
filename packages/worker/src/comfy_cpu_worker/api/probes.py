"""What those who run the worker ask: is it ready, how much has it to do, what can it do?"""

from __future__ import annotations

import asyncio
import copy
import json
from importlib import metadata
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from comfy_cpu_worker.api.metrics import Reading, render
from comfy_cpu_worker.queue import JobQueue
from comfy_cpu_worker.settings import WorkerSettings
from comfy_cpu_worker.shelf import Shelf
from comfy_cpu_worker.work import Backend

__all__ = ["ProbeEndpoints", "openapi_document", "version"]

_PREFIX = "/v2/{endpoint}"


def version() -> str:
    """The version of this distribution."""
    return metadata.version("comfy-cpu-worker")


def openapi_document() -> dict[str, Any]:
    """The API's description: ``openapi.json``, written by hand, and the same paths without ``/v2/{endpoint}``."""
    document: dict[str, Any] = json.loads(files("comfy_cpu_worker.api").joinpath("openapi.json").read_text("utf-8"))
    document["info"]["version"] = version()
    for path, item in list(document["paths"].items()):
        if path.startswith(_PREFIX):
            document["paths"][path.removeprefix(_PREFIX)] = _without_prefix(item)
    return document


def _without_prefix(item: dict[str, Any]) -> dict[str, Any]:
    other = copy.deepcopy(item)
    other["parameters"] = other["parameters"][1:]  # the endpoint's id is the first
    for operation in other.values():
        if isinstance(operation, dict):
            operation["operationId"] += "WithoutEndpoint"
    return other


class ProbeEndpoints:
    """The endpoints that deal with the worker itself."""

    def __init__(self, settings: WorkerSettings, queue: JobQueue, backend: Backend, shelf: Shelf) -> None:
        self._settings = settings
        self._queue = queue
        self._backend = backend
        self._shelf = shelf

    async def ready(self, request: Request) -> Response:
        """200 if a job would run now, or after the present one; else 503 and why."""
        health = self._backend.health()
        problem = "the worker ends" if self._queue.draining else health.problem or self._queue.problem
        document: dict[str, Any] = {"ready": self._is_ready(), "state": health.state, "backend": self._backend.name}
        if document["ready"]:
            return JSONResponse(document)
        document |= {"problem": problem or f"the back end is {health.state}", "remedy": health.remedy}
        return JSONResponse(document, status_code=503, headers={"Retry-After": "1"})

    async def healthz(self, request: Request) -> Response:
        """Who is there."""
        return JSONResponse({"service": "comfy-cpu-worker", "version": version(), "endpoint": self._settings.endpoint})

    async def health(self, request: Request) -> Response:
        """RunPod's counts of jobs and workers: there is one worker here."""
        counts = await self._queue.counts()
        stats = self._queue.stats
        state = self._backend.health().state
        running = counts.get("IN_PROGRESS", 0)
        return JSONResponse(
            {
                "jobs": {
                    "completed": stats.ended["COMPLETED"],
                    "failed": stats.ended["FAILED"] + stats.ended["TIMED_OUT"],
                    "inProgress": running,
                    "inQueue": counts.get("IN_QUEUE", 0),
                    "retried": stats.retried,
                },
                "workers": {
                    "idle": int(state in {"ready", "busy"} and not running),
                    "initializing": int(state in {"starting", "restarting"}),
                    "ready": int(state in {"ready", "busy"}),
                    "running": int(running > 0),
                    "throttled": 0,
                    "unhealthy": int(state == "closed"),
                },
            }
        )

    async def metrics(self, request: Request) -> Response:
        """Counters for Prometheus."""
        health = self._backend.health()
        reading = Reading(
            states=await self._queue.counts(),
            restarts=health.restarts,
            ready=self._is_ready(),
            backend=self._backend.name,
            version=version(),
        )
        content, media_type = render(self._queue.stats, reading)
        return Response(content, media_type=media_type)

    async def workflows(self, request: Request) -> Response:
        """The workflows that jobs may name, and the files that each takes."""
        entries = await asyncio.to_thread(self._shelf.entries)
        return JSONResponse({"workflows": [entry.to_json() for entry in entries]})

    async def openapi(self, request: Request) -> Response:
        """The API's description."""
        return JSONResponse(openapi_document())

    def _is_ready(self) -> bool:
        return self._backend.health().ready and not self._queue.draining and not self._queue.problem
