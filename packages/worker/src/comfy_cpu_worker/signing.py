"""Amazon's signature, version 4, for S3. Opens nothing.

Written out here, since an SDK for it is larger than everything else in a slim image, and brings an HTTP client of its own
that goes wherever a name leads at that moment. https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from comfy_cpu_worker.bucket import S3Target

__all__ = ["object_url", "presign_get", "sign_put"]

# Where the bucket's name has a dot, Amazon's certificate does not cover it.
_DNS_LABEL = re.compile(r"[a-z0-9-]+")

_ALGORITHM = "AWS4-HMAC-SHA256"


def object_url(target: S3Target, key: str) -> str:
    """Where an object is: the bucket in front of the host at Amazon's, whose newer buckets want it; else behind it."""
    scheme, _, host = target.endpoint_url.partition("://")
    path = quote(key, safe="/~")
    if host.endswith((".amazonaws.com", ".amazonaws.com.cn")) and _DNS_LABEL.fullmatch(target.bucket):
        return f"{scheme}://{target.bucket}.{host}/{path}"
    return f"{target.endpoint_url}/{target.bucket}/{path}"


def sign_put(target: S3Target, url: str, headers: Mapping[str, str], sha256: str, now: datetime) -> dict[str, str]:
    """The headers of a PUT, with the signature; it covers all of them, and the body's hash.

    Args:
        headers: those of the object.
        sha256: of the body, in hexadecimal.
    """
    signed = {**headers, "X-Amz-Content-Sha256": sha256, "X-Amz-Date": _stamp(now)}
    covered = {name.lower(): value for name, value in signed.items()} | {"host": urlsplit(url).netloc}
    signature = _sign(target, "PUT", url, "", covered, sha256, now)
    names = ";".join(sorted(covered))
    credential = f"{target.access_key_id}/{_scope(target, now)}"
    return {
        **signed,
        "Authorization": f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}",
    }


def presign_get(target: S3Target, url: str, now: datetime) -> str:
    """A link with which anybody can fetch an object for `presign_s` seconds."""
    query = {
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{target.access_key_id}/{_scope(target, now)}",
        "X-Amz-Date": _stamp(now),
        "X-Amz-Expires": str(target.presign_s),
        "X-Amz-SignedHeaders": "host",
    }
    text = "&".join(f"{name}={quote(value, safe='~')}" for name, value in sorted(query.items()))
    signature = _sign(target, "GET", url, text, {"host": urlsplit(url).netloc}, "UNSIGNED-PAYLOAD", now)
    return f"{url}?{text}&X-Amz-Signature={signature}"


def _sign(
    target: S3Target, method: str, url: str, query: str, headers: Mapping[str, str], payload: str, now: datetime
) -> str:
    names = sorted(headers)
    lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in names)
    request = "\n".join([method, urlsplit(url).path, query, lines, ";".join(names), payload])
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join([_ALGORITHM, _stamp(now), _scope(target, now), digest])
    key = f"AWS4{target.secret_access_key}".encode()
    for part in (*_scope(target, now).split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


def _scope(target: S3Target, now: datetime) -> str:
    return f"{now.astimezone(UTC):%Y%m%d}/{target.region}/s3/aws4_request"


def _stamp(now: datetime) -> str:
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
