"""From a result to the document that leaves the worker: base64 or S3, and never larger than what arrives."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from comfy_cpu_client.payload import Parcel, choose_outputs, result_to_output
from comfy_cpu_core.results import Result
from comfy_cpu_worker.bucket import S3Target
from comfy_cpu_worker.errors import DeliveryFailed, JobRejected, UrlRefused
from comfy_cpu_worker.job import JobInput, PictureFormat
from comfy_cpu_worker.s3 import object_keys, upload_all
from comfy_cpu_worker.urls import UrlClient, UrlPolicy
from comfy_cpu_worker.wire import Deadline, Resolver, system_resolver

__all__ = ["Delivery", "DeliveryPolicy"]

#: A text that is longer goes into the bucket, where there is one.
_INLINE_BYTES = 100_000


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


class Delivery:
    """Delivers results under a policy. Safe to use from several threads.

    Args:
        policy: see `DeliveryPolicy`.
        resolver: gives the addresses of a bucket's host.
    """

    def __init__(self, policy: DeliveryPolicy, *, resolver: Resolver = system_resolver) -> None:
        self._policy = policy
        # Who set the worker's own bucket may have it in a private network.
        self._own = UrlClient(UrlPolicy(allow_private=True, total_s=policy.upload_s), resolver=resolver)
        self._foreign = (
            UrlClient(dataclasses.replace(policy.job_buckets, total_s=policy.upload_s), resolver=resolver)
            if policy.job_buckets is not None
            else None
        )

    def check(self, job: JobInput) -> None:
        """Check that what a job wants can be done, before minutes are spent on it.

        Raises:
            JobRejected: it wants a bucket, and there is none; or its own is where this worker does not go.
        """
        if job.s3 is not None:
            if self._foreign is None:
                raise JobRejected("input.s3: this worker takes no bucket from a job")
            try:
                self._foreign.check(job.s3.endpoint_url)
            except UrlRefused as error:
                raise JobRejected(f"input.s3.endpoint_url: {error}", remedy=error.remedy) from None
        elif job.outputs.delivery == "s3" and self._policy.s3 is None:
            raise JobRejected(
                "input.outputs.delivery is 's3', and there is no bucket",
                remedy="give one under input.s3, or set BUCKET_ENDPOINT_URL where the worker runs",
            )

    def deliver(
        self, job_id: str, job: JobInput, result: Result, *, cancel: threading.Event | None = None
    ) -> dict[str, Any]:
        """The output document of a result, with its outputs in it or uploaded. Blocks.

        Args:
            cancel: set it from another thread to give up.

        Raises:
            DeliveryFailed: an upload failed, or the document is too large for its way.
        """
        if not result.ok:
            return result_to_output(result)
        options, policy = job.outputs, self._policy
        deadline = Deadline(policy.upload_s, cancel)
        parcels = [Parcel(output) for output in choose_outputs(result, options.previews)]
        if options.format is not None:
            parcels = self._smaller(parcels, options.format, job, wanted=True)
        bucket = job.s3 or policy.s3
        if bucket is not None and options.delivery != "base64":
            parcels = self._upload(job_id, job, parcels, bucket, deadline, inline_bytes=_INLINE_BYTES)
        document = result_to_output(result, parcels)
        if self._fits(document):
            return document
        if bucket is not None:
            parcels = self._upload(job_id, job, parcels, bucket, deadline, inline_bytes=-1)
        elif policy.reencode is not None and options.format is None:
            parcels = self._smaller(parcels, policy.reencode, job, wanted=False)
        document = result_to_output(result, parcels)
        if not self._fits(document):
            raise self._too_large(document, parcels)
        return document

    def _fits(self, document: dict[str, Any]) -> bool:
        return _size(document) <= self._policy.output_bytes

    def _smaller(
        self, parcels: Sequence[Parcel], picture_format: PictureFormat, job: JobInput, *, wanted: bool
    ) -> list[Parcel]:
        """The parcels with their pictures in another format; unless that is `wanted`, only if it makes them smaller."""
        from comfy_cpu_worker.reencode import reencode

        found = []
        for parcel in parcels:
            made = reencode(parcel.output, picture_format, job.outputs.quality or self._policy.quality)
            better = made is not None and (wanted or len(made.data) < len(parcel.output.data))
            found.append(Parcel(made, original=parcel.output) if made is not None and better else parcel)
        return found

    def _upload(
        self,
        job_id: str,
        job: JobInput,
        parcels: Sequence[Parcel],
        bucket: S3Target,
        deadline: Deadline,
        *,
        inline_bytes: int,
    ) -> list[Parcel]:
        """The parcels with what is not in the bucket yet uploaded; short texts stay."""
        keys = object_keys(job_id, [parcel.output for parcel in parcels], bucket.prefix)
        moving = [
            index
            for index, parcel in enumerate(parcels)
            if parcel.url is None
            and (parcel.output.kind not in {"text", "json"} or len(parcel.output.data) > inline_bytes)
        ]
        client = self._foreign if job.s3 is not None and self._foreign is not None else self._own
        urls = upload_all(
            [(keys[index], parcels[index].output) for index in moving],
            bucket,
            client,
            deadline=deadline,
            attempts=self._policy.attempts,
        )
        uploaded = dict(zip(moving, urls, strict=True))
        return [
            dataclasses.replace(parcel, url=uploaded.get(index, parcel.url)) for index, parcel in enumerate(parcels)
        ]

    def _too_large(self, document: dict[str, Any], parcels: Sequence[Parcel]) -> DeliveryFailed:
        largest = sorted(
            (parcel.output for parcel in parcels if parcel.url is None), key=lambda output: -len(output.data)
        )
        shown = ", ".join(f"{output.filename!r:.60} {len(output.data):,}" for output in largest[:5])
        return DeliveryFailed(
            f"the outputs take {_size(document):,} bytes, and an answer may have {self._policy.output_bytes:,}"
            f" (in bytes, before base64: {shown})",
            remedy="set up a bucket (BUCKET_ENDPOINT_URL or input.s3), ask for input.outputs.format webp or jpeg, or make "
            "smaller pictures",
        )


def _size(document: dict[str, Any]) -> int:
    return len(json.dumps(document, separators=(",", ":")))
