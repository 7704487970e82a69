"""What the worker and the engine's process say to each other, as messages (see `comfy_cpu_worker.frames`).

From the worker: ``run`` (a job, with its files), ``cancel`` (that job), ``describe`` (which inputs take a
picture). From the process: ``ready``, ``heartbeat``, ``described``, and for a job ``event`` and ``result``. Jobs are
numbered, so that a late answer is known as such. The process ends when the worker closes the socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy_cpu_client import FileInput
from comfy_cpu_core.errors import InputError
from comfy_cpu_core.results import Progress, Result
from comfy_cpu_worker.frames import FrameError, Message
from comfy_cpu_worker.work import Work

__all__ = [
    "EngineSetup",
    "event_message",
    "read_event",
    "read_result",
    "read_work",
    "result_message",
    "work_message",
]


@dataclass(frozen=True)
class EngineSetup:
    """What the engine's process is told when it starts, as JSON in its arguments.

    Attributes:
        fd: the file descriptor of the socket to the worker.
        workdir: where runs make their directories.
        models: the model tree; None for the default.
        cache_bytes: memory for results of earlier runs; None for the engine's own default.
        heartbeat_s: seconds between two signs of life.
        prefetch: whether to import what most workflows need before the first one comes.
    """

    fd: int
    workdir: str
    models: str | None
    cache_bytes: int | None
    heartbeat_s: float
    prefetch: bool


def work_message(job: int, work: Work) -> Message:
    """The message ``run``. Secrets of ComfyUI's nodes stay here: the engine has none of these nodes."""
    blobs: list[bytes] = []

    def place(data: bytes) -> int:
        blobs.append(data)
        return len(blobs) - 1

    body = {
        "job": job,
        "job_id": work.job_id,
        "workflow": dict(work.workflow),
        "files": {name: place(data) for name, data in work.files.items()},
        "inputs": {key: [file.name, place(file.data)] for key, file in work.inputs.items()},
        "values": dict(work.values),
        "convert": work.convert,
        "timeout_s": work.timeout_s,
    }
    return Message("run", body, tuple(blobs))


def read_work(message: Message) -> tuple[int, Work]:
    """The job in a message ``run``, and its number."""
    body, blobs = message.body, message.blobs
    work = Work(
        job_id=body["job_id"],
        workflow=body["workflow"],
        files={name: blobs[index] for name, index in body["files"].items()},
        inputs={key: FileInput(name, blobs[index]) for key, (name, index) in body["inputs"].items()},
        values=body["values"],
        convert=body["convert"],
        timeout_s=body["timeout_s"],
    )
    return body["job"], work


def event_message(job: int, event: Progress) -> Message:
    """The message ``event``."""
    # Nodes give numbers of any kind, numpy's too.
    return Message(
        "event", {"job": job, "event": {**vars(event), "value": float(event.value), "total": float(event.total)}}
    )


def read_event(body: Mapping[str, Any]) -> Progress:
    """The event in the body of a message.

    Raises:
        FrameError: it is none.
    """
    try:
        return Progress(**body["event"])
    except (KeyError, TypeError) as error:
        raise FrameError(f"a message event that is none: {error}") from None


def result_message(job: int, result: Result) -> Message:
    """The message ``result``."""
    return Message("result", {"job": job, "result": result.to_json()}, tuple(output.data for output in result.outputs))


def read_result(message: Message) -> Result:
    """The result in a message.

    Raises:
        FrameError: it is none.
    """
    try:
        return Result.from_json(message.body.get("result"), message.blobs)
    except InputError as error:
        raise FrameError(f"a message result that is none: {error}") from None
