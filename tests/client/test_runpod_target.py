"""``runpod://`` over real sockets, against a server that does what production does."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_runpod import KEY, PNG, FakeQueue, FakeRunPod, Fault, Script, picture

from comfy_cpu_client import Client
from comfy_cpu_client.errors import JobLost, SubmissionUnknown, TargetBusy, TargetRefused, TargetUnreachable
from comfy_cpu_core.errors import DeadlineExceeded, InputError, UsageError
from comfy_cpu_core.results import Progress

PROMPT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "old.png"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "ComfyUI"}},
}
STUCK = Script(run_s=math.inf)


@pytest.fixture
def runpod() -> Iterator[FakeRunPod]:
    with FakeRunPod() as server:
        yield server


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNPOD_API_KEY", "RUNPOD_ENDPOINT_BASE_URL", "COMFY_CPU_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def client(runpod: FakeRunPod, monkeypatch: pytest.MonkeyPatch, clean: None) -> Iterator[Client]:
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", runpod.url)
    with Client("runpod://abc123") as client:
        yield client


def open_client(runpod: FakeRunPod, target: str = "runpod://abc123", **options: Any) -> Client:
    return Client(target, api_key=KEY, base_url=runpod.url, **options)


def test_a_run(client: Client, runpod: FakeRunPod, tmp_path: Path) -> None:
    runpod.queue.plan(Script(queue_s=0.1, run_s=0.2))
    (tmp_path / "photo.png").write_bytes(PNG)
    result = client.run(PROMPT, inputs=tmp_path / "photo.png", timeout_s=60)
    assert result.status == "completed"
    assert [output.data for output in result.images] == [PNG]
    assert (result.queue_seconds, result.execution_seconds) == (0.1, 0.2)
    assert result.changes is not None
    job = runpod.queue.jobs[0].document
    assert job["input"]["workflow"]["1"]["inputs"]["image"] == "photo.png"
    assert job["input"]["images"][0]["name"] == "photo.png"
    assert job["input"]["convert"] is False
    assert job["policy"] == {"executionTimeout": 60000}


def test_the_first_answer_of_a_quick_job_comes_quickly(client: Client) -> None:
    before = time.monotonic()
    assert client.run(PROMPT).ok
    assert time.monotonic() - before < 2


def test_quick_jobs_are_submitted_with_runsync(client: Client, runpod: FakeRunPod) -> None:
    for _ in range(3):
        assert client.run(PROMPT).ok
    assert runpod.queue.asked == ["run", "status", "runsync", "runsync"]


def test_policies_webhook_and_cost(runpod: FakeRunPod) -> None:
    options = {"ttl_s": 3600, "low_priority": True, "webhook": "https://example.com/?key=secret"}
    runpod.queue.plan(Script(run_s=0.2))
    with open_client(runpod, price_per_second=0.5, **options) as client:
        result = client.run(PROMPT)
    assert result.estimated_cost == pytest.approx(0.1)
    assert result.to_json()["estimated_cost"] == pytest.approx(0.1)
    job = runpod.queue.jobs[0].document
    assert job["policy"] == {"ttl": 3_600_000, "lowPriority": True}
    assert job["webhook"] == "https://example.com/?key=secret"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=429),
        Fault(status=429, headers={"Retry-After": "1"}),
        Fault(status=500),
        Fault(status=502),
        Fault(cut="before"),
        Fault(cut="after"),
        Fault(cut="body"),
        Fault(garbage=True),
        Fault(status=404),
        Fault(slow_s=0.5),
    ],
    ids=str,
)
def test_faults_of_the_status_do_no_harm(client: Client, runpod: FakeRunPod, fault: Fault) -> None:
    runpod.queue.plan(Script(run_s=0.2))
    runpod.fail("status", fault, fault)
    result = client.run(PROMPT)
    assert result.ok
    assert len(runpod.queue.jobs) == 1


@pytest.mark.parametrize("fault", [Fault(status=429), Fault(status=429, headers={"Retry-After": "0.3"})], ids=str)
def test_what_was_not_accepted_is_submitted_again(client: Client, runpod: FakeRunPod, fault: Fault) -> None:
    runpod.fail("run", fault, fault)
    assert client.run(PROMPT).ok
    assert len(runpod.queue.jobs) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(cut="before"),
        Fault(cut="after"),
        Fault(cut="body"),
        Fault(status=500, carried_out=True),
        Fault(status=503),
        Fault(garbage=True),
    ],
    ids=str,
)
def test_what_may_have_been_accepted_is_not(client: Client, runpod: FakeRunPod, fault: Fault) -> None:
    runpod.fail("run", fault)
    with pytest.raises(SubmissionUnknown, match="may run") as caught:
        client.run(PROMPT)
    assert caught.value.ambiguous
    assert len(runpod.queue.jobs) <= 1
    assert len(runpod.headers["run"]) == 1


@pytest.mark.parametrize("fault", [Fault(cut="before"), Fault(cut="after"), Fault(status=500)], ids=str)
def test_our_worker_knows_it_by_its_key(fault: Fault) -> None:
    with FakeRunPod(FakeQueue("local", keyed=True), key=None) as worker:
        worker.fail("run", fault, fault)
        with Client(f"worker+http://127.0.0.1:{worker.port}") as client:
            assert client.run(PROMPT, idempotency_key="mine").ok
        assert len(worker.queue.jobs) == 1
        assert {headers["Idempotency-Key"] for headers in worker.headers["run"]} == {"mine"}


def test_an_endpoint_to_fall_back_on(clean: None) -> None:
    with FakeRunPod(FakeQueue("first"), FakeQueue("second")) as runpod:
        runpod.fail("run", Fault(status=429, headers={"Retry-After": "60"}))
        with open_client(runpod, "runpod://first,second") as client:
            assert client.run(PROMPT).ok
        assert [len(queue.jobs) for queue in runpod.queues.values()] == [0, 1]
        with open_client(runpod, "runpod://gone", fallback="runpod://second") as client:
            assert client.run(PROMPT).ok
            health = client.health()
        assert health["ready"]
        assert [endpoint["ready"] for endpoint in health["endpoints"]] == [False, True]


# --- who is let in ------------------------------------------------------------------------------------------------------


def test_wrong_key_forbidden_and_not_there_are_told_apart(runpod: FakeRunPod, clean: None) -> None:
    cases = {
        401: Client("runpod://abc123", api_key="rpa_other", base_url=runpod.url),
        403: open_client(runpod),
        404: open_client(runpod, "runpod://nobody"),
    }
    runpod.fail("run", Fault(), Fault(status=403, body={"error": "not your endpoint"}))
    runpod.fail("health", Fault(), Fault(status=403))
    said = set()
    for status, client in cases.items():
        with client, pytest.raises(TargetRefused) as caught:
            client.run(PROMPT)
        assert caught.value.status == status
        assert caught.value.exit_code == 7
        assert caught.value.remedy
        said.add(str(caught.value))
        assert not client.health()["ready"]
    assert len(said) == 3


def test_without_a_key(clean: None) -> None:
    with pytest.raises(UsageError, match="no API key") as caught:
        Client("runpod://abc123")
    assert "RUNPOD_API_KEY" in str(caught.value.remedy)


def test_the_key_is_nowhere(runpod: FakeRunPod, caplog: pytest.LogCaptureFixture, clean: None) -> None:
    caplog.set_level(logging.DEBUG)
    runpod.fail("run", Fault(cut="after"), Fault(status=500, body={"error": "x"}))
    runpod.fail("health", Fault(status=500))
    with open_client(runpod) as client:
        shown = [repr(client), repr(vars(client._target)), str(client.health())]
        for _ in range(2):
            with pytest.raises(SubmissionUnknown) as caught:
                client.run(PROMPT)
            shown += [str(caught.value), repr(caught.value), str(caught.value.remedy)]
    assert KEY not in "".join(shown) + caplog.text
    for endpoint in client._target._endpoints:  # type: ignore[attr-defined]
        assert KEY not in repr(endpoint)


def test_the_key_goes_nowhere_else(runpod: FakeRunPod, client: Client) -> None:
    runpod.files["/bucket/out.png"] = PNG
    url = f"http://127.0.0.1:{runpod.port}/bucket/out.png?X-Amz-Signature=s"
    item = {"filename": "out.png", "type": "s3_url", "data": url}
    runpod.queue.plan(Script(output={"images": [item]}))
    assert [output.data for output in client.run(PROMPT).images] == [PNG]
    assert all("Authorization" not in headers for headers in runpod.headers["file"])
    runpod.fail("runsync", Fault(status=307, headers={"Location": "http://127.0.0.1:1/"}))
    with pytest.raises(TargetRefused, match="elsewhere"):
        client.run(PROMPT)


def test_an_output_whose_url_is_no_longer_good(runpod: FakeRunPod, client: Client) -> None:
    url = f"http://127.0.0.1:{runpod.port}/v2/bucket/out.png?X-Amz-Signature=secret"
    runpod.queue.plan(Script(output={"images": [{"filename": "out.png", "type": "s3_url", "data": url}]}))
    with pytest.raises(Exception, match="cannot be had from") as caught:
        client.run(PROMPT)
    assert "secret" not in str(caught.value)


# --- what does not end --------------------------------------------------------------------------------------------------


def test_the_deadline_ends_a_job_that_is_stuck(client: Client, runpod: FakeRunPod) -> None:
    runpod.queue.plan(STUCK)
    result = client.run(PROMPT, timeout_s=0.5)
    assert (result.status, result.errors[0].code) == ("timed_out", "deadline")
    assert runpod.queue.jobs[0].cancelled


@pytest.mark.parametrize("operation", ["run", "status"])
@pytest.mark.parametrize("fault", [Fault(slow_s=60), Fault(drip_s=0.1)], ids=["silent", "drip"])
def test_the_deadline_is_kept_by_requests_that_do_not_end(
    client: Client, runpod: FakeRunPod, operation: str, fault: Fault
) -> None:
    runpod.queue.plan(STUCK)
    runpod.fail(operation, *[fault] * 20)
    before = time.monotonic()
    result = client.run(PROMPT, timeout_s=0.5)
    assert time.monotonic() - before < 4
    assert result.status == "timed_out"
    assert ("ambiguous" in {failure.code for failure in result.errors}) == (operation == "run")


def test_stuck_in_the_queue(runpod: FakeRunPod) -> None:
    runpod.queue.plan(Script(queue_s=math.inf))
    with open_client(runpod, queue_limit_s=0.4) as client:
        result = client.run(PROMPT)
    assert (result.status, result.errors[0].code) == ("timed_out", "queue_limit")
    assert runpod.queue.jobs[0].cancelled


def test_a_job_that_was_forgotten(client: Client, runpod: FakeRunPod) -> None:
    runpod.queue.plan(Script(run_s=math.inf, forget_after=1))
    with pytest.raises(JobLost):
        client.run(PROMPT)


def test_cancel(client: Client, runpod: FakeRunPod) -> None:
    runpod.queue.plan(STUCK)
    run = client.submit(PROMPT)
    assert run.id == runpod.queue.jobs[0].id
    with pytest.raises(DeadlineExceeded, match="still"):
        run.wait(0.05)
    run.cancel()
    assert run.result(30).status == run.status() == "cancelled"
    assert runpod.queue.jobs[0].cancelled
    run.cancel()


def test_an_interrupt_cancels_what_is_in_flight(client: Client, runpod: FakeRunPod) -> None:
    runpod.queue.plan(STUCK)

    def interrupt(event: Progress) -> None:
        raise KeyboardInterrupt

    step = {"kind": "started", "node_id": "1", "class_type": "X", "nodes": 1}
    runpod.queue.plan()
    runpod.queue._scripts[0] = Script(run_s=math.inf, progress=step)
    with pytest.raises(KeyboardInterrupt):
        client.run(PROMPT, on_event=interrupt)
    assert runpod.queue.jobs[0].cancelled


def test_closing_cancels_what_is_in_flight(runpod: FakeRunPod) -> None:
    runpod.queue.plan(STUCK, STUCK, STUCK)
    with open_client(runpod) as client:
        runs = [client.submit(PROMPT) for _ in range(3)]
    assert all(job.cancelled for job in runpod.queue.jobs)
    assert [run.wait(10).status for run in runs] == ["cancelled"] * 3
    with pytest.raises(UsageError, match="closed"):
        client.run(PROMPT)


def test_a_run_that_is_cancelled_while_it_is_submitted_does_not_run_on(runpod: FakeRunPod) -> None:
    runpod.queue.plan(STUCK)
    runpod.fail("run", Fault(slow_s=1.0))
    with open_client(runpod) as client:
        thread = threading.Thread(target=lambda: client.submit(PROMPT).wait())
        thread.start()
        while not runpod.queue.jobs:
            time.sleep(0.01)
    thread.join(10)
    assert not thread.is_alive()
    assert runpod.queue.jobs[0].cancelled


# --- the rest -----------------------------------------------------------------------------------------------------------


def test_progress(client: Client, runpod: FakeRunPod) -> None:
    step = {"kind": "step", "node_id": "4", "class_type": "Cut", "step": 1, "steps": 2, "nodes_done": 1, "nodes": 3}
    runpod.queue.plan(Script(run_s=0.6, progress=step), Script(run_s=0.6, progress=step))
    expected = Progress("step", "4", "Cut", 1, 2, 1, 3)
    assert list(client.stream(PROMPT)) == [expected]
    run = client.submit(PROMPT)
    assert run.result().ok
    assert run.progress == expected


def test_a_job_of_another_process_is_followed_and_run_again(client: Client, runpod: FakeRunPod) -> None:
    runpod.queue.plan(Script(run_s=0.1, final="FAILED", output=None, error="bad luck"), Script(run_s=0.2))
    with open_client(runpod) as other:
        job_id = other.submit(PROMPT).id
        result = client.attach(job_id).wait(30)
        assert (result.status, result.errors[0].message) == ("failed", "bad luck")
        again = client.retry(job_id)
        assert again.id == job_id
        assert again.wait(30).ok


def test_purge(client: Client, runpod: FakeRunPod) -> None:
    runpod.queue.plan(Script(queue_s=math.inf), Script(queue_s=math.inf))
    runs = [client.submit(PROMPT) for _ in range(2)]
    assert client.purge() == 2
    assert [run.wait(30).status for run in runs] == ["cancelled"] * 2


def test_health(client: Client, runpod: FakeRunPod) -> None:
    health = client.health()
    assert (health["ready"], health["target"]) == (True, "runpod")
    runpod.queue.workers = {"idle": 0, "running": 0, "unhealthy": 2}
    assert not client.health()["ready"]


def test_nobody_is_there(clean: None) -> None:
    with Client("worker+http://127.0.0.1:1", patience_s=0.5) as client:
        health = client.health()
        with pytest.raises(TargetUnreachable, match="cannot be reached: Connection refused"):
            client.run(PROMPT)
    assert not health["ready"]


def test_an_endpoint_that_stays_busy(runpod: FakeRunPod) -> None:
    runpod.fail("run", *[Fault(status=429)] * 100)
    with open_client(runpod, patience_s=0.05) as client, pytest.raises(TargetBusy):
        client.submit(PROMPT).wait(30)


def test_what_is_too_large_is_not_sent(runpod: FakeRunPod) -> None:
    with open_client(runpod, run_bytes=20_000, sync_bytes=40_000) as client:
        assert client.run(PROMPT, inputs=b"x" * 20_000).ok
        assert runpod.queue.asked == ["runsync"]
        with pytest.raises(
            InputError, match=r"the job is 0\.1 MB, and at most 0\.04 MB can be sent; .*1\.image\.bin"
        ) as caught:
            client.run(PROMPT, inputs=b"x" * 60_000)
    assert "JPEG" in str(caught.value.remedy)
    assert runpod.queue.asked == ["runsync"]


def test_many_threads_share_a_client(client: Client, runpod: FakeRunPod) -> None:
    runpod.queue.plan(*[Script(run_s=0.1, output=picture(PNG + bytes([n]))) for n in range(20)])
    results: dict[int, Any] = {}

    def work(number: int) -> None:
        results[number] = client.run(PROMPT)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(result.ok for result in results.values())
    assert len({result.images[0].data for result in results.values()}) == 20
    assert len(runpod.queue.jobs) == 20


def test_the_example(runpod: FakeRunPod, clean_environment: dict[str, str], tmp_path: Path) -> None:
    """The reference's test script of sixty lines, in under ten."""
    example = Path(__file__).parents[2] / "examples" / "runpod_endpoint.py"
    lines = example.read_text().rpartition('"""')[2].split("\n")
    assert len([line for line in lines if line.strip() and not line.startswith(("import", "from"))]) < 10
    (tmp_path / "w.json").write_text(json.dumps(PROMPT))
    (tmp_path / "photo.png").write_bytes(PNG)
    runpod.queue.plan(Script(run_s=0.1), Script(final="FAILED", output=None, error="bad luck"))
    environment = {**clean_environment, "RUNPOD_API_KEY": KEY, "RUNPOD_ENDPOINT_BASE_URL": runpod.url}
    for code, said in ((0, "ComfyUI_00001_.png"), (1, "bad luck")):
        done = subprocess.run(
            [sys.executable, example, "abc123", "w.json", "photo.png"],
            check=False,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stderr
    assert (tmp_path / "ComfyUI_00001_.png").read_bytes() == PNG


def test_the_endpoint_that_took_the_last_job_gets_the_next(clean: None) -> None:
    first, second = FakeQueue("first"), FakeQueue("second")
    with FakeRunPod(first, second) as runpod, open_client(runpod, "runpod://first,second", sync=False) as client:
        runpod.fail("run", Fault(status=429), Fault(), Fault(status=429))
        runs = [client.submit(PROMPT) for _ in range(2)]
        assert [run.wait(30).ok for run in runs] == [True, True]
        assert (len(first.jobs), len(second.jobs)) == (0, 2)
        job_id = runs[0].id
        assert client.attach(job_id).wait(30).ok, "it is looked for at every endpoint"
        assert first.asked.count("status") == 1
        second.jobs[0].script = Script(final="FAILED", error="bad luck", output=None)
        assert client.retry(job_id).wait(30).ok
        with pytest.raises(TargetRefused, match="no such job"):
            client.retry("nobody")


def test_jobs_are_not_asked_for_too_often(client: Client, runpod: FakeRunPod) -> None:
    runpod.queue.plan(Script(run_s=3))
    assert client.run(PROMPT).ok
    assert runpod.queue.asked.count("status") < 20
