from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_cpu_worker.errors import JobRejected, JobTooLarge
from comfy_cpu_worker.job import JobLimits, OutputOptions, parse_job

WORKFLOW = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}
S3 = {
    "endpoint_url": "https://s3.eu-west-1.amazonaws.com",
    "bucket": "pictures",
    "access_key_id": "AKIAEXAMPLE",
    "secret_access_key": "very/secret+key",
}
LIMITS = JobLimits(files=3, file_bytes=1000, total_bytes=1500, urls=True, timeout_s=100, max_timeout_s=1000)

KEYS = [
    "input",
    "workflow",
    "images",
    "files",
    "inputs",
    "set",
    "outputs",
    "s3",
    "policy",
    "webhook",
    "name",
    "image",
    "x",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=20,
)


def parse(job: Any = None, limits: JobLimits = LIMITS, **fields: Any) -> Any:
    """A job with a workflow and these fields of ``input``, and of the job itself."""
    return parse_job({"input": {"workflow": WORKFLOW, **fields}, **(job or {})}, limits)


def test_the_least_that_a_job_may_be() -> None:
    job = parse()
    assert job.workflow == WORKFLOW
    assert (job.files, job.inputs, job.values, job.convert, job.refresh_worker) == ((), {}, {}, True, False)
    assert (job.timeout_s, job.ttl_s, job.webhook, job.idempotency_key, job.s3) == (100, None, None, None, None)
    assert job.outputs == OutputOptions()


def test_what_existing_clients_send() -> None:
    images = [{"name": "a.png", "image": "data:image/png;base64,AAAA", "unknown": 1}]
    (file,) = parse({"id": "x", "unknown": 1}, images=images, unknown=1).files
    assert (file.path, file.name, file.data) == ("input.images[0].image", "a.png", "data:image/png;base64,AAAA")


def test_input_and_workflow_may_be_json_as_text() -> None:
    assert parse_job({"input": json.dumps({"workflow": json.dumps(WORKFLOW)})}, LIMITS).workflow == WORKFLOW


def test_a_workflow_may_be_the_name_of_a_baked_one() -> None:
    assert parse_job({"input": {"workflow": "remove background"}}, LIMITS).workflow == "remove background"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "Please provide input"),
        ({"input": None}, "Please provide input"),
        ({"input": "{"}, "Invalid JSON format in input"),
        ({"input": "[" * 100_000}, "Invalid JSON format in input"),
        ({"input": {}}, "Missing 'workflow' parameter"),
        ({"input": {"workflow": None}}, "Missing 'workflow' parameter"),
        (
            {"input": {"workflow": WORKFLOW, "images": "x"}},
            "'images' must be a list of objects with 'name' and 'image' keys",
        ),
    ],
)
def test_errors_that_existing_clients_know(document: Any, message: str) -> None:
    with pytest.raises(JobRejected) as caught:
        parse_job(document, LIMITS)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"workflow": []}, "input.workflow is a list, not an object"),
        ({"workflow": "{x"}, "input.workflow is not JSON"),
        ({"images": [{"name": "a.png"}]}, "'images' must be .* keys (input.images[0])"),
        ({"images": [{"image": "AAAA"}]}, "'images' must be .* keys (input.images[0])"),
        ({"images": [{"name": 5, "image": "AAAA"}]}, "input.images[0].name is 5, not a file's name"),
        ({"images": [{"name": "a", "image": 5}]}, "input.images[0].image is 5, not text"),
        (
            {"images": [{"name": "a", "image": "x", "url": "https://a"}]},
            "input.images[0] needs either 'image' or 'url'",
        ),
        ({"images": [{"name": "a", "image": None}]}, "input.images[0] needs either 'image' or 'url'"),
        ({"files": [{"name": "a", "url": "ftp://a/b"}]}, "input.files[0].url is not a URL that begins with"),
        ({"files": [{"name": "a", "url": "https://a/ b"}]}, "input.files[0].url is not a URL that begins with"),
        ({"inputs": []}, "input.inputs is a list, not an object"),
        ({"inputs": {"1.image": 5}}, 'input.inputs["1.image"] is neither base64, a data URI, a URL nor'),
        ({"inputs": {"1.image": {"data": 5}}}, 'input.inputs["1.image"].data is 5, not text'),
        ({"inputs": {"a\nb": {"name": []}}}, r'input.inputs["a\nb"] is neither'),
        ({"set": []}, "input.set is a list, not an object"),
        ({"convert": "no"}, "input.convert is 'no', neither true nor false"),
        ({"timeout": 0}, "input.timeout is 0, not a number of seconds above 0"),
        ({"timeout": float("nan")}, "input.timeout is nan, not a number"),
        ({"timeout": 10**400}, "input.timeout is 1000"),
        ({"timeout": True}, "input.timeout is True"),
        ({"outputs": []}, "input.outputs is a list"),
        ({"outputs": {"delivery": "mail"}}, "input.outputs.delivery is 'mail', not one of auto, base64, s3"),
        ({"outputs": {"previews": "yes"}}, "input.outputs.previews is 'yes', not true, false or"),
        ({"outputs": {"format": "bmp"}}, "input.outputs.format is 'bmp', not one of jpeg, webp, png"),
        ({"outputs": {"quality": 101}}, "input.outputs.quality is 101, not a whole number from 1 to 100"),
        ({"outputs": {"quality": 1.5}}, "input.outputs.quality is 1.5"),
        ({"s3": {**S3, "bucket": "../x"}}, "input.s3.bucket is not a bucket's name"),
        ({"s3": {**S3, "prefix": "a/../b"}}, "input.s3.prefix is not a path of plain names"),
        ({"s3": {**S3, "presign_s": 0}}, "input.s3.presign_s is 0"),
        ({"s3": {**S3, "secret_access_key": None}}, "input.s3.secret_access_key is missing"),
        ({"s3": {**S3, "endpoint_url": "file:///etc"}}, "input.s3.endpoint_url is not a URL"),
        ({"comfy_org_api_key": ["secret"]}, "input.comfy_org_api_key is a list, not text"),
        ({"refresh_worker": 1}, "input.refresh_worker is 1"),
        ({"idempotency_key": "a b"}, "input.idempotency_key is not up to 255 printable"),
        ({"idempotency_key": "a" * 256}, "input.idempotency_key is not up to 255 printable"),
    ],
)
def test_an_error_names_the_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(JobRejected) as caught:
        parse(**fields)
    before, _, behind = message.partition(".*")
    assert str(caught.value).startswith(before)
    assert behind in str(caught.value)
    assert "secret" not in str(caught.value) or "secret_access_key" in message


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({"policy": 5}, "policy is a number, not an object"),
        ({"policy": {"executionTimeout": "5"}}, "policy.executionTimeout is '5', not a number of milliseconds above 0"),
        ({"policy": {"ttl": -1}}, "policy.ttl is -1"),
        ({"webhook": 5}, "webhook is a number, not text"),
        ({"webhook": "javascript:alert(1)"}, "webhook is not a URL that begins with"),
        ({"webhook": "https://a/\r\nX: y"}, "webhook is not a URL that begins with"),
        ({"s3Config": {"accessId": "a"}}, "s3Config.endpointUrl is missing"),
        ({"s3Config": []}, "s3Config is a list"),
    ],
)
def test_an_error_names_the_field_of_the_job(job: dict[str, Any], message: str) -> None:
    with pytest.raises(JobRejected) as caught:
        parse(job)
    assert str(caught.value).startswith(message)


@settings(deadline=None)
@given(JSON)
def test_whatever_it_is_it_is_read_or_rejected(document: Any) -> None:
    with suppress(JobRejected):
        parse_job(document, LIMITS)


def test_deep_nesting_is_no_problem() -> None:
    deep: Any = {"a": 1}
    for _ in range(5000):
        deep = {"input": deep}
    with pytest.raises(JobRejected):
        parse_job(deep, LIMITS)
    with pytest.raises(JobRejected, match=r"input\.timeout is an object"):
        parse(timeout=deep)


# Files ----------------------------------------------------------------------------------------------------------------


def test_files_of_every_kind() -> None:
    job = parse(
        images=[{"name": "a.png", "image": "AAAA"}],
        files=[{"name": "b.wav", "url": "https://host/b.wav?X-Signature=hush"}],
        inputs={"1.image": {"name": "c.png", "data": "AAAA"}},
    )
    image, file = job.files
    assert (image.data, image.url) == ("AAAA", None)
    assert (file.data, file.url, file.path) == (None, "https://host/b.wav?X-Signature=hush", "input.files[0].url")
    assert (job.inputs["1.image"].name, job.inputs["1.image"].path) == ("c.png", 'input.inputs["1.image"].data')
    assert "hush" not in repr(job)


def test_a_url_may_stand_where_base64_does() -> None:
    job = parse(images=[{"name": "a.png", "image": "HTTPS://host/a.png"}], inputs={"1.image": "http://host/b.png"})
    assert job.files[0].url == "HTTPS://host/a.png"
    assert (job.inputs["1.image"].url, job.inputs["1.image"].path) == ("http://host/b.png", 'input.inputs["1.image"]')


def test_urls_are_refused_where_they_are_not_allowed() -> None:
    with pytest.raises(JobRejected, match=r"^input.images\[0\].image is a URL, and this worker fetches none"):
        parse(limits=JobLimits(), images=[{"name": "a.png", "image": "https://host/a.png"}])


def test_too_many_files_and_too_large_ones() -> None:
    def many(count: int, characters: int) -> list[dict[str, str]]:
        return [{"name": f"{n}.png", "image": "A" * characters} for n in range(count)]

    assert len(parse(images=many(3, 600)).files) == 3
    with pytest.raises(JobTooLarge, match="the job has 4 files; at most 3 are taken"):
        parse(images=many(4, 4))
    with pytest.raises(JobTooLarge, match=r"^input.images\[0\].image is too large: at most 1,000 bytes"):
        parse(images=many(1, 4000))
    with pytest.raises(JobTooLarge, match="at most 1,500 bytes in all"):
        parse(images=many(3, 2500))


# Settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "milliseconds", "expected"),
    [(None, None, 100), (50, None, 50), (None, 70_000, 70), (50, 70_000, 50), (90, 70_000, 70), (99999, None, 1000)],
)
def test_the_shorter_time_limit_counts(seconds: Any, milliseconds: Any, expected: float) -> None:
    job = {} if milliseconds is None else {"policy": {"executionTimeout": milliseconds, "lowPriority": True}}
    assert parse(job, timeout=seconds).timeout_s == expected


def test_time_to_live() -> None:
    assert parse({"policy": {"ttl": 1500}}).ttl_s == 1.5


def test_output_options() -> None:
    outputs = {"delivery": "s3", "previews": False, "format": "webp", "quality": 80}
    assert parse(outputs=outputs).outputs == OutputOptions("s3", previews=False, format="webp", quality=80)
    assert parse(outputs={"previews": None, "format": None, "quality": None}).outputs == OutputOptions()


def test_a_bucket_in_both_spellings() -> None:
    own = parse(s3={**S3, "prefix": "/jobs/", "presign_s": 60}).s3
    assert (own.bucket, own.region, own.prefix, own.presign_s) == ("pictures", "eu-west-1", "jobs", 60)
    config = {
        "accessId": "AKIAEXAMPLE",
        "accessSecret": "very/secret+key",
        "bucketName": "pictures",
        "endpointUrl": "https://s3.eu-west-1.amazonaws.com",
    }
    runpod = parse({"s3Config": config}).s3
    assert (runpod.endpoint_url, runpod.bucket, runpod.access_key_id, runpod.secret_access_key) == tuple(S3.values())
    assert parse({"s3Config": config}, s3={**S3, "bucket": "other"}).s3.bucket == "other"
    for secret in ("AKIAEXAMPLE", "very/secret"):
        assert secret not in repr(runpod)


def test_nothing_secret_is_shown() -> None:
    job = parse(
        {"webhook": "https://host/hook?token=hush"}, comfy_org_api_key="hush-key", set={"1.api_key": "hush-too"}, s3=S3
    )
    assert (job.comfy_org_api_key, job.webhook) == ("hush-key", "https://host/hook?token=hush")
    assert "hush" not in repr(job)
    assert "secret" not in repr(job)
