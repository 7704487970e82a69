"""What came of a batch, in figures. All of it is counted inside the journal: memory does not grow with the inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from comfy_cpu_client.batch.cost import Cost, Price
from comfy_cpu_client.batch.journal import Journal

__all__ = ["BatchSummary", "FailureGroup", "Figures", "TargetShare", "summarise"]

#: Above this a GPU, or a smaller model, is worth a thought, in seconds.
_SLOW_S = 30.0


@dataclass(frozen=True)
class Figures:
    """How long something took, in seconds: the percentiles are times that really occurred (nearest rank)."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    longest: float


@dataclass(frozen=True)
class FailureGroup:
    """The inputs that did not complete for the same reason.

    Attributes:
        label, message, remedy: of the first one.
    """

    status: str
    reason: str
    count: int
    label: str
    message: str
    remedy: str | None


@dataclass(frozen=True)
class TargetShare:
    """What a target did.

    Attributes:
        completed, others: inputs that ended there.
        tried_in_vain: tries that failed there and were made again.
        execution: of the inputs that completed there; None if none did.
    """

    name: str
    completed: int
    others: int
    tried_in_vain: int
    execution: Figures | None


@dataclass(frozen=True)
class BatchSummary:
    """What came of a batch so far.

    Attributes:
        workflow: its name.
        inputs: how many there are.
        waiting: how many have no result yet.
        counts: ``completed``, ``blocked``, ``failed``, ``cancelled``, ``timed_out`` → how many inputs.
        stand_ins: how many inputs were answered by a stand-in for a model.
        retries: tries that failed and were made again, by reason.
        cut_off: how often a job was under way when the process died.
        sessions: how often the batch was begun or taken up.
        active_seconds: how long it ran, all sessions together.
        queue, execution: of the inputs that completed; None if there are none, or the target did not say.
        cost: None without a price.
        failures: inputs that did not complete, by status and reason; the most frequent first.
        targets: by name.
        warnings: what targets warned of → at how many inputs.
        advice: lines about what might be done better.
    """

    workflow: str
    inputs: int
    waiting: int
    counts: Mapping[str, int]
    stand_ins: int
    retries: Mapping[str, int]
    cut_off: int
    sessions: int
    active_seconds: float
    queue: Figures | None
    execution: Figures | None
    cost: Cost | None
    failures: Sequence[FailureGroup]
    targets: Sequence[TargetShare]
    warnings: Mapping[str, int]
    advice: Sequence[str]

    @property
    def completed(self) -> int:
        """How many inputs completed."""
        return self.counts["completed"]

    @property
    def blocked(self) -> int:
        """How many inputs a safety gate blocked."""
        return self.counts["blocked"]

    @property
    def failed(self) -> int:
        """How many inputs neither completed nor were blocked."""
        return sum(self.counts.values()) - self.completed - self.blocked

    @property
    def ended(self) -> int:
        """How many inputs have a result."""
        return sum(self.counts.values())

    @property
    def success_rate(self) -> float | None:
        """The share of inputs with a result that completed, 0 to 1. A block counts neither way."""
        judged = self.ended - self.blocked
        return self.completed / judged if judged else None

    @property
    def per_second(self) -> float | None:
        """Results per second of activity."""
        return self.ended / self.active_seconds if self.active_seconds > 0 and self.ended else None

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON can hold it. Fields are only ever added."""
        cost = self.cost
        return {
            "workflow": self.workflow,
            "inputs": self.inputs,
            "waiting": self.waiting,
            "results": dict(self.counts),
            "success_rate": self.success_rate,
            "stand_ins": self.stand_ins,
            "retries": dict(self.retries),
            "cut_off": self.cut_off,
            "sessions": self.sessions,
            "active_seconds": round(self.active_seconds, 3),
            "results_per_second": self.per_second,
            "queue_seconds": asdict(self.queue) if self.queue else None,
            "execution_seconds": asdict(self.execution) if self.execution else None,
            "cost": None
            if cost is None
            else {
                "per_vcpu_second": cost.price.per_vcpu_second,
                "vcpus": cost.price.vcpus,
                "execution_seconds": cost.execution_seconds,
                "total": cost.total,
                "per_completed": cost.per_completed,
            },
            "failures": [asdict(group) for group in self.failures],
            "targets": [asdict(target) for target in self.targets],
            "warnings": dict(self.warnings),
            "advice": list(self.advice),
        }


def summarise(journal: Journal, workflow: str, price: Price | None = None) -> BatchSummary:
    """Count what is in a journal."""
    counts = journal.counts()
    results = {status: counts[status] for status in ("completed", "blocked", "failed", "cancelled", "timed_out")}
    ((sessions, active),) = journal.read("SELECT count(*), coalesce(sum(active_s), 0) FROM sessions")
    ((stand_ins,),) = journal.read("SELECT count(*) FROM results WHERE stand_in")
    retries = dict(
        journal.read("SELECT outcome, count(*) FROM attempts GROUP BY outcome ORDER BY count(*) DESC, outcome")
    )
    cut_off = retries.pop("cut_off", 0)
    execution, queue = _figures(journal, "execution_seconds"), _figures(journal, "queue_seconds")
    cost = None
    if price is not None:
        ((spent,),) = journal.read(
            "SELECT coalesce((SELECT sum(execution_seconds) FROM results), 0)"
            " + coalesce((SELECT sum(execution_seconds) FROM attempts), 0)"
        )
        cost = price.of(spent, results["completed"])
    failures = [
        FailureGroup(*row[:-1])
        for row in journal.read(  # with min() in it, SQLite takes the other columns from that row
            "SELECT status, reason, count(*), label, message, remedy, min(place) FROM results JOIN inputs USING (place)"
            " WHERE status <> 'completed' GROUP BY status, reason ORDER BY count(*) DESC, reason"
        )
    ]
    return BatchSummary(
        workflow=workflow,
        inputs=counts["inputs"],
        waiting=counts["waiting"] + counts["running"],
        counts=results,
        stand_ins=stand_ins,
        retries=retries,
        cut_off=cut_off,
        sessions=sessions,
        active_seconds=active,
        queue=queue,
        execution=execution,
        cost=cost,
        failures=failures,
        targets=_targets(journal),
        warnings=dict(journal.read("SELECT message, count FROM warnings ORDER BY count DESC, message")),
        advice=_advice(queue, execution, {group.reason: group.count for group in failures}, retries),
    )


def _targets(journal: Journal) -> list[TargetShare]:
    ended = journal.read(
        "SELECT target, sum(status = 'completed'), sum(status <> 'completed') FROM results"
        " WHERE target IS NOT NULL GROUP BY target"
    )
    tried = dict(
        journal.read("SELECT target, count(*) FROM attempts WHERE outcome <> 'cut_off' AND target NOT NULL GROUP BY 1")
    )
    known = {name: (completed, others) for name, completed, others in ended}
    return [
        TargetShare(name, *known.get(name, (0, 0)), tried.get(name, 0), _figures(journal, "execution_seconds", name))
        for name in sorted({*known, *tried})
    ]


def _figures(journal: Journal, column: str, target: str | None = None) -> Figures | None:
    where = f"FROM results WHERE status = 'completed' AND {column} IS NOT NULL"
    values: tuple[str, ...] = ()
    if target is not None:
        where, values = f"{where} AND target = ?", (target,)
    ((count, mean, longest),) = journal.read(f"SELECT count(*), avg({column}), max({column}) {where}", *values)
    if not count:
        return None

    def percentile(share: float) -> float:
        rank = max(1, math.ceil(share * count)) - 1
        ((value,),) = journal.read(f"SELECT {column} {where} ORDER BY {column} LIMIT 1 OFFSET {rank}", *values)
        return float(value)

    return Figures(count, mean, percentile(0.5), percentile(0.9), percentile(0.99), longest)


def _advice(
    queue: Figures | None, execution: Figures | None, failures: Mapping[str, int], retries: Mapping[str, int]
) -> list[str]:
    lines = []
    if execution is not None and execution.p50 > _SLOW_S:
        lines.append(
            f"Half of the jobs took more than {execution.p50:.0f} s: where somebody waits for the answer, a smaller"
            " model or a GPU is the better choice; for work that may take its time this is the cheap way."
        )
    if queue is not None and execution is not None and queue.p50 > max(2 * execution.p50, 1.0):
        lines.append(
            f"Jobs waited {queue.p50:.1f} s for the {execution.p50:.1f} s that they ran: more workers would help; more"
            " jobs in flight would not."
        )
    if failures.get("ambiguous"):
        lines.append(
            f"Of {failures['ambiguous']} jobs nobody knows whether the target accepted them: see there, then run again"
            " with --retry-failed."
        )
    if failures.get("timed_out") or retries.get("timed_out"):
        lines.append(
            "Jobs ran past their deadline: a longer --timeout, fewer jobs in flight, or more vCPUs would help."
        )
    if failures.get("memory") or retries.get("memory"):
        lines.append("A target ran out of memory: use smaller pictures, fewer jobs at once, or a machine with more.")
    return lines
