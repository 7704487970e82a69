"""Outputs into a bucket: keys that cannot collide, uploads that are tried again, links to what was uploaded. Blocks.

Credentials are in no error: those of S3 are reduced to their code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import PurePosixPath

from comfy_cpu_core.results import Output
from comfy_cpu_worker.bucket import S3Target
from comfy_cpu_worker.errors import DeliveryFailed, UrlFailed, UrlRefused
from comfy_cpu_worker.signing import object_url, presign_get, sign_put
from comfy_cpu_worker.urls import Answer, UrlClient
from comfy_cpu_worker.wire import Deadline

__all__ = ["object_keys", "upload_all"]

#: Uploads at a time.
_THREADS = 4

#: Seconds before the second attempt; before each further one twice as many.
_PAUSE_S = 0.5

#: What S3 answers where another attempt may help.
_RETRY = frozenset({408, 429, 500, 502, 503, 504})

_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,60})</Code>")
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)


def object_keys(job_id: str, outputs: Sequence[Output], prefix: str) -> list[str]:
    """The key of each output: ``PREFIX/JOB/SUBFOLDER/NAME``, plain ASCII, with a number where two would be the same."""
    keys: dict[str, None] = {}
    for output in outputs:
        folders = [_plain(part) for part in PurePosixPath(output.subfolder).parts if part not in {"/", "..", "."}]
        name = PurePosixPath(_plain(output.filename))
        number = 1
        while True:
            last = str(name) if number == 1 else f"{name.stem}-{number}{name.suffix}"
            key = "/".join([*([prefix] if prefix else []), _plain(job_id), *folders, last])
            if key not in keys:
                break
            number += 1
        keys[key] = None
    return list(keys)


def upload_all(
    outputs: Sequence[tuple[str, Output]],
    target: S3Target,
    client: UrlClient,
    *,
    deadline: Deadline,
    attempts: int,
) -> list[str]:
    """Upload outputs and give a link to each.

    Args:
        outputs: each with its key.
        attempts: how often each is tried.

    Raises:
        DeliveryFailed: one could not be uploaded; others may have been.
    """
    with ThreadPoolExecutor(_THREADS, "comfy-cpu-s3") as pool:
        uploads = [
            pool.submit(_upload, output, object_url(target, key), target, client, deadline, attempts)
            for key, output in outputs
        ]
        try:
            for upload in uploads:
                upload.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    now = datetime.now(UTC)
    return [presign_get(target, object_url(target, key), now) for key, _ in outputs]


def _upload(output: Output, url: str, target: S3Target, client: UrlClient, deadline: Deadline, attempts: int) -> None:
    what = f"the output {output.filename!r:.100} could not be uploaded to the bucket {target.bucket}"
    problem = ""
    for attempt in range(attempts):
        try:
            if attempt:
                deadline.pause(_PAUSE_S * 2 ** (attempt - 1))
            answer = _put(output, url, target, client, deadline)
        except UrlFailed as error:
            problem = str(error)
        except UrlRefused as error:
            raise DeliveryFailed(f"{what}: {error}") from None
        except TimeoutError:
            raise DeliveryFailed(f"{what} in time{f': {problem}' if problem else ''}") from None
        else:
            if answer.status < 300:
                return
            code = _CODE.search(answer.body)
            problem = f"S3 answered {answer.status}{f' {code[1].decode()}' if code else ''}"
            if answer.status not in _RETRY:
                break
    raise DeliveryFailed(f"{what}: {problem}", remedy="check the bucket's endpoint, name, region and keys")


def _put(output: Output, url: str, target: S3Target, client: UrlClient, deadline: Deadline) -> Answer:
    media_type = output.media_type if _MEDIA_TYPE.fullmatch(output.media_type) else "application/octet-stream"
    headers = {"Content-Type": media_type, "X-Amz-Meta-Sha256": output.sha256}
    signed = sign_put(target, url, headers, output.sha256, datetime.now(UTC))  # good for 15 minutes: one per attempt
    return client.send("PUT", url, output.data, signed, deadline=deadline)


def _plain(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:150]
    return name if name.strip(".") else "_"
