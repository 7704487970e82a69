"""A batch in a process of its own that is ended at any moment, and begun again."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from noop_target import noop_environment

WORKFLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
}
PROGRAM = "from comfy_cpu_core.cli import main; main()"
INPUTS = 300


class Batch:
    """The command line, run as often as it takes."""

    def __init__(self, directory: Path, environment: dict[str, str], target: str) -> None:
        self.directory = directory
        self.output = directory / "out"
        self.environment = {**environment, **noop_environment(directory)}
        self.target = target
        (directory / "w.json").write_text(json.dumps(WORKFLOW))
        rows = [{"id": f"row {number}", "set": {"1.color": number}} for number in range(INPUTS)]
        (directory / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def begin(self, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-c", PROGRAM, "batch", str(self.directory / "w.json")),
                *(str(self.directory / "rows.jsonl"), "-o", str(self.output), "-t", self.target, *more),
            ],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_results(self, process: subprocess.Popen[str]) -> None:
        """Until a job has left outputs: the batch is in the middle of it then."""
        deadline = time.monotonic() + 60
        before = len(self._folders())
        while len(self._folders()) <= before and process.poll() is None:
            assert time.monotonic() < deadline, "nothing happens"
            time.sleep(0.005)

    def _folders(self) -> list[Path]:
        return [path for path in self.output.glob("row*") if path.is_dir()]

    def read(self, query: str) -> list[Any]:
        db = sqlite3.connect(self.output / "batch.sqlite3")
        try:
            return db.execute(query).fetchall()
        finally:
            db.close()

    def check(self) -> dict[str, int]:
        """Every input has exactly one result, and the outputs of those that completed are there and whole."""
        results = self.read("SELECT place, folder, status, reason, outputs FROM inputs LEFT JOIN results USING (place)")
        assert sorted(place for place, *_ in results) == list(range(1, INPUTS + 1))
        assert [row for row in results if row[2] is None] == []
        for _, folder, status, _, outputs in results:
            assert json.loads(outputs) == ([f"{folder}/{self.file}"] if status == "completed" else [])
            if status == "completed":
                assert (self.output / folder / self.file).stat().st_size >= 60
        assert not (self.output / ".unfinished").exists()
        return Counter(f"{status} {reason}".strip() for _, _, status, reason, _ in results)

    @property
    def file(self) -> str:
        return "out_00001_.png" if self.target == "embedded" else "out.bin"


@pytest.fixture
def batch(tmp_path: Path, clean_environment: dict[str, str]) -> Callable[[str], Batch]:
    return lambda target: Batch(tmp_path, clean_environment, target)


@pytest.mark.parametrize("target", ["embedded", "noop://here?delay=0.02&output=100&faults=0.05&log={log}"])
def test_killed_again_and_again_every_input_has_exactly_one_result(
    batch: Callable[[str], Batch], target: str, tmp_path: Path
) -> None:
    chance = random.Random(target)
    log = tmp_path / "submitted"
    one = batch(target.format(log=log))
    for _ in range(4):
        process = one.begin("--cut-offs", "9", "-j", "6")
        one.wait_for_results(process)
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        process.communicate()
    process = one.begin("--cut-offs", "9", "-j", "6")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert one.check() == {"completed": INPUTS}
    ((cut_off,),) = one.read("SELECT sum(cut_off) FROM inputs")
    ((counted,),) = one.read("SELECT count(*) FROM attempts WHERE outcome = 'cut_off'")
    assert 1 <= cut_off == counted <= 4 * 6
    summary = json.loads((one.output / "summary.json").read_text())
    assert summary["cut_off"] == cut_off
    assert summary["sessions"] == 5
    if log.exists():  # nothing ran more often than the journal knows
        submitted = len(log.read_text().splitlines())
        ((tries,),) = one.read("SELECT count(*) FROM attempts")
        assert INPUTS <= submitted <= INPUTS + tries


def test_a_job_that_was_cut_off_is_asked_for_under_the_same_key(batch: Callable[[str], Batch], tmp_path: Path) -> None:
    log = tmp_path / "submitted"
    one = batch(f"noop://here?delay=0.02&output=100&keys=1&log={log}")
    process = one.begin()
    one.wait_for_results(process)
    process.kill()
    process.communicate()
    process = one.begin()
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    ((cut_off,),) = one.read("SELECT sum(cut_off) FROM inputs")
    keys = Counter(log.read_text().split())
    assert len(keys) == INPUTS
    assert max(keys.values()) <= 2
    assert sum(keys.values()) - INPUTS <= cut_off


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_end_it_cancels_what_is_under_way_and_keeps_the_journal(
    batch: Callable[[str], Batch], number: int, code: int
) -> None:
    one = batch("noop://here?delay=0.05&output=100")
    process = one.begin("-j", "4")
    one.wait_for_results(process)
    began = time.monotonic()
    os.kill(process.pid, number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == code, error
    assert time.monotonic() - began < 9  # not the grace that jobs have which do not end
    assert "Traceback" not in error
    states = dict(one.read("SELECT state, count(*) FROM inputs GROUP BY state"))
    assert "running" not in states
    assert states["waiting"] > 0
    process = one.begin("-j", "50", "--json")
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert json.loads(out)["cut_off"] == 0
    assert one.check() == {"completed": INPUTS}


def test_two_at_once_are_refused(batch: Callable[[str], Batch]) -> None:
    one = batch("noop://here?delay=0.05&output=100")
    first = one.begin("-j", "2")
    one.wait_for_results(first)
    second = one.begin()
    _, error = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "another process runs the batch" in error
    first.kill()
    first.communicate()


def test_a_target_that_is_down_ends_it_with_seven(batch: Callable[[str], Batch]) -> None:
    one = batch("noop://here?down=1")
    process = one.begin("--give-up", "0.1", "-j", "4", "--retries", "99")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 7
    assert "no target is of use any more: noop://here: nobody listens there" in error
    assert "run the same command again" in error
