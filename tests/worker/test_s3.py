"""Outputs into a real S3, and into one that does its worst."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from rough_server import Handler, RoughServer, answer
from s3_server import s3_server

from comfy_cpu_client.payload import read_output
from comfy_cpu_core.results import Output, Result
from comfy_cpu_worker.bucket import S3Target, s3_target
from comfy_cpu_worker.delivery import Delivery, DeliveryPolicy
from comfy_cpu_worker.errors import DeliveryFailed
from comfy_cpu_worker.job import JobInput, JobLimits, parse_job
from comfy_cpu_worker.outcome import JobOutcome
from comfy_cpu_worker.runner import JobRunner
from comfy_cpu_worker.shelf import Shelf
from comfy_cpu_worker.urls import UrlClient, UrlPolicy
from comfy_cpu_worker.work import Work

KEYS = {"access_key_id": "AKIAHUSHHUSH", "secret_access_key": "hush/hush+hush"}
TRUSTED = UrlPolicy(allow_private=True)
PICTURE = Output(
    "9", "SaveImage", "image", "out 1.png", "image/png", b"\x89PNG" + bytes(range(256)) * 10, subfolder="é/b"
)
TEXT = Output("7", "ShowText", "text", "7_text.txt", "text/plain", b"hello")


def target(endpoint_url: str, bucket: str = "pictures", **more: Any) -> S3Target:
    return s3_target(endpoint_url=endpoint_url, bucket=bucket, **KEYS, **more)


def job(**fields: Any) -> JobInput:
    return parse_job({"input": {"workflow": {"1": {}}, **fields}}, JobLimits())


def deliver(policy: DeliveryPolicy, *outputs: Output, job_input: JobInput | None = None, **more: Any) -> Any:
    result = Result("completed", outputs=outputs or (PICTURE,))
    return Delivery(policy).deliver("job-1", job_input or job(), result, **more)


# A real one -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture(scope="module")
def s3(endpoint: str) -> Any:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEYS["access_key_id"],
        aws_secret_access_key=KEYS["secret_access_key"],
        config=Config(s3={"addressing_style": "path"}),
    )
    for bucket in ("pictures", "theirs"):
        client.create_bucket(Bucket=bucket)
    return client


def test_an_output_arrives_whole(endpoint: str, s3: Any) -> None:
    document = deliver(DeliveryPolicy(s3=target(endpoint, prefix="all")), PICTURE, TEXT)
    (item,) = document["images"]
    assert item["type"] == "s3_url"
    assert item["data"].startswith(f"{endpoint}/pictures/all/job-1/_/b/out_1.png?X-Amz-Algorithm=")
    stored = s3.get_object(Bucket="pictures", Key="all/job-1/_/b/out_1.png")
    assert stored["Body"].read() == PICTURE.data
    assert (stored["ContentType"], stored["Metadata"]) == ("image/png", {"sha256": PICTURE.sha256})
    assert document["texts"][0]["data"] == "hello"


def test_a_link_leads_to_the_output(endpoint: str, s3: Any) -> None:
    received = read_output(json.loads(json.dumps(deliver(DeliveryPolicy(s3=target(endpoint)), PICTURE, TEXT))))
    (remote,) = received.remote
    fetched = UrlClient(TRUSTED).get(remote.url, max_bytes=10**6).data
    assert received.complete([fetched]).outputs == (PICTURE, TEXT)


def test_many_outputs_at_once(endpoint: str, s3: Any) -> None:
    outputs = [Output("9", "X", "image", "a.png", "image/png", bytes([n]) * 1000) for n in range(20)]
    items = deliver(DeliveryPolicy(s3=target(endpoint, prefix="many")), *outputs)["images"]
    found = [UrlClient(TRUSTED).get(item["data"], max_bytes=10**6).data for item in items]
    assert found == [output.data for output in outputs]


def test_a_job_brings_its_own_bucket(endpoint: str, s3: Any) -> None:
    own = job(s3={"endpoint_url": endpoint, "bucket": "theirs", **KEYS})
    policy = DeliveryPolicy(s3=target(endpoint), job_buckets=TRUSTED)
    assert deliver(policy, job_input=own)["images"][0]["data"].startswith(f"{endpoint}/theirs/job-1/")
    assert s3.get_object(Bucket="theirs", Key="job-1/_/b/out_1.png")["Body"].read() == PICTURE.data


def test_a_bucket_that_does_not_exist(endpoint: str, s3: Any) -> None:
    with pytest.raises(DeliveryFailed, match="to the bucket missing: S3 answered 404 NoSuchBucket") as caught:
        deliver(DeliveryPolicy(s3=target(endpoint, "missing")))
    assert "hush" not in f"{caught.value} {caught.value.remedy}".lower()


class Engine:
    """A back end that completes every job."""

    name = "test"

    async def run(self, work: Work, *, on_event: Any) -> Result:
        return Result("completed", outputs=(PICTURE,))


def run(policy: DeliveryPolicy, **fields: Any) -> JobOutcome:
    runner = JobRunner(Engine(), shelf=Shelf(None), limits=JobLimits(), urls=None, delivery=policy)  # type: ignore[arg-type]
    return asyncio.run(runner.run("job-1", {"input": {"workflow": {"1": {}}, **fields}}))


def test_a_whole_job(endpoint: str, s3: Any) -> None:
    outcome = run(DeliveryPolicy(s3=target(endpoint)))
    assert (outcome.state, outcome.output["images"][0]["type"]) == ("COMPLETED", "s3_url")
    outcome = run(DeliveryPolicy(s3=target(endpoint)), outputs={"delivery": "base64"})
    assert base64.b64decode(outcome.output["images"][0]["data"]) == PICTURE.data


# One that does its worst ----------------------------------------------------------------------------------------------

KEY = "/pictures/job-1/_/b/out_1.png"
DENIED = b"<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKIAHUSHHUSH</AWSAccessKeyId></Error>"


@pytest.fixture
def rough() -> Iterator[RoughServer]:
    with RoughServer() as server:
        yield server


def in_turn(*handlers: Handler) -> Handler:
    left = iter(handlers)

    def handle(sock: socket.socket, ended: threading.Event) -> None:
        next(left)(sock, ended)

    return handle


def hang(sock: socket.socket, ended: threading.Event) -> None:
    ended.wait(60)


def test_what_may_help_is_tried_again(rough: RoughServer) -> None:
    slow_down = answer(b"<Code>SlowDown</Code>", status="503 Slow Down")
    rough.paths[KEY] = in_turn(slow_down, lambda sock, ended: None, answer())
    deliver(DeliveryPolicy(s3=target(rough.url(""))))
    assert [ask.body for ask in rough.asks] == [PICTURE.data] * 3
    assert rough.asks[0].headers["content-type"] == "image/png"
    assert rough.asks[0].headers["x-amz-content-sha256"] == PICTURE.sha256


def test_the_attempts_have_an_end(rough: RoughServer) -> None:
    rough.paths[KEY] = answer(status="500 Oops")
    with pytest.raises(DeliveryFailed, match=r"S3 answered 500$"):
        deliver(DeliveryPolicy(s3=target(rough.url("")), attempts=2))
    assert len(rough.asks) == 2


def test_a_refusal_is_final_and_tells_no_key(rough: RoughServer, caplog: pytest.LogCaptureFixture) -> None:
    rough.paths[KEY] = answer(DENIED, status="403 Forbidden")
    with caplog.at_level(logging.DEBUG):
        outcome = run(DeliveryPolicy(s3=target(rough.url(""))))
    assert outcome.state == "FAILED"
    assert str(outcome.error).endswith(
        "could not be uploaded to the bucket pictures: S3 answered 403 SignatureDoesNotMatch"
    )
    assert outcome.output["images"] == []
    assert len(rough.asks) == 1
    assert "hush" not in f"{outcome.to_handler()} {caplog.text}".lower()


def test_time_is_limited(rough: RoughServer) -> None:
    rough.paths[KEY] = hang
    with pytest.raises(DeliveryFailed, match=r"in time"):
        deliver(DeliveryPolicy(s3=target(rough.url("")), upload_s=0.5))


def test_who_waits_can_give_up(rough: RoughServer) -> None:
    cancel = threading.Event()

    def give_up(sock: socket.socket, ended: threading.Event) -> None:
        cancel.set()
        ended.wait(60)

    rough.paths[KEY] = give_up
    with pytest.raises(DeliveryFailed):
        deliver(DeliveryPolicy(s3=target(rough.url("")), upload_s=600), cancel=cancel)


def test_a_redirect_is_not_followed(rough: RoughServer) -> None:
    rough.paths[KEY] = answer(status="307 Temporary Redirect", headers={"Location": "/elsewhere"})
    with pytest.raises(DeliveryFailed, match="S3 answered 307"):
        deliver(DeliveryPolicy(s3=target(rough.url(""))))
    assert [ask.target for ask in rough.asks] == [KEY]


def test_a_jobs_bucket_leads_to_no_private_network(rough: RoughServer) -> None:
    rough.paths[KEY] = answer()
    own = job(s3={"endpoint_url": rough.url(""), "bucket": "pictures", **KEYS})
    policy = DeliveryPolicy(job_buckets=UrlPolicy(ports=(rough.port,)))
    with pytest.raises(DeliveryFailed, match="leads to an address that is not public"):
        deliver(policy, job_input=own)
    assert rough.asks == []
