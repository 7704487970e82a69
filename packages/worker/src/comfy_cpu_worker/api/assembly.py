"""Puts queue, application and server together. Importing it takes time: `comfy_cpu_worker.serve` does it in a thread."""

from __future__ import annotations

from comfy_cpu_worker.api.app import create_app
from comfy_cpu_worker.api.server import ApiServer, make_server
from comfy_cpu_worker.queue import JobQueue, QueueLimits
from comfy_cpu_worker.runner import JobRunner
from comfy_cpu_worker.settings import WorkerSettings
from comfy_cpu_worker.shelf import Shelf
from comfy_cpu_worker.work import Backend

__all__ = ["assemble"]


def assemble(settings: WorkerSettings, backend: Backend, shelf: Shelf) -> tuple[JobQueue, ApiServer]:
    """Make the queue, and the server that answers for it; nothing is opened or started.

    Args:
        settings: all of them.
        backend: what does the work.
        shelf: the workflows that jobs may name.
    """
    limits = QueueLimits(
        waiting=settings.queue,
        keep_run_s=settings.keep_s,
        keep_sync_s=settings.keep_sync_s,
        keep_bytes=settings.keep_bytes,
        ttl_s=settings.ttl_s,
    )
    runner = JobRunner.from_settings(settings, backend, shelf)
    queue = JobQueue(runner, backend, limits, refresh=settings.refresh_worker)
    return queue, make_server(create_app(settings, queue, backend, shelf))
