"""From a job as it came to what the queue takes: checked, and its secrets taken out. Opens nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from comfy_cpu_worker.errors import JobRejected
from comfy_cpu_worker.job import parse_job
from comfy_cpu_worker.jobsecrets import without_secrets
from comfy_cpu_worker.queue import Submission
from comfy_cpu_worker.settings import WorkerSettings

__all__ = ["parse_submission"]


def parse_submission(document: Any, settings: WorkerSettings, *, key: str | None, sync: bool) -> Submission:
    """Check a job and make it ready for the queue.

    Args:
        document: the job, parsed JSON of any kind.
        key: the header ``Idempotency-Key``, or None; a job may have it in itself instead.
        sync: whether it came by ``runsync``.

    Raises:
        JobRejected, JobTooLarge: see `parse_job`; or it asks for what is not allowed.
    """
    job = parse_job(document, settings.limits)
    if job.webhook is not None and settings.webhooks is None:
        raise JobRejected(
            "webhook: this worker calls none", remedy="ask for the status, or set COMFY_CPU_WEBHOOKS=true where it runs"
        )
    for file in [*job.files, *job.inputs.values()] if settings.urls is None else []:
        if file.url is not None:
            raise JobRejected(
                f"{file.path} is a URL, and this worker fetches none",
                remedy="send the file in base64, or set COMFY_CPU_URLS=true where the worker runs",
            )
    if key is not None and job.idempotency_key not in {None, key}:
        raise JobRejected("input.idempotency_key is another one than the header Idempotency-Key")
    kept, secrets = without_secrets(document)
    return Submission(
        document=_json(kept),
        digest=hashlib.sha256(_json(_without_key(kept), sort_keys=True)).hexdigest(),
        secrets=secrets,
        sync=sync,
        ttl_s=job.ttl_s,
        idempotency_key=key or job.idempotency_key,
    )


def _without_key(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """A job without its idempotency key: in the header or in the job, it is the same job."""
    given = document.get("input")
    if not isinstance(given, Mapping) or "idempotency_key" not in given:
        return document
    return {**document, "input": {name: value for name, value in given.items() if name != "idempotency_key"}}


def _json(document: Any, *, sort_keys: bool = False) -> bytes:
    return json.dumps(document, sort_keys=sort_keys, separators=(",", ":")).encode()
