from __future__ import annotations

from typing import Any

import pytest

from comfy_cpu_core.errors import UsageError
from comfy_cpu_worker.bucket import PRESIGN_S, BadBucket, s3_from_environ, s3_target


def target(endpoint_url: str, **more: Any) -> Any:
    given = {"bucket": None, "access_key_id": "id", "secret_access_key": "hush", **more}
    return s3_target(endpoint_url=endpoint_url, **given)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("https://pictures.s3.eu-west-1.amazonaws.com", ("https://s3.eu-west-1.amazonaws.com", "pictures", "eu-west-1")),
        ("https://s3.eu-west-1.amazonaws.com/pictures/", ("https://s3.eu-west-1.amazonaws.com", "pictures", "eu-west-1")),
        ("https://a.b.s3-us-gov-west-1.amazonaws.com", ("https://s3-us-gov-west-1.amazonaws.com", "a.b", "us-gov-west-1")),
        ("https://pictures.s3.amazonaws.com", ("https://s3.amazonaws.com", "pictures", "us-east-1")),
        ("http://minio.example:9000/pictures", ("http://minio.example:9000", "pictures", "us-east-1")),
        ("http://[::1]:9000/pictures", ("http://[::1]:9000", "pictures", "us-east-1")),
        ("https://pics.nyc3.digitaloceanspaces.com", ("https://nyc3.digitaloceanspaces.com", "pics", "us-east-1")),
        (
            f"https://{'0' * 32}.r2.cloudflarestorage.com/pictures",
            (f"https://{'0' * 32}.r2.cloudflarestorage.com", "pictures", "us-east-1"),
        ),
    ],
)  # fmt: skip
def test_the_endpoint_may_name_the_bucket(endpoint: str, expected: tuple[str, str, str]) -> None:
    made = target(endpoint)
    assert (made.endpoint_url, made.bucket, made.region) == expected


def test_what_is_said_goes_before_what_the_endpoint_says() -> None:
    made = target("https://s3.eu-west-1.amazonaws.com/one", bucket="two", region="auto", prefix="/a//b/")
    assert (made.bucket, made.region, made.prefix, made.presign_s) == ("two", "auto", "a/b", PRESIGN_S)


@pytest.mark.parametrize(
    ("setting", "endpoint", "more"),
    [
        ("endpoint_url", "", {}),
        ("endpoint_url", "s3.amazonaws.com", {}),
        ("endpoint_url", "ftp://s3.amazonaws.com/b", {}),
        ("endpoint_url", "https://user:hush@host/b", {}),
        ("endpoint_url", "https://host/b?x=hush", {}),
        ("endpoint_url", "https://host/a/b", {}),
        ("endpoint_url", "https://ho st/b", {}),
        ("endpoint_url", "https://host:99999/b", {}),
        ("endpoint_url", "https:///b", {}),
        ("endpoint_url", "https://host\\@evil/b", {}),
        ("bucket", "https://s3.amazonaws.com", {}),
        ("bucket", "https://host", {"bucket": "a/b"}),
        ("bucket", "https://host", {"bucket": "a..b"}),
        ("access_key_id", "https://host/pics", {"access_key_id": ""}),
        ("access_key_id", "https://host/pics", {"access_key_id": "a\r\nX: hush"}),
        ("secret_access_key", "https://host/pics", {"secret_access_key": None}),
        ("region", "https://host/pics", {"region": "a/b"}),
        ("prefix", "https://host/pics", {"prefix": "../x"}),
        ("prefix", "https://host/pics", {"prefix": "a/./b"}),
        ("prefix", "https://host/pics", {"prefix": "a\nb"}),
        ("prefix", "https://host/pics", {"prefix": "a" * 501}),
    ],
)
def test_a_bad_setting_is_named_and_not_repeated(setting: str, endpoint: str, more: dict[str, Any]) -> None:
    with pytest.raises(BadBucket) as caught:
        target(endpoint, **more)
    assert caught.value.setting == setting
    assert "hush" not in str(caught.value)


ENVIRON = {
    "BUCKET_ENDPOINT_URL": "https://pictures.s3.eu-west-1.amazonaws.com",
    "BUCKET_ACCESS_KEY_ID": "id",
    "BUCKET_SECRET_ACCESS_KEY": "hush",
}


def test_the_reference_workers_environment() -> None:
    made = s3_from_environ(ENVIRON)
    assert made is not None
    assert (made.endpoint_url, made.bucket, made.secret_access_key) == (
        "https://s3.eu-west-1.amazonaws.com", "pictures", "hush",
    )  # fmt: skip
    assert "hush" not in repr(made)
    assert s3_from_environ({}) is None


def test_a_variable_that_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match=r"^BUCKET_NAME is missing, and the endpoint does not name one either"):
        s3_from_environ({**ENVIRON, "BUCKET_ENDPOINT_URL": "https://minio.example"})
    with pytest.raises(UsageError, match=r"^BUCKET_SECRET_ACCESS_KEY is missing") as caught:
        s3_from_environ({**ENVIRON, "BUCKET_SECRET_ACCESS_KEY": " "})
    assert "BUCKET_NAME" in str(caught.value.remedy)
