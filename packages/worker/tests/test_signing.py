"""Our signatures against those of Amazon's own library."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_cpu_worker.bucket import S3Target, s3_target
from comfy_cpu_worker.signing import object_url, presign_get, sign_put

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


def target(endpoint: str = "https://s3.eu-west-1.amazonaws.com", **more: Any) -> S3Target:
    keys = {"access_key_id": "AKIAEXAMPLE", "secret_access_key": "very/secret+key"}
    return s3_target(**{"endpoint_url": endpoint, "bucket": "pictures", **keys, **more})


@pytest.fixture(autouse=True, scope="module")
def frozen() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: NOW.replace(tzinfo=None))
        yield


def theirs(
    bucket: S3Target, kind: str, method: str, url: str, headers: dict[str, str], body: bytes, **more: Any
) -> Any:
    request = AWSRequest(method, url, headers=headers, data=body)
    credentials = Credentials(bucket.access_key_id, bucket.secret_access_key)
    getattr(botocore.auth, kind)(credentials, "s3", bucket.region, **more).add_auth(request)
    return request


keys = st.text(st.sampled_from("aZ09._-/~ +=@é写"), min_size=1, max_size=30).map(lambda key: f"a{key}z")
targets = st.sampled_from(
    [target(), target("http://minio.example:9000"), target("https://minio.example:443"), target(bucket="my.pictures")]
)


@settings(deadline=None)
@given(targets, keys, st.binary(max_size=50))
def test_a_put_is_signed_as_amazon_does_it(bucket: S3Target, key: str, body: bytes) -> None:
    url = object_url(bucket, key)
    headers = {"Content-Type": "image/png", "X-Amz-Meta-Sha256": "0 1  2"}
    ours = sign_put(bucket, url, headers, hashlib.sha256(body).hexdigest(), NOW)
    request = theirs(bucket, "S3SigV4Auth", "PUT", url, headers, body)
    # Over TLS they leave the body out of it; we never do.
    if url.startswith("http://"):
        assert ours["Authorization"] == request.headers["Authorization"]
    assert ours["X-Amz-Date"] == request.headers["X-Amz-Date"]
    assert bucket.secret_access_key not in str(ours)


@settings(deadline=None)
@given(targets, keys)
def test_a_link_is_signed_as_amazon_does_it(bucket: S3Target, key: str) -> None:
    url = object_url(bucket, key)
    request = theirs(bucket, "S3SigV4QueryAuth", "GET", url, {}, b"", expires=bucket.presign_s)
    ours, other = (dict(part.split("=") for part in link.partition("?")[2].split("&")) for link in (presign_get(bucket, url, NOW), request.url))  # fmt: skip
    assert ours == other


def test_a_put_covers_the_body_over_tls() -> None:
    url = object_url(target(), "a")
    one, other = (sign_put(target(), url, {}, hashlib.sha256(body).hexdigest(), NOW) for body in (b"1", b"2"))
    assert one["Authorization"] != other["Authorization"]


@pytest.mark.parametrize(
    ("bucket", "url"),
    [
        (target(), "https://pictures.s3.eu-west-1.amazonaws.com/a/b%20c.png"),
        (target(bucket="my.pictures"), "https://s3.eu-west-1.amazonaws.com/my.pictures/a/b%20c.png"),
        (target(bucket="Pictures"), "https://s3.eu-west-1.amazonaws.com/Pictures/a/b%20c.png"),
        (target("http://minio.example:9000"), "http://minio.example:9000/pictures/a/b%20c.png"),
        (target("https://minio.example:443"), "https://minio.example/pictures/a/b%20c.png"),
    ],
)
def test_where_an_object_is(bucket: S3Target, url: str) -> None:
    assert object_url(bucket, "a/b c.png") == url
