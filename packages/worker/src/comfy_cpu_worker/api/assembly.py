"""Puts queue, application and server together. Importing it takes time: `comfy_cpu_worker.serve` does it in a thread."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy_cpu_worker.api.answers import job_document
from comfy_cpu_worker.api.app import create_app
from comfy_cpu_worker.api.server import ApiServer, make_server
from comfy_cpu_worker.queue import JobQueue, JobView, QueueLimits
from comfy_cpu_worker.records import JobRecord
from comfy_cpu_worker.runner import JobRunner
from comfy_cpu_worker.settings import WorkerSettings
from comfy_cpu_worker.shelf import Shelf
from comfy_cpu_worker.webhooks import Webhooks
from comfy_cpu_worker.work import Backend

__all__ = ["Assembly", "assemble"]


@dataclass(frozen=True)
class Assembly:
    """The parts of a worker beside its back end.

    Attributes:
        queue: not opened yet.
        server: not started yet.
        webhooks: None if jobs may have none.
    """

    queue: JobQueue
    server: ApiServer
    webhooks: Webhooks | None


def assemble(settings: WorkerSettings, backend: Backend, shelf: Shelf) -> Assembly:
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
    webhooks = Webhooks(settings.webhooks) if settings.webhooks is not None else None

    def tell(record: JobRecord, document: Mapping[str, Any]) -> None:
        if webhooks is not None and document.get("webhook"):
            status = job_document(JobView(record), settings.worker_id)
            if record.output is not None:
                status["output"] = json.loads(record.output)
            webhooks.call(record.id, document["webhook"], status)

    runner = JobRunner.from_settings(settings, backend, shelf)
    queue = JobQueue(runner, backend, limits, refresh=settings.refresh_worker, on_end=tell)
    return Assembly(queue, make_server(create_app(settings, queue, backend, shelf)), webhooks)
