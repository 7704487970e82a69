"""Summary, cost, plots and report."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_client.batch.cost import Price, parse_price
from comfy_cpu_client.batch.inputs import BatchInput
from comfy_cpu_client.batch.journal import Journal, Record
from comfy_cpu_client.batch.plots import bar_plot, nice_ticks, seconds, time_ticks
from comfy_cpu_client.batch.report import render_batch_report
from comfy_cpu_client.batch.summary import BatchSummary, summarise
from comfy_cpu_core.errors import UsageError

EVIL = "<script>alert('x')</script>"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    now = [0.0]
    with Journal(tmp_path, clock=lambda: now[0]) as opened:
        opened.begin({})
        opened.add(
            BatchInput("row", f"row-{n}{EVIL}", {"1.image": f"/x/{n}"}, order=(0, f"{n:04}")) for n in range(120)
        )
        times = list(range(1, 101))
        random.Random(1).shuffle(times)
        for one, time in zip(opened.waiting(0, 100), times, strict=True):
            now[0] += 1
            with opened.transaction():
                opened.finish(
                    one.place,
                    Record("completed", target="a", queue_seconds=time / 10, execution_seconds=float(time)),
                )
        with opened.transaction():
            for place in range(101, 106):
                opened.finish(place, Record("failed", "node_failed", f"{EVIL} {place}", EVIL, target=f"b{EVIL}"))
            opened.finish(106, Record("blocked", "blocked", "Content blocked by X", target="a"))
            opened.retry(107, Record("failed", "unreachable", "x", target="a", execution_seconds=50.0), same=False)
        yield opened


def test_percentiles_are_nearest_ranks(journal: Journal) -> None:
    summary = summarise(journal, "w.json")
    assert summary.execution is not None
    assert (summary.execution.p50, summary.execution.p90, summary.execution.p99) == (50.0, 90.0, 99.0)
    assert (summary.execution.mean, summary.execution.longest, summary.execution.count) == (50.5, 100.0, 100)
    assert summary.queue is not None
    assert summary.queue.p90 == 9.0


def test_counts(journal: Journal) -> None:
    summary = summarise(journal, "w.json")
    assert (summary.completed, summary.failed, summary.blocked, summary.waiting) == (100, 5, 1, 14)
    assert summary.success_rate == pytest.approx(100 / 105)
    assert summary.retries == {"unreachable": 1}
    assert summary.per_second == pytest.approx(1.06)
    assert [(group.reason, group.count) for group in summary.failures] == [("node_failed", 5), ("blocked", 1)]
    assert summary.failures[0].message == f"{EVIL} 101"  # the first one
    assert [(target.name, target.completed, target.tried_in_vain) for target in summary.targets] == [
        ("a", 100, 1),
        (f"b{EVIL}", 0, 0),
    ]


def test_cost_counts_tries_in_vain(journal: Journal) -> None:
    cost = summarise(journal, "w.json", Price(0.01, vcpus=2)).cost
    assert cost is not None
    assert cost.execution_seconds == 5050 + 50
    assert cost.total == pytest.approx(102.0)
    assert cost.per_completed == pytest.approx(1.02)


def test_slow_jobs_are_advised_on(journal: Journal) -> None:
    assert "a GPU is the better choice" in " ".join(summarise(journal, "w.json").advice)


def test_nothing_done_yet(tmp_path: Path) -> None:
    with Journal(tmp_path) as empty:
        empty.begin({})
        empty.add([BatchInput("file", "a", {"1.image": "/a"})])
        summary = summarise(empty, "w.json", Price(1.0))
        assert (summary.success_rate, summary.per_second, summary.execution) == (None, None, None)
        assert "0 of 1 inputs completed" in page(summary, empty)


def page(summary: BatchSummary, journal: Journal) -> str:
    return render_batch_report(summary, journal, versions={"comfy-cpu-core": "0.1.0"})


def test_the_report_needs_nothing_else_and_escapes_everything(journal: Journal) -> None:
    text = page(summarise(journal, f"w{EVIL}.json", Price(0.01)), journal)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("<svg") == 3
    assert "100 of 120 inputs completed" in text


@pytest.mark.parametrize(
    ("text", "price"),
    [("3600/h", 1.0), ("0.5/s", 0.5), (" 6 / min ", 0.1), ("1.22e-05/s", 1.22e-05), (".36/h", 0.0001)],
)
def test_prices(text: str, price: float) -> None:
    assert parse_price(text, 4) == Price(pytest.approx(price), 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "1", "$1/h", "1/day", "-1/h", "1/h each", "nan/h"])
def test_what_is_no_price(text: str) -> None:
    with pytest.raises(UsageError):
        parse_price(text, 1)


@given(st.floats(1e-6, 1e9))
def test_ticks_are_round_and_cover_the_axis(upper: float) -> None:
    ticks = nice_ticks(upper)
    assert 4 <= len(ticks) <= 7
    assert ticks[-1] >= upper * (1 - 1e-6)
    times = time_ticks(upper)
    assert 1 <= len(times) <= 9
    assert times[-1] <= upper * (1 + 1e-6)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=60), st.floats(0.001, 1e6))
def test_bars_stay_inside_the_plot(columns: list[tuple[int, int]], upper: float) -> None:
    plot = bar_plot(columns, ("completed", "failed"), upper)
    assert len(plot.bars) == sum(count > 0 for column in columns for count in column)
    for bar in plot.bars:
        assert plot.left <= bar.x
        assert bar.x + bar.width <= plot.right + 1
        assert bar.y >= 0
        assert bar.y + bar.height <= plot.base + 1e-6
        assert math.isfinite(bar.height)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.34, "340 ms"),
        (2.4, "2.4 s"),
        (200, "3 min 20 s"),
        (120, "2 min"),
        (7500, "2 h 5 min"),
        (7190, "2 h"),
    ],
)
def test_durations(value: float, text: str) -> None:
    assert seconds(value) == text
