"""RunPod's queue API: requests as values, and what its answers mean. Opens nothing, sends nothing.

Our worker speaks the same, and takes an idempotency key besides.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import quote

from comfy_cpu_core.errors import TargetError
from comfy_cpu_core.results import Progress

__all__ = [
    "FINAL",
    "Answer",
    "Health",
    "JobAnswer",
    "Operation",
    "Request",
    "cancel",
    "get_health",
    "get_status",
    "get_stream",
    "parse_health",
    "parse_job",
    "parse_purge",
    "purge_queue",
    "retry",
    "submit",
]

Operation = Literal["run", "runsync", "status", "stream", "cancel", "retry", "purge-queue", "health"]

State = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]

#: The states in which a job has ended.
FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})

# Other words for the same that RunPod has.
_SAME: Mapping[str, State] = {"RUNNING": "IN_PROGRESS", "PENDING": "IN_QUEUE"}

_KINDS = frozenset({"started", "step", "finished", "cached", "notice"})


@dataclass(frozen=True)
class Request:
    """An HTTP request to an endpoint.

    Attributes:
        operation: which of its limits counts.
        path: below the endpoint's URL, with what stands behind the ``?``.
        body: JSON, or None; may hold secrets.
        headers: besides those that let it in.
    """

    operation: Operation
    method: Literal["GET", "POST"]
    path: str
    body: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer with status 200.

    Attributes:
        where: who answered, for messages.
    """

    where: str
    body: bytes = field(repr=False)

    def json(self) -> Mapping[str, Any]:
        """The body.

        Raises:
            TargetError: it is no JSON object.
        """
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            raise self.strange("is not JSON") from None
        if not isinstance(document, dict):
            raise self.strange("is no object")
        return document

    def strange(self, what: str) -> TargetError:
        """The error for an answer that no such endpoint would give; `what` ends a sentence."""
        return TargetError(f"an answer of {self.where} {what}", remedy="is that address the right one?")


# --- requests -------------------------------------------------------------------------------------------------------


def submit(body: bytes, *, key: str | None = None, wait_s: float | None = None) -> Request:
    """Submit a job.

    Args:
        body: the job's document, as JSON.
        key: an idempotency key, for endpoints that know such.
        wait_s: how long to wait for its end (``runsync``); None to be answered at once (``run``).
    """
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Idempotency-Key"] = key
    if wait_s is None:
        return Request("run", "POST", "/run", body, headers)
    wait_ms = min(max(round(wait_s * 1000), 1000), 300_000)
    return Request("runsync", "POST", f"/runsync?wait={wait_ms}", body, headers)


def get_status(job_id: str) -> Request:
    """How a job is, with its output; 404 if it is not known any more."""
    return Request("status", "GET", f"/status/{quote(job_id, safe='')}")


def get_stream(job_id: str) -> Request:
    """What a job has told since this was asked last."""
    return Request("stream", "GET", f"/stream/{quote(job_id, safe='')}")


def cancel(job_id: str) -> Request:
    """End a job; may be sent twice."""
    return Request("cancel", "POST", f"/cancel/{quote(job_id, safe='')}")


def retry(job_id: str) -> Request:
    """Run a job again, under the same id, that FAILED or TIMED_OUT."""
    return Request("retry", "POST", f"/retry/{quote(job_id, safe='')}")


def purge_queue() -> Request:
    """End every job that waits."""
    return Request("purge-queue", "POST", "/purge-queue")


def get_health() -> Request:
    """How many jobs and workers there are."""
    return Request("health", "GET", "/health")


# --- answers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JobAnswer:
    """What an endpoint says of a job.

    Attributes:
        state: None for a word that is not known: then the job has not ended.
        output: as it stands there, once the job has ended; None if there is none.
        error: why it ended, in one line, or None.
        details: a traceback, or empty.
        delay_s, execution_s: how long it waited and ran, as the endpoint says; None if it does not, or makes no sense.
        progress: what it tells of a job that runs.
        cut_off: whether its worker died while it ran, so that it ran again.
    """

    id: str
    state: State | None
    output: Any = field(default=None, repr=False)
    error: str | None = None
    details: str = field(default="", repr=False)
    delay_s: float | None = None
    execution_s: float | None = None
    progress: Sequence[Progress] = ()
    cut_off: bool = False

    @property
    def ended(self) -> bool:
        """Whether the job is in one of the final states."""
        return self.state in FINAL


def parse_job(answer: Answer, job_id: str | None = None) -> JobAnswer:
    """Read the answer to `submit`, `get_status`, `get_stream`, `cancel` or `retry`.

    Args:
        job_id: which job was asked for; None if that is in the answer.

    Raises:
        TargetError: it is no such answer, or one about another job.
    """
    document = answer.json()
    named = document.get("id")
    if job_id is None and (not isinstance(named, str) or not named):
        raise answer.strange("names no job")
    if job_id is not None and named not in {job_id, None}:
        raise answer.strange("is about another job")
    said = document.get("status")
    if not isinstance(said, str):
        raise answer.strange("names no status")
    word = said.upper()
    state: State | None = _SAME.get(word, word if word in get_args(State) else None)  # type: ignore[arg-type]
    ended = state in FINAL
    error, details = _error(document.get("error"))
    chunks = document.get("stream")
    told = [item.get("output") for item in chunks if isinstance(item, dict)] if isinstance(chunks, list) else []
    if not ended:
        told.append(document.get("output"))
    return JobAnswer(
        id=job_id or str(named),
        state=state,
        output=document.get("output") if ended else None,
        error=error,
        details=details,
        delay_s=_seconds(document.get("delayTime")),
        execution_s=_seconds(document.get("executionTime")),
        progress=tuple(_progress(told)),
        cut_off=document.get("cut_off") is True,
    )


def _error(value: Any) -> tuple[str | None, str]:
    """An error in one line, and its traceback: RunPod's SDK writes an exception as JSON in a text."""
    if value is None or value == "":
        return None, ""
    known: Any = value
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            known = json.loads(value)
        except (ValueError, RecursionError):
            known = value
    details = ""
    if isinstance(known, dict):
        details = str(known.get("error_traceback") or "")
        known = known.get("error_message") or known.get("message") or known.get("error") or value
    return " ".join(str(known).split())[:2000] or None, details


def _seconds(milliseconds: Any) -> float | None:
    # A clock that was set meanwhile gives what makes no sense.
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    return milliseconds / 1000 if math.isfinite(milliseconds) and milliseconds >= 0 else None


def _progress(documents: Sequence[Any]) -> Iterator[Progress]:
    """Progress as our worker tells it; what others tell is their own."""
    for document in documents:
        if not isinstance(document, dict) or document.get("kind") not in _KINDS:
            continue
        yield Progress(
            kind=document["kind"],
            node_id=_text(document.get("node_id")),
            class_type=_text(document.get("class_type")),
            value=_number(document.get("step")),
            total=_number(document.get("steps")),
            done=int(_number(document.get("nodes_done"))),
            nodes=int(_number(document.get("nodes"))),
            message=_text(document.get("message")) or "",
        )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and math.isfinite(value) else 0


@dataclass(frozen=True)
class Health:
    """How many jobs and workers an endpoint has, by what they do (``inQueue``, ``idle``, …)."""

    jobs: Mapping[str, int]
    workers: Mapping[str, int]


def parse_health(answer: Answer) -> Health:
    """Read the answer to `get_health`.

    Raises:
        TargetError: it is no such answer.
    """
    document = answer.json()
    jobs, workers = document.get("jobs"), document.get("workers")
    if not isinstance(jobs, dict) or not isinstance(workers, dict):
        raise answer.strange("does not tell of jobs and workers")
    return Health(_counts(jobs), _counts(workers))


def _counts(values: Mapping[str, Any]) -> dict[str, int]:
    return {name: value for name, value in values.items() if isinstance(value, int)}


def parse_purge(answer: Answer) -> int:
    """Read the answer to `purge_queue`: how many jobs were removed.

    Raises:
        TargetError: it is no such answer.
    """
    removed = answer.json().get("removed")
    if not isinstance(removed, int):
        raise answer.strange("does not say how many jobs were removed")
    return removed
