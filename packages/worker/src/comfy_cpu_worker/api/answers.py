"""What the API answers: RunPod's shapes, made from the queue's."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from comfy_cpu_core.errors import ComfyCpuError
from comfy_cpu_worker.errors import NotAllowed, QueueFull, WorkerError
from comfy_cpu_worker.queue import JobView

__all__ = ["error_response", "event", "job_document", "job_response", "stream_document"]


def job_document(view: JobView, worker_id: str) -> dict[str, Any]:
    """A job's status, without its output once it has ended.

    As RunPod does, a job that runs has its last progress as ``output``. ``attempts`` and ``cut_off`` are ours.
    """
    record = view.record
    document: dict[str, Any] = {"id": record.id, "status": record.state}
    if record.delay_ms is not None:
        document["delayTime"] = record.delay_ms
    if record.execution_ms is not None:
        document["executionTime"] = record.execution_ms
    if record.attempts:
        document |= {"workerId": worker_id, "attempts": record.attempts}
    if record.cut_off:
        document["cut_off"] = True
    if record.error is not None:
        document["error"] = record.error
    if view.progress is not None:
        document["output"] = view.progress
    return document


def job_response(view: JobView, worker_id: str) -> Response:
    """A job's status with its output."""
    document = json.dumps(job_document(view, worker_id), separators=(",", ":")).encode()
    output = view.record.output
    if output is not None:  # JSON text already: megabytes are not parsed only to be written again
        document = b'%s,"output":%s}' % (document[:-1], output)
    return Response(document, media_type="application/json")


def stream_document(view: JobView, progress: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What ``/stream`` answers: the progress since the last time that somebody asked."""
    return {
        "id": view.record.id,
        "status": view.record.state,
        "stream": [{"output": document} for document in progress],
    }


def event(name: str, data: Mapping[str, Any], *, number: int | None = None) -> bytes:
    """A server-sent event: its data is one line of JSON."""
    identity = "" if number is None else f"id: {number}\n"
    return f"event: {name}\n{identity}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def error_response(error: ComfyCpuError) -> JSONResponse:
    """An error as the API answers it: ``{"error", "code", "remedy"?}``, with its HTTP status."""
    status = error.status if isinstance(error, WorkerError) else 500
    headers = {}
    if isinstance(error, NotAllowed):
        status = error.http_status
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, QueueFull):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    document = {"error": str(error), "code": error.code if isinstance(error, WorkerError) else "worker"}
    if error.remedy:
        document["remedy"] = error.remedy
    return JSONResponse(document, status_code=status, headers=headers)
