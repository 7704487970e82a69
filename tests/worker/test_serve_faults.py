"""What becomes of jobs when the worker is killed, asked to end, or has no room to write."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from worker_client import WorkerClient, poll
from worker_server import WorkerServer, node_job, slow


def text_of(status: dict) -> str:
    assert status["status"] == "COMPLETED", status
    return str(status["output"]["texts"][0]["data"])


def running_slow(client: WorkerClient, **options: object) -> str:
    """Start a job that takes its time, and see it run."""
    job_id = client.run(slow(**options))  # type: ignore[arg-type]
    client.wait(job_id, {"IN_PROGRESS"})
    poll(lambda: client.get(f"/v2/local/stream/{job_id}").json["stream"], "the start of the node")
    return job_id


def test_the_api_is_killed_and_started_again(tmp_path: Path) -> None:
    """No accepted job is lost; the one that was cut off runs again once, and is marked; one key, one result."""
    with WorkerServer(tmp_path) as first:
        client = first.client
        done = client.runsync(node_job(text="before"))["id"]
        cut = client.run(slow(0.5, text="cut", given={"idempotency_key": "the-key"}))
        client.wait(cut, {"IN_PROGRESS"})
        waiting = [client.run(node_job(text=f"waiting {n}")) for n in range(5)]
        first.kill()
    with WorkerServer(tmp_path) as second:
        client = second.client
        assert text_of(client.status(done)) == "before"
        status = client.wait(cut)
        assert text_of(status) == "cut"
        assert (status["cut_off"], status["attempts"]) == (True, 2)
        assert [text_of(client.wait(job_id)) for job_id in waiting] == [f"waiting {n}" for n in range(5)]
        assert all("cut_off" not in client.status(job_id) for job_id in waiting)
        again = client.run(slow(0.5, text="cut"), idempotency_key="the-key")
        assert again == cut
        assert client.status(again)["attempts"] == 2  # it did not run a third time
        assert f"job {cut}: cut off" in second.log_text()
        metrics = client.get("/metrics").body.decode()
        assert "comfy_cpu_jobs_cut_off_total 1.0" in metrics


def test_a_job_that_is_cut_off_twice_fails(tmp_path: Path) -> None:
    job_id = ""
    for _ in range(2):
        with WorkerServer(tmp_path) as worker:
            job_id = job_id or worker.client.run(slow())
            worker.client.wait(job_id, {"IN_PROGRESS"})
            worker.kill()
    with WorkerServer(tmp_path) as worker:
        status = worker.client.status(job_id)
        assert status["status"] == "FAILED"
        assert "died twice" in status["error"]
        assert text_of(worker.client.runsync(node_job(text="next"))) == "next"


def test_no_process_outlives_an_api_that_is_killed(tmp_path: Path) -> None:
    with WorkerServer(tmp_path) as worker:
        running_slow(worker.client, polite=False)
        pids = worker.descendants()
        assert pids
        worker.kill()
        for pid in pids:
            poll(lambda pid=pid: not Path(f"/proc/{pid}/exe").exists(), f"the end of {pid}")  # type: ignore[misc]


def test_the_back_end_dies_in_the_middle_of_a_job(tmp_path: Path) -> None:
    with WorkerServer(tmp_path) as worker:
        client = worker.client
        dead = client.runsync(node_job("TestCrash", how="SIGKILL"))
        assert dead["status"] == "FAILED"
        assert dead["output"]["result"]["errors"][0]["code"] == "worker_crashed"
        assert text_of(client.runsync(node_job(text="next"))) == "next"
        assert "comfy_cpu_backend_restarts_total 1.0" in client.get("/metrics").body.decode()
        assert client.get("/ready").status == 200


def test_sigterm_lets_the_job_that_runs_end(tmp_path: Path) -> None:
    with WorkerServer(tmp_path, "--grace", "50") as worker:
        client = worker.client
        job_id = client.run(node_job("TestSteps", steps=10, seconds=0.1, text="ended"))
        client.wait(job_id, {"IN_PROGRESS"})
        waiting = client.run(node_job(text="next worker"))
        worker.signal(signal.SIGTERM)
        poll(lambda: client.get("/ready").status == 503, "the worker to be no longer ready")
        answer = client.post("/v2/local/run", node_job())
        assert answer.status == 503
        assert answer.headers["retry-after"]
        assert client.status(job_id)["status"] == "IN_PROGRESS"  # it answers to the end
        assert worker.ended() == 0
        assert "Traceback" not in worker.log_text()
    with WorkerServer(tmp_path) as worker:
        assert text_of(worker.client.status(job_id)) == "ended"
        status = worker.client.wait(waiting)
        assert text_of(status) == "next worker"
        assert status["attempts"] == 1


def test_sigterm_hands_back_what_takes_too_long(tmp_path: Path) -> None:
    with WorkerServer(tmp_path, "--grace", "0.2") as worker:
        job_id = running_slow(worker.client, seconds=1.0, text="handed back")
        assert worker.stop() == 0
        assert f"job {job_id}: interrupted and handed back" in worker.log_text()
    with WorkerServer(tmp_path) as worker:
        status = worker.client.wait(job_id)
        assert text_of(status) == "handed back"
        assert status["attempts"] == 2
        assert "cut_off" not in status


def test_a_second_signal_ends_the_grace_period(tmp_path: Path) -> None:
    with WorkerServer(tmp_path, "--grace", "1000") as worker:
        running_slow(worker.client)
        worker.signal(signal.SIGINT)
        poll(lambda: worker.client.get("/ready").status == 503, "the worker to be no longer ready")
        worker.signal(signal.SIGINT)
        assert worker.ended() == 0


def test_a_worker_without_a_job_ends_at_once(tmp_path: Path) -> None:
    with WorkerServer(tmp_path, "--grace", "1000") as worker:
        events = worker.client.events(worker.client.run(node_job()))
        assert list(events)
        assert worker.stop() == 0
        assert worker.descendants() == []


def test_jobs_whose_secrets_died_with_the_worker_fail_and_say_so(tmp_path: Path) -> None:
    with WorkerServer(tmp_path) as worker:
        worker.client.wait(worker.client.run(slow()), {"IN_PROGRESS"})
        secret = node_job(given={"comfy_org_api_key": "comfyui-s3cret-s3cret"})
        job_id = worker.client.run(secret)
        content = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
        assert b"s3cret" not in content
        worker.kill()
    with WorkerServer(tmp_path) as worker:
        status = worker.client.status(job_id)
        assert status["status"] == "FAILED"
        assert "secrets" in status["error"]
        assert "s3cret" not in worker.log_text()


def test_a_database_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "jobs.sqlite3").write_bytes(b"what is this?" * 1000)
    with WorkerServer(tmp_path) as worker:
        assert text_of(worker.client.runsync(node_job(text="new"))) == "new"
        assert "cannot be read" in worker.log_text()
        assert (tmp_path / "state" / "jobs.sqlite3.unreadable").exists()
        worker.stop()
    with sqlite3.connect(tmp_path / "state" / "jobs.sqlite3") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own that is soon full. Needs root."""
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=False, capture_output=True
    )
    if not mounted or mounted.returncode != 0:
        message = "only root may mount a small disk"
        if os.environ.get("COMFY_CPU_REQUIRE_ROOT") == "1":
            pytest.fail(message)
        pytest.skip(message)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_accepts_no_job_and_loses_none(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state", "4m") as disk, WorkerServer(tmp_path) as worker:
        client = worker.client
        running = running_slow(client, seconds=1.5, text="ran on a full disk")
        accepted = [client.run(node_job(text=f"accepted {n}")) for n in range(3)]
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        large = node_job(text="x" * 200_000)
        answer = client.post("/v2/local/run", large)
        assert (answer.status, answer.json["code"]) == (507, "storage")
        assert "is full" in answer.json["error"]
        assert answer.json["remedy"] == "make room on that disk"
        assert client.get("/v2/local/health").json["jobs"]["inQueue"] == 3
        assert text_of(client.wait(running)) == "ran on a full disk"
        filler.unlink()
        assert [text_of(client.wait(job_id)) for job_id in accepted] == [f"accepted {n}" for n in range(3)]
        assert text_of(client.runsync(node_job(text="room again"))) == "room again"
        assert client.status(running)["attempts"] == 1
        assert worker.stop() == 0
