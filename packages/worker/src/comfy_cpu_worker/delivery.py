"""From a result to the document that leaves the worker: base64 or S3, and never larger than what arrives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from comfy_cpu_worker.bucket import S3Target
from comfy_cpu_worker.urls import UrlPolicy

__all__ = ["DeliveryPolicy"]


@dataclass(frozen=True)
class DeliveryPolicy:
    """How outputs leave the worker.

    Attributes:
        output_bytes: the largest output document, in bytes of JSON. RunPod loses larger ones without a word: 10 MB for
            ``run``, 20 MB for ``runsync``.
        s3: the worker's own bucket (`comfy_cpu_worker.bucket.s3_from_environ`), or None.
        job_buckets: where buckets that jobs bring along may be; None if jobs may bring none.
        reencode: what pictures are turned into where the document would be too large and there is no bucket; None
            leaves them alone, so that the job fails.
        quality: 1 to 100, for JPEG and WebP, where the job does not say.
        upload_s: seconds for all uploads of a job.
        attempts: how often an upload is tried.
    """

    output_bytes: int = 9_500_000
    s3: S3Target | None = None
    job_buckets: UrlPolicy | None = field(default_factory=UrlPolicy)
    reencode: Literal["webp", "jpeg"] | None = None
    quality: int = 85
    upload_s: float = 120.0
    attempts: int = 3
