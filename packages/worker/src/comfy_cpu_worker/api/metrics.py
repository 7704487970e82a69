"""``/metrics``: what the worker counted, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comfy_cpu_worker.records import FINAL_STATES
from comfy_cpu_worker.stats import Histogram, WorkerStats

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

__all__ = ["Reading", "render"]


@dataclass(frozen=True)
class Reading:
    """What is measured when somebody asks.

    Attributes:
        states: jobs by state, of those that are kept.
        restarts: how often the back end's process was started again.
        ready: whether the worker takes jobs.
        backend: the back end's name.
        version: of this worker.
    """

    states: Mapping[str, int]
    restarts: int
    ready: bool
    backend: str
    version: str


def render(stats: WorkerStats, reading: Reading) -> tuple[bytes, str]:
    """Everything in Prometheus' text format, and its media type.

    prometheus_client is imported here, not when the worker starts: that would take a third of the time.
    """
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(stats, reading))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Collector:
    def __init__(self, stats: WorkerStats, reading: Reading) -> None:
        self._stats = stats
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            InfoMetricFamily,
        )

        stats, reading = self._stats, self._reading
        yield InfoMetricFamily(
            "comfy_cpu_worker", "This worker.", {"backend": reading.backend, "version": reading.version}
        )
        yield GaugeMetricFamily("comfy_cpu_ready", "1 if the worker takes jobs.", reading.ready)
        yield GaugeMetricFamily("comfy_cpu_queue_length", "Jobs that wait.", reading.states.get("IN_QUEUE", 0))
        jobs = GaugeMetricFamily("comfy_cpu_jobs_kept", "Jobs that are kept, by state.", labels=["state"])
        for state in ("IN_QUEUE", "IN_PROGRESS", *sorted(FINAL_STATES)):
            jobs.add_metric([state], reading.states.get(state, 0))
        yield jobs
        ended = CounterMetricFamily("comfy_cpu_jobs", "Jobs that ended, by state.", labels=["state"])
        for state in sorted(FINAL_STATES):
            ended.add_metric([state], stats.ended[state])
        yield ended
        refused = CounterMetricFamily("comfy_cpu_jobs_refused", "Jobs not accepted, by reason.", labels=["code"])
        for code, count in sorted(stats.refused.items()):
            refused.add_metric([code], count)
        yield refused
        yield CounterMetricFamily("comfy_cpu_jobs_retried", "Jobs queued again on request.", stats.retried)
        yield CounterMetricFamily("comfy_cpu_jobs_cut_off", "Jobs queued again after a crash.", stats.cut_off)
        yield CounterMetricFamily("comfy_cpu_backend_restarts", "Restarts of the back end.", reading.restarts)
        yield _histogram("comfy_cpu_job_wait_seconds", "Seconds that jobs waited.", stats.waiting)
        yield _histogram("comfy_cpu_job_duration_seconds", "Seconds that jobs ran.", stats.execution)


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    from prometheus_client.metrics_core import HistogramMetricFamily

    return HistogramMetricFamily(name, text, buckets=histogram.buckets(), sum_value=histogram.sum)
