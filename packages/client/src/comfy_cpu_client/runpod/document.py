"""A run as a job's document, and whether it is small enough to be sent. Pure."""

from __future__ import annotations

import base64
import json
from typing import Any

from comfy_cpu_client.runpod.settings import QueueSettings
from comfy_cpu_core.errors import InputError
from comfy_cpu_core.results import RunRequest

__all__ = ["LEAST_EXECUTION_S", "LEAST_TTL_S", "encode_job"]

#: The least that RunPod takes for ``policy.executionTimeout`` and ``policy.ttl``; what a run has beyond its own deadline
#: is cut off from here.
LEAST_EXECUTION_S, LEAST_TTL_S = 5.0, 10.0


def encode_job(request: RunRequest, settings: QueueSettings) -> bytes:
    """The JSON to submit.

    The files go where existing workers look for them (``images``). The workflow was converted here, so that the worker
    need not; keys that a worker does not know do no harm.

    Raises:
        InputError: it is larger than the endpoint takes, or it holds what JSON cannot.
    """
    files = [{"name": name, "image": base64.b64encode(data).decode()} for name, data in request.files.items()]
    job: dict[str, Any] = {"workflow": request.prompt, "convert": False}
    if files:
        job["images"] = files
    if settings.previews:
        job["outputs"] = {"previews": True}
    if request.timeout_s is not None:
        job["timeout"] = request.timeout_s
    if request.comfy_org_api_key is not None:
        job["comfy_org_api_key"] = request.comfy_org_api_key
    document: dict[str, Any] = {"input": job}
    if policy := _policy(request, settings):
        document["policy"] = policy
    if settings.webhook is not None:
        document["webhook"] = settings.webhook
    try:
        body = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    except ValueError as error:
        raise InputError(f"the workflow cannot be sent as JSON: {error}") from None
    limit = settings.run_bytes if settings.sync is False else max(settings.run_bytes, settings.sync_bytes)
    if len(body) > limit:
        largest = max(request.files.items(), key=lambda file: len(file[1]), default=None)
        which = f"; the largest file is {largest[0]!r} with {len(largest[1]) / 1e6:.1f} MB" if largest else ""
        raise InputError(
            f"the job is {len(body) / 1e6:.1f} MB, and at most {limit / 1e6:g} MB can be sent{which}",
            remedy="send smaller files (a picture as JPEG or WebP takes a fraction of a PNG), or have the workflow load "
            "them from where the worker is; base64 makes a file a third larger",
        )
    return body


def _policy(request: RunRequest, settings: QueueSettings) -> dict[str, Any]:
    policy: dict[str, Any] = {}
    if request.timeout_s is not None:
        policy["executionTimeout"] = round(max(request.timeout_s, LEAST_EXECUTION_S) * 1000)
    if settings.ttl_s is not None:
        policy["ttl"] = round(max(settings.ttl_s, LEAST_TTL_S) * 1000)
    if settings.low_priority:
        policy["lowPriority"] = True
    return policy
