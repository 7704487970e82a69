"""From a job as it came to what the queue takes: checked, and its secrets taken out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_cpu_worker.errors import JobRejected, UrlRefused
from comfy_cpu_worker.inputs import check_files
from comfy_cpu_worker.job import JobInput, parse_job
from comfy_cpu_worker.jobsecrets import JobSecrets, without_secrets
from comfy_cpu_worker.settings import WorkerSettings
from comfy_cpu_worker.shelf import Shelf
from comfy_cpu_worker.urls import UrlClient, UrlPolicy

__all__ = ["Submission", "parse_submission"]


@dataclass(frozen=True)
class Submission:
    """A job that was parsed and may be queued.

    Attributes:
        document: the JSON text of the job, without secrets.
        secrets: what was taken out of it; None if there was nothing.
        digest: tells two jobs apart that have the same key.
        sync: whether it came by ``runsync``.
        ttl_s: seconds that it may live; None for the queue's default.
        idempotency_key: two submissions with the same key are one job.
    """

    document: bytes = field(repr=False)
    digest: str
    secrets: JobSecrets | None = field(default=None, repr=False)
    sync: bool = False
    ttl_s: float | None = None
    idempotency_key: str | None = field(default=None, repr=False)


def parse_submission(
    document: Any, settings: WorkerSettings, shelf: Shelf, *, key: str | None, sync: bool
) -> Submission:
    """Check a job and make it ready for the queue.

    Args:
        document: the job, parsed JSON of any kind.
        shelf: the workflows that it may name.
        key: the header ``Idempotency-Key``, or None; a job may have it in itself instead.
        sync: whether it came by ``runsync``.

    Raises:
        JobRejected, JobTooLarge: see `parse_job` and `check_files`; or it asks for what is not allowed.
    """
    job = parse_job(document, settings.limits)
    check_files(job, settings.limits)
    _check_urls(job, settings)
    if isinstance(job.workflow, str):
        shelf.get(job.workflow)
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


def _check_urls(job: JobInput, settings: WorkerSettings) -> None:
    """Refuse a URL that leads nowhere before its job waits. Where a name leads is seen when it is asked for."""
    if job.webhook is not None:
        if settings.webhooks is None:
            raise JobRejected(
                "webhook: this worker calls none",
                remedy="ask for the status, or set COMFY_CPU_WEBHOOKS=true where it runs",
            )
        _check_url("webhook", job.webhook, settings.webhooks)
    for file in (*job.files, *job.inputs.values()):
        if file.url is not None and settings.urls is not None:  # else `parse_job` has refused it
            _check_url(file.path, file.url, settings.urls)


def _check_url(path: str, url: str, policy: UrlPolicy) -> None:
    try:
        UrlClient(policy).check(url)
    except UrlRefused as error:
        raise UrlRefused(f"{path}: {error}", remedy=error.remedy) from None


def _without_key(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """A job without its idempotency key: in the header or in the job, it is the same job."""
    given = document.get("input")
    if not isinstance(given, Mapping) or "idempotency_key" not in given:
        return document
    return {**document, "input": {name: value for name, value in given.items() if name != "idempotency_key"}}


def _json(document: Any, *, sort_keys: bool = False) -> bytes:
    return json.dumps(document, sort_keys=sort_keys, separators=(",", ":")).encode()
