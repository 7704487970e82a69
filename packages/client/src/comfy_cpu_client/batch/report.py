"""A batch as one HTML page that needs nothing else: plots inside as SVG, no script, no link to the outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from comfy_cpu_client.batch.journal import Journal
from comfy_cpu_client.batch.plots import Plot, bar_plot, number, seconds
from comfy_cpu_client.batch.summary import BatchSummary, Figures
from comfy_cpu_client.pages import page_template

__all__ = ["render_batch_report"]

_COLUMNS = 48
#: How many inputs that did not complete are listed one by one.
_LISTED = 100


@dataclass(frozen=True)
class _Titled:
    title: str
    text: str
    plot: Plot


@dataclass(frozen=True)
class _Share:
    status: str
    count: int
    percent: float


def render_batch_report(summary: BatchSummary, journal: Journal, *, versions: Mapping[str, str]) -> str:
    """Render what came of a batch as a self-contained HTML page. Whatever comes from outside is escaped.

    Args:
        versions: name → version of what made it.
    """
    plots = [
        _timeline(summary, journal),
        _histogram(journal, "execution_seconds", "Execution time", summary.execution),
        _histogram(journal, "queue_seconds", "Time in the queue", summary.queue),
    ]
    listed = journal.read(
        "SELECT label, status, reason, message, results.target, results.job, cut_off, failures FROM results JOIN inputs USING (place)"
        " WHERE status <> 'completed' ORDER BY place LIMIT ?",
        _LISTED,
    )
    return page_template("batch.html").render(
        summary=summary,
        plots=[plot for plot in plots if plot is not None],
        shares=[
            _Share(status, count, 100 * count / summary.inputs)
            for status, count in (*summary.counts.items(), ("waiting", summary.waiting))
            if count
        ],
        listed=[dict(zip(_LISTED_FIELDS, row, strict=True)) for row in listed],
        unlisted=summary.ended - summary.completed - len(listed),
        versions=versions,
        number=number,
        seconds=seconds,
    )


_LISTED_FIELDS = ("label", "status", "reason", "message", "target", "job", "cut_off", "failures")


def _timeline(summary: BatchSummary, journal: Journal) -> _Titled | None:
    upper = summary.active_seconds
    if not summary.ended or upper <= 0:
        return None
    rows = journal.read(
        "SELECT min(CAST(active_at * ? / ? AS INTEGER), ?), sum(status = 'completed'), sum(status = 'blocked'),"
        " sum(status NOT IN ('completed', 'blocked')) FROM results GROUP BY 1",
        _COLUMNS,
        upper,
        _COLUMNS - 1,
    )
    columns = _columns(rows, 3)
    per_second = _COLUMNS / upper
    return _Titled(
        "Results per second",
        "over the time that the batch was active; the time between two sessions is left out",
        bar_plot(columns, ("completed", "blocked", "failed"), upper, scale=per_second, width=1000),
    )


def _histogram(journal: Journal, column: str, title: str, figures: Figures | None) -> _Titled | None:
    if figures is None or figures.longest <= 0:
        return None
    # The last percent may be far away: it would press everything else into one column.
    upper = min(figures.longest, 1.5 * figures.p99) or figures.longest
    rows = journal.read(
        f"SELECT min(CAST({column} * ? / ? AS INTEGER), ?), count(*) FROM results"  # noqa: S608
        f" WHERE status = 'completed' AND {column} IS NOT NULL GROUP BY 1",
        _COLUMNS,
        upper,
        _COLUMNS - 1,
    )
    text = f"{figures.count:,} jobs; half of them at most {seconds(figures.p50)}, 99 % at most {seconds(figures.p99)}"
    if figures.longest > upper:
        text += f"; the last column holds all up to {seconds(figures.longest)}"
    return _Titled(title, text, bar_plot(_columns(rows, 1), ("completed",), upper))


def _columns(rows: Sequence[Sequence[int]], kinds: int) -> list[list[int]]:
    columns = [[0] * kinds for _ in range(_COLUMNS)]
    for index, *counts in rows:
        columns[max(0, index)] = counts
    return columns
