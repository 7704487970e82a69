"""Names, options, documents, answers and refusals of a target with a queue: what opens nothing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_client.errors import TargetBusy, TargetRefused, TargetUnreachable
from comfy_cpu_client.runpod import QueueSettings, protocol
from comfy_cpu_client.runpod.address import Endpoint, parse_endpoints
from comfy_cpu_client.runpod.document import encode_job
from comfy_cpu_client.runpod.failed import fate_of
from comfy_cpu_client.runpod.limits import RunLimits
from comfy_cpu_client.runpod.pacing import Pacer
from comfy_cpu_client.runpod.protocol import Answer, parse_health, parse_job, parse_purge
from comfy_cpu_client.runpod.refusals import refusal, retry_after
from comfy_cpu_core.errors import InputError, TargetError, UsageError
from comfy_cpu_core.results import RunRequest

KEY = "rpa_SECRET"
RUNPOD = Endpoint("runpod", "https://api.runpod.ai/v2/abc", KEY)
WORKER = Endpoint("worker", "http://127.0.0.1:8000/v2/local")


def answer(document: Any) -> Answer:
    return Answer("it", document if isinstance(document, bytes) else json.dumps(document).encode())


# --- names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "given", "urls"),
    [
        ("runpod://abc", {"api_key": KEY}, ["https://api.runpod.ai/v2/abc"]),
        ("runpod://a,b,a", {"api_key": KEY}, ["https://api.runpod.ai/v2/a", "https://api.runpod.ai/v2/b"]),
        ("runpod://abc", {"environ": {"RUNPOD_API_KEY": KEY}}, ["https://api.runpod.ai/v2/abc"]),
        (
            "runpod://abc",
            {"environ": {"RUNPOD_API_KEY": KEY, "RUNPOD_ENDPOINT_BASE_URL": "http://127.0.0.1:8000/v2/"}},
            ["http://127.0.0.1:8000/v2/abc"],
        ),
        ("worker+http://host:8000", {}, ["http://host:8000/v2/local"]),
        ("worker+https://host/v2/mine/", {"token": "t"}, ["https://host/v2/mine"]),
        ("worker+http://[::1]:8000/", {}, ["http://[::1]:8000"]),
    ],
)
def test_names(name: str, given: Mapping[str, Any], urls: list[str]) -> None:
    assert [endpoint.url for endpoint in parse_endpoints(name, **given)] == urls


@pytest.mark.parametrize(
    ("name", "given", "text"),
    [
        ("runpod://", {"api_key": KEY}, "no endpoint id"),
        ("runpod:abc", {"api_key": KEY}, "no endpoint id"),
        ("runpod://a/../b", {"api_key": KEY}, "no endpoint id"),
        ("runpod://abc", {}, "no API key"),
        ("runpod://abc", {"api_key": "a b\n"}, "one line"),
        ("runpod://abc", {"api_key": KEY, "base_url": "http://example.com/v2"}, "without encryption"),
        ("runpod://abc", {"api_key": KEY, "base_url": "nonsense"}, "no URL"),
        ("worker+ftp://host", {}, "no URL"),
        ("worker+http://", {}, "no URL with a host"),
        ("worker+http://host:99999", {}, "no URL"),
        ("worker+http://user:SECRET@host", {}, "has a user"),
        ("worker+http://host/?token=SECRET", {}, "a \\?"),
        ("worker+http://host", {"token": "SECRET SECRET"}, "one line"),
    ],
)
def test_names_that_lead_nowhere(name: str, given: Mapping[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        parse_endpoints(name, **given)
    assert "SECRET" not in f"{caught.value}{caught.value.remedy}"


def test_secrets_are_in_no_repr() -> None:
    settings = QueueSettings(api_key=KEY, token=KEY, webhook=f"https://x/?{KEY}", proxy=f"http://u:{KEY}@p")
    request = protocol.submit(json.dumps({"input": {"comfy_org_api_key": KEY}}).encode())
    assert KEY not in repr(RUNPOD) + repr(settings) + repr(request) + RUNPOD.where


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"pricee": 1}, "no option 'pricee'"),
        ({"ttl_s": -1}, "ttl_s"),
        ({"queue_limit_s": True}, "queue_limit_s"),
        ({"price_per_second": "much"}, "price_per_second"),
        ({"patience_s": float("nan")}, "patience_s"),
        ({"sync": "perhaps"}, "sync"),
        ({"webhook": "ftp://x"}, "webhook"),
    ],
)
def test_options_that_make_no_sense(options: Mapping[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        QueueSettings.of(options)


def test_options() -> None:
    settings = QueueSettings.of({"fallback": "runpod://b", "price_per_second": 0, "sync": False})
    assert settings.fallback == ("runpod://b",)
    assert settings.sync is False


# --- documents ----------------------------------------------------------------------------------------------------------


def test_a_job() -> None:
    request = RunRequest({"1": {"class_type": "A", "inputs": {}}}, {"a.png": b"png"}, 2.0, "comfy")
    document = json.loads(encode_job(request, QueueSettings(ttl_s=1)))
    assert document == {
        "input": {
            "workflow": {"1": {"class_type": "A", "inputs": {}}},
            "convert": False,
            "images": [{"name": "a.png", "image": "cG5n"}],
            "outputs": {"previews": True},
            "timeout": 2.0,
            "comfy_org_api_key": "comfy",
        },
        "policy": {"executionTimeout": 5000, "ttl": 10000},
    }
    assert json.loads(encode_job(RunRequest({}), QueueSettings(previews=False))) == {
        "input": {"workflow": {}, "convert": False}
    }


def test_a_job_that_is_too_large_says_why_and_what_to_do() -> None:
    request = RunRequest({}, {"small.png": b"x", "large.png": b"x" * 16_000_000})
    with pytest.raises(InputError, match=r"21\.3 MB, and at most 20 MB .* 'large\.png' with 16\.0 MB") as caught:
        encode_job(request, QueueSettings())
    assert "JPEG" in str(caught.value.remedy)
    with pytest.raises(InputError, match="at most 10 MB"):
        encode_job(RunRequest({}, {"a": b"x" * 8_000_000}), QueueSettings(sync=False))


def test_a_job_that_is_no_json() -> None:
    with pytest.raises(InputError, match="as JSON"):
        encode_job(RunRequest({"1": {"class_type": "A", "inputs": {"x": float("nan")}}}), QueueSettings())


# --- requests and answers -----------------------------------------------------------------------------------------------


def test_requests() -> None:
    assert protocol.submit(b"{}").path == "/run"
    assert protocol.submit(b"{}", key="k").headers["Idempotency-Key"] == "k"
    assert protocol.submit(b"{}", wait_s=0.1).path == "/runsync?wait=1000"
    assert protocol.submit(b"{}", wait_s=9999).path == "/runsync?wait=300000"
    assert protocol.get_status("../a b").path == "/status/..%2Fa%20b"


def test_an_answer_about_a_job() -> None:
    found = parse_job(
        answer({"id": "j", "status": "RUNNING", "delayTime": 1500, "executionTime": True, "output": "mine"})
    )
    assert (found.id, found.state, found.ended, found.delay_s, found.execution_s) == (
        "j",
        "IN_PROGRESS",
        False,
        1.5,
        None,
    )
    assert found.output is None
    found = parse_job(answer({"status": "COMPLETED", "output": [1]}), "j")
    assert (found.id, found.ended, found.output) == ("j", True, [1])
    assert parse_job(answer({"id": "j", "status": "NEW_WORD"})).state is None


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (b"<html>", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        ([], "is no object"),
        ({"status": "IN_QUEUE"}, "names no job"),
        ({"id": 7, "status": "IN_QUEUE"}, "names no job"),
        ({"id": "j"}, "names no status"),
    ],
)
def test_answers_that_make_no_sense(document: Any, text: str) -> None:
    with pytest.raises(TargetError, match=text):
        parse_job(answer(document))


def test_an_answer_about_another_job() -> None:
    with pytest.raises(TargetError, match="another job"):
        parse_job(answer({"id": "k", "status": "COMPLETED"}), "j")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "id",
    "status",
    "output",
    "error",
    "delayTime",
    "executionTime",
    "stream",
    "kind",
    "jobs",
    "workers",
    "removed",
)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON | st.sampled_from(["j", "COMPLETED", "IN_QUEUE"])))
def test_whatever_is_answered_is_read_or_refused(document: dict[str, Any]) -> None:
    for parse in (parse_job, parse_health, parse_purge):
        with suppress(TargetError):
            parse(answer(document))


def test_health_and_purge() -> None:
    health = parse_health(answer({"jobs": {"inQueue": 1, "x": "y"}, "workers": {"idle": 2}}))
    assert (health.jobs, health.workers) == ({"inQueue": 1}, {"idle": 2})
    assert parse_purge(answer({"removed": 2, "status": "completed"})) == 2


# --- refusals -----------------------------------------------------------------------------------------------------------


def test_refusals_say_what_is_wrong_and_what_to_do() -> None:
    said = {}
    for endpoint in (RUNPOD, WORKER):
        for status in (400, 401, 402, 403, 404, 413, 429, 500, 503, 302):
            error = refusal(endpoint, "run", status, {}, b'{"error": "reason", "remedy": "do this"}')
            assert error.status == status
            assert isinstance(error, TargetBusy) == (status in {429, 503})
            assert error.remedy
            assert KEY not in f"{error}{error.remedy}"
            said[endpoint.kind, status] = str(error)
    assert len(set(said.values())) == len(said)
    assert "reason" in said["worker", 400]
    assert "no such job" in str(refusal(RUNPOD, "status", 404, {}, b""))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("99999", 300.0), (None, None), ("-1", None), ("Wed, 21 Oct", None)],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds
    error = refusal(RUNPOD, "run", 429, {"retry-after": value} if value else {}, b"not json")
    assert isinstance(error, TargetBusy)
    assert error.retry_after_s == seconds


@pytest.mark.parametrize(
    ("error", "runpod", "worker"),
    [
        (TargetUnreachable("x", sent=False), "later", "later"),
        (TargetUnreachable("x", sent=True), "unknown", "unknown"),
        (TargetError("garbage"), "unknown", "unknown"),
        (TargetRefused("x", status=400), "rejected", "rejected"),
        (TargetRefused("x", status=401), "refused", "refused"),
        (TargetRefused("x", status=302), "refused", "refused"),
        (TargetRefused("x", status=408), "unknown", "unknown"),
        (TargetRefused("x", status=413), "rejected", "rejected"),
        (TargetBusy("x", status=429), "later", "later"),
        (TargetRefused("x", status=500), "unknown", "unknown"),
        (TargetBusy("x", status=503), "unknown", "later"),
        (TargetRefused("x", status=507), "unknown", "later"),
    ],
)
def test_what_a_failure_means_for_the_job(error: TargetError, runpod: str, worker: str) -> None:
    assert (fate_of(error, keyed=False), fate_of(error, keyed=True)) == (runpod, worker)


# --- time ---------------------------------------------------------------------------------------------------------------


def test_limits() -> None:
    limits = RunLimits(deadline=100.0, queue_limit_s=10.0, execution_limit_s=20.0, life_s=1000.0)
    assert limits.overdue(9.9, 0.0, None) is None
    assert limits.overdue(10.0, 0.0, None) == "queue_limit"
    assert limits.overdue(24.9, 0.0, 5.0) is None
    assert limits.overdue(25.0, 0.0, 5.0) == "stuck"
    assert limits.overdue(100.0, 0.0, 99.0) == "timed_out"
    assert limits.next_end(0.0, None) == 10.0
    assert RunLimits(life_s=50.0).overdue(50.0, 0.0, 49.0) == "stuck"


@given(st.lists(st.floats(0, 5), max_size=60), st.integers(1, 5))
def test_no_more_requests_in_ten_seconds_than_allowed(pauses: list[float], limit: int) -> None:
    pacer = Pacer({"run": limit})
    now = 0.0
    sent: list[float] = []
    for pause in pauses:
        now += pause
        sent.append(now + pacer.reserve("run", now))
    assert all(later >= first - 1e-6 for first, later in itertools.pairwise(sent))
    for first, later in zip(sent, sent[limit:], strict=False):
        assert later - first >= 10 - 1e-6
    assert pacer.reserve("health", now) == 0
