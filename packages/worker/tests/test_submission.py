from __future__ import annotations

import json
from typing import Any

import pytest

from comfy_cpu_worker.errors import JobRejected, UrlRefused
from comfy_cpu_worker.job import JobLimits
from comfy_cpu_worker.settings import WorkerSettings
from comfy_cpu_worker.shelf import Shelf
from comfy_cpu_worker.submission import parse_submission
from comfy_cpu_worker.urls import UrlPolicy

WORKFLOW = {"2": {"class_type": "SaveImage", "inputs": {}}, "1": {"class_type": "LoadImage", "inputs": {}}}


def submit(document: Any, *, key: str | None = None, sync: bool = False, **settings: Any) -> Any:
    return parse_submission(document, WorkerSettings(**settings), Shelf(None), key=key, sync=sync)


def job(*, webhook: str | None = None, **given: Any) -> dict[str, Any]:
    document: dict[str, Any] = {"input": {"workflow": WORKFLOW, **given}}
    return document if webhook is None else {**document, "webhook": webhook}


def test_the_document_is_kept_as_it_came() -> None:
    found = submit({**job(), "policy": {"ttl": 5000}}, sync=True)
    assert json.loads(found.document) == {**job(), "policy": {"ttl": 5000}}
    assert list(json.loads(found.document)["input"]["workflow"]) == ["2", "1"]  # the order of nodes may matter
    assert (found.secrets, found.sync, found.ttl_s, found.idempotency_key) == (None, True, 5.0, None)


def test_secrets_are_apart_and_not_shown() -> None:
    found = submit(job(comfy_org_api_key="s3cret"))
    assert b"s3cret" not in found.document
    assert dict(found.secrets) == {"/input/comfy_org_api_key": "s3cret"}
    assert "s3cret" not in repr(found)


def test_the_key_of_the_header_and_of_the_job_are_one() -> None:
    inside, header = submit(job(idempotency_key="k")), submit(job(), key="k")
    assert inside.idempotency_key == header.idempotency_key == "k"
    assert inside.digest == header.digest
    assert submit(job(idempotency_key="k"), key="k").digest == header.digest
    with pytest.raises(JobRejected, match="another one"):
        submit(job(idempotency_key="k"), key="l")


def test_the_digest_tells_jobs_apart() -> None:
    digests = {
        submit(document).digest
        for document in (
            job(), job(timeout=5), job(images=[]), {**job(), "policy": {"ttl": 1}},
            {"input": {"workflow": {**WORKFLOW, "3": {"class_type": "X", "inputs": {}}}}},
        )
    }  # fmt: skip
    assert len(digests) == 5
    reordered = {"input": {"workflow": dict(reversed(WORKFLOW.items()))}}
    assert submit(reordered).digest == submit(job()).digest
    # Keys are no part of a job: who renews them submits the same job.
    assert submit(job(comfy_org_api_key="a")).digest == submit(job(comfy_org_api_key="b")).digest


def test_a_workflow_that_is_not_there_is_refused_at_once() -> None:
    with pytest.raises(JobRejected, match="no workflow 'cut_out' is baked"):
        submit({"input": {"workflow": "cut_out"}})


def test_webhooks_and_urls_are_refused_where_there_are_none() -> None:
    with pytest.raises(JobRejected, match="webhook: this worker calls none") as caught:
        submit(job(webhook="https://example.com/hook"))
    assert "COMFY_CPU_WEBHOOKS" in (caught.value.remedy or "")
    for given in (
        {"images": [{"name": "a.png", "url": "https://example.com/a"}]},
        {"inputs": {"1.image": "http://a/b"}},
    ):
        with pytest.raises(JobRejected, match="is a URL, and this worker fetches none") as caught:
            submit(job(**given))
        assert "COMFY_CPU_URLS" in (caught.value.remedy or "")


def test_a_policy_is_asked_before_a_job_waits() -> None:
    limits = JobLimits(urls=True)
    policy = UrlPolicy(allow_hosts=("good.example",))
    image = {"images": [{"name": "a.png", "url": "https://good.example/a"}]}
    submit(job(webhook="https://good.example/hook", **image), webhooks=policy, urls=policy, limits=limits)
    with pytest.raises(UrlRefused, match=r"webhook: the host bad\.example"):
        submit(job(webhook="https://bad.example/hook"), webhooks=policy)
    image["images"][0]["url"] = "https://bad.example/a"
    with pytest.raises(UrlRefused, match=r"input\.images\[0\]\.url: the host bad\.example"):
        submit(job(**image), urls=policy, limits=limits)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": [{"name": "../x.png", "image": "aGk="}]}, r"input\.images\[0\]\.name: '\.\./x\.png' leads out"),
        ({"images": [{"name": "/etc/x.png", "image": "aGk="}]}, r"input\.images\[0\]\.name: .* absolute"),
        ({"images": [{"name": "x.png [output]", "image": "aGk="}]}, "reads as a folder"),
        ({"images": [{"name": "x.png", "image": "aGk="}] * 2}, "the name of another file"),
        ({"images": [{"name": "x.png", "image": "a picture!"}]}, r"input\.images\[0\]\.image is not base64"),
        ({"inputs": {"1.image": "data:image/png,abc"}}, "without base64"),
    ],
)
def test_files_that_make_no_sense_are_refused_before_the_job_waits(given: dict[str, Any], message: str) -> None:
    with pytest.raises(JobRejected, match=message):
        submit(job(**given))


def test_files_that_are_too_large_are_refused_before_the_job_waits() -> None:
    with pytest.raises(JobRejected, match="at most 3 are taken") as refused:
        submit(job(images=[{"name": "x.png", "image": "YWFhYQ=="}]), limits=JobLimits(file_bytes=3))
    assert refused.value.status == 413
