"""The bucket that outputs go to: its settings, as jobs and the environment give them. Opens nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from comfy_cpu_core.errors import UsageError

__all__ = ["PRESIGN_S", "BadBucket", "S3Target", "s3_from_environ", "s3_target"]

#: Seconds that a link to an output is good for, unless somebody says otherwise: as long as S3 allows.
PRESIGN_S = 7 * 86400

_URL = re.compile(r"https?://[!-~]+", re.IGNORECASE)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_PREFIX_PART = re.compile(r"[\w. +=@-]{1,200}", re.ASCII)
_KEY = re.compile(r"[!-~]{1,1024}")
# The bucket in front of the host, as Amazon and those that follow it write it.
_BUCKET_HOST = re.compile(
    r"(?P<bucket>[a-z0-9][a-z0-9.-]+)\."
    r"(?P<rest>s3[.-].+|[a-z0-9]+\.digitaloceanspaces\.com|[0-9a-f]{32}(\.[a-z]+)?\.r2\.cloudflarestorage\.com)"
)
_REGION_HOST = re.compile(r"s3[.-](?:dualstack\.)?(?P<region>[a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com(\.cn)?")


@dataclass(frozen=True)
class S3Target:
    """A bucket; made by `s3_target`, which checks it.

    Attributes:
        endpoint_url: ``https://HOST``, without the bucket.
        bucket: its name.
        access_key_id, secret_access_key: secret.
        region: for the signature.
        prefix: what keys begin with, without ``/`` at either end.
        presign_s: seconds that a link to an output is good for.
    """

    endpoint_url: str
    bucket: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    region: str
    prefix: str = ""
    presign_s: int = PRESIGN_S


class BadBucket(ValueError):
    """A setting makes no sense. Its text is the end of a sentence that begins with the setting's name.

    Attributes:
        setting: the name, as `s3_target` has it.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(problem)
        self.setting = setting


def s3_target(
    *,
    endpoint_url: str | None,
    bucket: str | None,
    access_key_id: str | None,
    secret_access_key: str | None,
    region: str | None = None,
    prefix: str = "",
    presign_s: int = PRESIGN_S,
) -> S3Target:
    """Check a bucket's settings. The endpoint may have the bucket in it, in front of the host or behind it.

    Raises:
        BadBucket: one is missing or makes no sense. Its value is not repeated: it may be a secret.
    """
    keys = {"access_key_id": access_key_id or "", "secret_access_key": secret_access_key or ""}
    for name, value in {"endpoint_url": endpoint_url, **keys}.items():
        if not value:
            raise BadBucket(name, "is missing")
    for name, key in keys.items():
        if not _KEY.fullmatch(key):
            raise BadBucket(name, "has characters in it that no key has")
    endpoint, found_bucket, found_region = _split(endpoint_url or "")
    bucket = bucket or found_bucket
    if not bucket:
        raise BadBucket("bucket", "is missing, and the endpoint does not name one either")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise BadBucket("bucket", "is not a bucket's name")
    if region is not None and not _REGION.fullmatch(region):
        raise BadBucket("region", "is not a region's name")
    parts = [part for part in prefix.split("/") if part]
    if len(prefix) > 500 or any(not _PREFIX_PART.fullmatch(part) or set(part) == {"."} for part in parts):
        raise BadBucket("prefix", "is not a path of plain names")
    return S3Target(
        endpoint_url=endpoint,
        bucket=bucket,
        **keys,
        region=region or found_region or "us-east-1",
        prefix="/".join(parts),
        presign_s=presign_s,
    )


#: Our name for a setting → the environment variable. The first three are the reference worker's.
_VARIABLES = {
    "endpoint_url": "BUCKET_ENDPOINT_URL",
    "access_key_id": "BUCKET_ACCESS_KEY_ID",
    "secret_access_key": "BUCKET_SECRET_ACCESS_KEY",
    "bucket": "BUCKET_NAME",
    "region": "BUCKET_REGION",
    "prefix": "BUCKET_PREFIX",
}


def s3_from_environ(environ: Mapping[str, str]) -> S3Target | None:
    """The worker's own bucket; None where ``BUCKET_ENDPOINT_URL`` is not set.

    Raises:
        UsageError: a variable is missing or makes no sense.
    """
    given = {setting: environ.get(variable, "").strip() for setting, variable in _VARIABLES.items()}
    if not given["endpoint_url"]:
        return None
    try:
        return s3_target(
            endpoint_url=given["endpoint_url"],
            bucket=given["bucket"],
            access_key_id=given["access_key_id"],
            secret_access_key=given["secret_access_key"],
            region=given["region"] or None,
            prefix=given["prefix"],
        )
    except BadBucket as error:
        raise UsageError(
            f"{_VARIABLES[error.setting]} {error}",
            remedy=f"set {', '.join(list(_VARIABLES.values())[:4])}, or none of them for outputs in base64",
        ) from None


def _split(url: str) -> tuple[str, str | None, str | None]:
    """An endpoint as people write it: the endpoint itself; the bucket and the region if they are in it."""
    if not _URL.fullmatch(url) or "\\" in url:
        raise BadBucket("endpoint_url", "is not a URL that begins with https:// or http://")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise BadBucket("endpoint_url", "is not a URL") from None
    bucket = parts.path.strip("/") or None
    if not host or "@" in parts.netloc or parts.query or parts.fragment or "/" in (bucket or ""):
        raise BadBucket("endpoint_url", "is more than a host and a bucket")
    found = _BUCKET_HOST.fullmatch(host)
    if bucket is None and found:
        bucket, host = found["bucket"], found["rest"]
    region = _REGION_HOST.fullmatch(host)
    shown = f"[{host}]" if ":" in host else host
    if port not in {None, 443 if parts.scheme == "https" else 80}:  # what a client leaves out, a signature must, too
        shown += f":{port}"
    return f"{parts.scheme}://{shown}", bucket, region["region"] if region else None
