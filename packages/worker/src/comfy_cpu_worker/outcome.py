"""What comes of a job, and what is told of it while it runs: the shapes that leave the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from comfy_cpu_core.results import Progress

__all__ = ["FinalState", "JobOutcome", "ProgressSink", "progress_document"]

#: RunPod's names for the ways in which a job ends.
FinalState = Literal["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]

#: Takes what `progress_document` makes.
ProgressSink = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class JobOutcome:
    """What came of a job.

    Attributes:
        state: RunPod's name for it. A block by a safety gate is FAILED.
        output: what stands under ``output``; with an error too (timings, the record of a block).
        error: one line for ``error``; None only if the state is COMPLETED.
        refresh_worker: whether the job asked for a fresh process behind it.
    """

    state: FinalState
    output: Mapping[str, Any] = field(repr=False)
    error: str | None = None
    refresh_worker: bool = False

    def to_handler(self) -> dict[str, Any]:
        """What a RunPod handler returns: the SDK takes ``error`` and ``refresh_worker`` out, the rest is ``output``."""
        answer = dict(self.output)
        if self.error is not None:
            answer["error"] = self.error
        if self.refresh_worker:
            answer["refresh_worker"] = True
        return answer


def progress_document(event: Progress) -> dict[str, Any]:
    """A progress event as clients get it, through RunPod's updates and the local API's stream.

    ``percent`` is of the whole workflow, 0 to 100, each node counted alike.
    """
    inside = event.value / event.total if event.kind == "step" and event.total else 0.0
    percent = 100 * (event.done + min(inside, 1.0)) / event.nodes if event.nodes else 0.0
    return {
        "kind": event.kind,
        "node_id": event.node_id,
        "class_type": event.class_type,
        "step": event.value,
        "steps": event.total,
        "nodes_done": event.done,
        "nodes": event.nodes,
        "percent": round(min(percent, 100.0), 1),
        "message": event.message,
    }
