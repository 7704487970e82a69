"""A batch on a real worker, over a network that loses requests, killed on its way."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty_nodes import one_node
from faulty_proxy import FaultyProxy
from worker_client import poll
from worker_server import WorkerServer

from comfy_cpu_client import Client
from comfy_cpu_client.batch import Policy, run_batch

INPUTS = 40
PROGRAM = "from comfy_cpu_core.cli import main; main()"


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerServer]:
    with WorkerServer(tmp_path_factory.mktemp("worker")) as running:
        yield running


def url(worker: WorkerServer) -> str:
    return f"http://127.0.0.1:{worker.client.port}"


def completed(worker: WorkerServer) -> int:
    """How many jobs it has completed."""
    return int(worker.client.get("/v2/local/health").json["jobs"]["completed"])


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., Path]:
    def write(class_type: str, count: int = INPUTS, **inputs: object) -> Path:
        (tmp_path / "w.json").write_text(json.dumps(one_node(class_type, text="", **inputs)))
        table = tmp_path / "rows.jsonl"
        table.write_text("".join(json.dumps({"set": {"1.text": f"row {n}"}}) + "\n" for n in range(count)))
        return table

    return write


def test_the_results_are_those_of_the_inputs(worker: WorkerServer, rows: Callable[..., Path], tmp_path: Path) -> None:
    table = rows("TestText", 5)
    with Client(f"worker+{url(worker)}") as client:
        summary = client.batch(tmp_path / "w.json", [table], output=tmp_path / "out", convert=False)
    assert summary.completed == 5
    texts = {path.read_text() for path in (tmp_path / "out").glob("rows-*/*")}
    assert texts == {f"row {number}" for number in range(5)}


def test_nothing_is_lost_and_nothing_runs_twice(
    worker: WorkerServer, rows: Callable[..., Path], tmp_path: Path
) -> None:
    table = rows("TestSleep", seconds=0.02)
    out = tmp_path / "out"
    before = completed(worker)
    with FaultyProxy(url(worker), 0.1, seed=7) as proxy:
        command = [sys.executable, "-c", PROGRAM, "batch", str(tmp_path / "w.json"), str(table), "-o", str(out)]
        command += ["-t", f"worker+{proxy.url}", "-j", "6", "--cut-offs", "9", "--no-convert"]
        for _ in range(2):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            done = len(list(out.glob("rows-*")))
            poll(lambda done=done: len(list(out.glob("rows-*"))) > done + 3, "some results")  # type: ignore[misc]
            process.kill()
            process.wait()
        last = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        assert last.returncode == 0, last.stderr
        assert sum(proxy.faults.values()) > 0
    db = sqlite3.connect(out / "batch.sqlite3")
    assert db.execute("SELECT status, count(*) FROM results GROUP BY status").fetchall() == [("completed", INPUTS)]
    db.close()
    # What was cut off was asked for again under its key, and what was lost on the way, too.
    assert completed(worker) - before == INPUTS


def test_a_node_that_crashes_the_engine_is_tried_again_and_then_reported(
    worker: WorkerServer, rows: Callable[..., Path], tmp_path: Path
) -> None:
    table = rows("TestCrash", 1, how="SIGKILL")
    with Client(f"worker+{url(worker)}") as client:
        policy = Policy(in_flight=1, retries=1, retry_s=0.01, down_s=0.01)
        summary = run_batch(
            tmp_path / "w.json", [table], output=tmp_path / "out", targets=[client], convert=False, policy=policy
        )
    assert summary.failed == 1
    assert summary.failures[0].reason == "worker_crashed"
    assert summary.retries == {"worker_crashed": 1}
