"""A runner and a back end that do what a job tells them to, for tests of what is around them.

A job's workflow is its script: ``{"fake": {"steps": 3, "seconds": 0.1, "state": "FAILED", "error": "…"}}``. Every key may
be left out: such a job completes at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_cpu_worker.outcome import JobOutcome, ProgressSink
from comfy_cpu_worker.work import BackendHealth, Work

__all__ = ["FakeBackend", "FakeRunner", "job"]


def job(
    *, idempotency_key: str | None = None, policy: Mapping[str, Any] | None = None, **script: Any
) -> dict[str, Any]:
    """A job's document."""
    given: dict[str, Any] = {"workflow": {"fake": script}}
    if idempotency_key is not None:
        given["idempotency_key"] = idempotency_key
    return {"input": given} if policy is None else {"input": given, "policy": dict(policy)}


@dataclass
class FakeRunner:
    """Runs scripts.

    Attributes:
        ran: the documents of all jobs that were started, in order, by id.
        interrupted: the ids of those whose task was cancelled.
        hold: a job with ``hold`` in its script waits for this.
    """

    ran: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    interrupted: list[str] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, job_id: str, document: Mapping[str, Any], *, on_progress: ProgressSink) -> JobOutcome:
        self.ran.append((job_id, document))
        script = document["input"]["workflow"]["fake"]
        try:
            for step in range(script.get("steps", 0)):
                on_progress({"kind": "step", "step": step + 1})
                await asyncio.sleep(0)
            await asyncio.sleep(script.get("seconds", 0))
            if script.get("hold"):
                await self.hold.wait()
        except asyncio.CancelledError:
            self.interrupted.append(job_id)
            if "after_cancel" not in script:
                raise
        if "raise" in script:
            raise RuntimeError(script["raise"])
        state = script.get("state", "COMPLETED")
        error = script.get("error", None if state == "COMPLETED" else state.lower())
        output = script.get("output", {"images": [], "echo": script.get("echo")})
        return JobOutcome(state, output, error, refresh_worker=script.get("refresh", False))


@dataclass
class FakeBackend:
    """A back end that is always ready.

    Attributes:
        restarts: how often it was restarted.
    """

    name: str = "engine"
    restarts: int = 0
    state: Any = "ready"

    async def start(self) -> None: ...

    async def run(self, work: Work, *, on_event: Any) -> Any:
        raise AssertionError("nobody calls it")

    async def restart(self) -> None:
        self.restarts += 1

    def health(self) -> BackendHealth:
        return BackendHealth(self.state, restarts=self.restarts)

    async def close(self) -> None: ...
