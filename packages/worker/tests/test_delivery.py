"""What leaves the worker: no sockets; the bucket is a stand-in."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from PIL import Image

from comfy_cpu_core.results import NodeFailure, Output, Result
from comfy_cpu_worker import delivery as delivery_module
from comfy_cpu_worker.bucket import S3Target, s3_target
from comfy_cpu_worker.delivery import Delivery, DeliveryPolicy
from comfy_cpu_worker.errors import DeliveryFailed, JobRejected
from comfy_cpu_worker.job import JobInput, JobLimits, parse_job
from comfy_cpu_worker.urls import UrlPolicy

BUCKET = s3_target(
    endpoint_url="https://minio.example/own", bucket=None, access_key_id="id", secret_access_key="hush", prefix="p"
)
S3 = {"endpoint_url": "https://s3.example", "bucket": "theirs", "access_key_id": "i", "secret_access_key": "hush"}


def job(document: dict[str, Any] | None = None, **fields: Any) -> JobInput:
    return parse_job({"input": {"workflow": {"1": {}}, **fields}, **(document or {})}, JobLimits())


def picture(size: int = 64, name: str = "a.png") -> Output:
    buffer = io.BytesIO()
    Image.frombytes("L", (size, size), random.Random(1).randbytes(size * size)).convert("RGB").save(buffer, "PNG")
    return Output("9", "SaveImage", "image", name, "image/png", buffer.getvalue())


def text(content: str = "hello", name: str = "7_text.txt") -> Output:
    return Output("7", "ShowText", "text", name, "text/plain", content.encode())


def made(*outputs: Output) -> Result:
    return Result("completed", outputs=outputs, execution_seconds=1.0)


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[S3Target, dict[str, bytes]]]:
    """Every call of `upload_all`: where to, and what by its key."""
    seen: list[tuple[S3Target, dict[str, bytes]]] = []

    def upload_all(outputs: Sequence[tuple[str, Output]], target: S3Target, client: Any, **more: Any) -> list[str]:
        seen.append((target, {key: output.data for key, output in outputs}))
        return [f"https://link/{key}" for key, _ in outputs]

    monkeypatch.setattr(delivery_module, "upload_all", upload_all)
    return seen


def deliver(job_input: JobInput, result: Result, **policy: Any) -> dict[str, Any]:
    return Delivery(DeliveryPolicy(**policy)).deliver("job-1", job_input, result)


def test_base64_where_there_is_no_bucket() -> None:
    document = deliver(job(), made(picture(), text()))
    assert base64.b64decode(document["images"][0]["data"]) == picture().data
    assert document["texts"][0]["data"] == "hello"


def test_the_workers_bucket_where_there_is_one(uploads: list[Any]) -> None:
    document = deliver(job(), made(picture(), text(), picture(32)), s3=BUCKET)
    assert [item["type"] for item in document["images"]] == ["s3_url", "s3_url"]
    assert [item["data"] for item in document["images"]] == [
        "https://link/p/job-1/a.png",
        "https://link/p/job-1/a-2.png",
    ]
    assert document["texts"][0]["type"] == "text"
    ((target, files),) = uploads
    assert target is BUCKET
    assert list(files) == ["p/job-1/a.png", "p/job-1/a-2.png"]


def test_a_jobs_own_bucket_goes_first(uploads: list[Any]) -> None:
    deliver(job(s3=S3), made(picture()), s3=BUCKET)
    assert uploads[0][0].bucket == "theirs"


def test_base64_is_kept_where_it_is_asked_for_and_fits(uploads: list[Any]) -> None:
    document = deliver(job(outputs={"delivery": "base64"}), made(picture()), s3=BUCKET)
    assert document["images"][0]["type"] == "base64"
    assert uploads == []


def test_what_does_not_fit_goes_into_the_bucket_texts_too(uploads: list[Any]) -> None:
    result = made(picture(), text("x" * 2000), text("y" * 2000))
    document = deliver(job(outputs={"delivery": "base64"}), result, s3=BUCKET, output_bytes=4000)
    assert [item["type"] for item in (*document["images"], *document["texts"])] == ["s3_url"] * 3
    assert list(uploads[0][1]) == ["p/job-1/a.png", "p/job-1/7_text.txt", "p/job-1/7_text-2.txt"]


def test_a_second_round_of_uploads_overwrites_nothing(uploads: list[Any]) -> None:
    """A file and a text of the same name: the text goes later, since it was short enough at first."""
    file = Output("8", "X", "file", "7_text.txt", "text/plain", b"file")
    deliver(job(), made(text("x" * 2000), file), s3=BUCKET, output_bytes=2000)
    assert [list(files) for _, files in uploads] == [["p/job-1/7_text-2.txt"], ["p/job-1/7_text.txt"]]


def test_a_long_text_goes_into_the_bucket_at_once(uploads: list[Any]) -> None:
    assert deliver(job(), made(text("x" * 200_000)), s3=BUCKET)["texts"][0]["type"] == "s3_url"


def test_what_does_not_fit_fails_with_sizes_and_a_remedy() -> None:
    with pytest.raises(DeliveryFailed) as caught:
        deliver(job(), made(picture(64), picture(8, "small.png")), output_bytes=5000)
    message = str(caught.value)
    assert "an answer may have 5,000" in message
    assert f"'a.png' {len(picture(64).data):,}, 'small.png'" in message
    assert "BUCKET_ENDPOINT_URL" in str(caught.value.remedy)


def test_pictures_are_made_smaller_where_the_worker_may() -> None:
    before = picture(64)
    document = deliver(job(), made(before), reencode="webp", quality=30, output_bytes=len(before.data))
    (item,) = document["images"]
    assert (item["media_type"], item["filename"], item["type"]) == ("image/webp", "a.webp", "base64")
    assert item["reencoded"]["sha256"] == before.sha256
    assert Image.open(io.BytesIO(base64.b64decode(item["data"]))).format == "WEBP"
    assert len(json.dumps(document)) <= len(before.data) * 1.1


def test_pictures_stay_as_they_are_while_they_fit() -> None:
    assert "reencoded" not in deliver(job(), made(picture()), reencode="webp")["images"][0]


def test_too_large_even_when_made_smaller() -> None:
    with pytest.raises(DeliveryFailed, match="an answer may have 2,000"):
        deliver(job(), made(picture(128)), reencode="webp", output_bytes=2000)


def test_a_format_that_a_job_asks_for_is_given_always(uploads: list[Any]) -> None:
    outputs = {"format": "jpeg", "quality": 50}
    assert deliver(job(outputs=outputs), made(picture()))["images"][0]["media_type"] == "image/jpeg"
    document = deliver(job(outputs=outputs), made(picture()), s3=BUCKET)
    assert (document["images"][0]["type"], document["images"][0]["filename"]) == ("s3_url", "a.jpg")
    assert list(uploads[0][1]) == ["p/job-1/a.jpg"]


def test_previews() -> None:
    preview = Output("3", "PreviewImage", "image", "p.png", "image/png", picture().data, folder="temp")
    names = [
        [item["filename"] for item in deliver(job(outputs=outputs), made(preview, picture()))["images"]]
        for outputs in ({}, {"previews": True}, {"previews": False})
    ]
    assert names == [["a.png"], ["p.png", "a.png"], ["a.png"]]


def test_what_did_not_complete_delivers_nothing(uploads: list[Any]) -> None:
    failed = Result("failed", outputs=(picture(),), errors=(NodeFailure("x", "broke"),))
    document = deliver(job(), failed, s3=BUCKET)
    assert (document["images"], document["errors"]) == ([], ["broke"])
    assert uploads == []


# Before the job runs --------------------------------------------------------------------------------------------------


def check(job_input: JobInput, **policy: Any) -> None:
    Delivery(DeliveryPolicy(**policy)).check(job_input)


def test_a_bucket_that_is_not_there_is_told_early() -> None:
    with pytest.raises(JobRejected, match=r"input\.outputs\.delivery is 's3', and there is no bucket"):
        check(job(outputs={"delivery": "s3"}))
    check(job(outputs={"delivery": "s3"}), s3=BUCKET)
    check(job(outputs={"delivery": "s3"}, s3=S3))


def test_a_jobs_bucket_must_be_where_this_worker_goes() -> None:
    with pytest.raises(JobRejected, match=r"input\.s3: this worker takes no bucket from a job"):
        check(job(s3=S3), job_buckets=None)
    with pytest.raises(JobRejected, match=r"input\.s3\.endpoint_url: the host s3\.example is not one"):
        check(job(s3=S3), job_buckets=UrlPolicy(allow_hosts=("other.example",)))
    with pytest.raises(JobRejected, match=r"input\.s3\.endpoint_url: port 9000"):
        check(job(s3={**S3, "endpoint_url": "http://10.0.0.1:9000"}))
