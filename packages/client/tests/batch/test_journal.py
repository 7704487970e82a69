from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_cpu_client.batch.inputs import BatchInput
from comfy_cpu_client.batch.journal import JOURNAL, Journal, Record, Recovered
from comfy_cpu_core.errors import InputError, UsageError

SETTINGS = {"the workflow": "abc", "cut_offs": "1"}


def inputs(*names: str, kind: str = "file") -> Iterator[BatchInput]:
    for number, name in enumerate(names):
        yield BatchInput(kind, name, {"1.image": f"/x/{name}"}, order=(0, f"{number:05}"))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path) as opened:
        opened.begin(SETTINGS)
        yield opened


def test_inputs_wait_in_their_order(journal: Journal) -> None:
    files = [BatchInput("file", name, {"1.image": f"/x/{name}"}, order=(0, name)) for name in ("b", "c", "a")]
    assert journal.add(files) == 3
    assert [one.label for one in journal.waiting(0, 10)] == ["a", "b", "c"]
    assert [one.label for one in journal.waiting(1, 1)] == ["b"]


def test_a_file_is_one_input_however_often_it_is_named(journal: Journal) -> None:
    assert journal.add([*inputs("a", "b"), *inputs("a")]) == 2
    assert journal.add(inputs("a", "c")) == 1
    assert journal.counts()["inputs"] == 3


def test_rows_that_say_the_same_are_inputs_of_their_own(journal: Journal) -> None:
    assert journal.add(inputs("a", "a", "a", kind="row")) == 3
    assert journal.add(inputs("a", "a", "a", kind="row")) == 0
    assert len({one.folder for one in journal.waiting(0, 10)}) == 3


def test_all_inputs_are_added_or_none(journal: Journal) -> None:
    def broken() -> Iterator[BatchInput]:
        yield from inputs("a", "b")
        raise InputError("row 3 makes no sense")

    with pytest.raises(InputError, match="row 3"):
        journal.add(broken())
    assert journal.counts()["inputs"] == 0
    assert journal.add(inputs("a")) == 1


def test_an_input_has_no_second_result(journal: Journal) -> None:
    journal.add(inputs("a"))
    with journal.transaction():
        journal.finish(1, Record("completed"))
    with pytest.raises(InputError, match="UNIQUE"), journal.transaction():
        journal.finish(1, Record("failed"))
    assert journal.counts()["completed"] == 1
    assert journal.counts()["failed"] == 0


def test_a_transaction_that_is_broken_off_leaves_nothing(journal: Journal) -> None:
    journal.add(inputs("a"))

    def interrupted() -> None:
        with journal.transaction():
            journal.start(1, "t")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert journal.counts()["waiting"] == 1


def reopened(directory: Path, **more: str) -> Recovered:
    with Journal(directory) as again:
        return again.begin({**SETTINGS, **more})


def test_a_job_that_was_cut_off_waits_again_once(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.begin(SETTINGS)
        journal.add(inputs("a", "b"))
        with journal.transaction():
            journal.start(1, "t")
    with Journal(tmp_path) as journal:
        assert journal.begin(SETTINGS) == Recovered(again=1)
        first = journal.waiting(0, 1)[0]
        assert (first.place, first.generation, first.target) == (1, 1, "t")  # the same key, at the same target
        with journal.transaction():
            journal.start(1, "t")
    assert reopened(tmp_path) == Recovered(failed=1)
    with Journal(tmp_path) as journal:
        journal.begin(SETTINGS)
        assert journal.read("SELECT place, status, reason FROM results") == [(1, "failed", "cut_off")]
        assert journal.read("SELECT outcome FROM attempts") == [("cut_off",), ("cut_off",)]


def test_it_may_be_cut_off_more_often(tmp_path: Path) -> None:
    for _ in range(3):
        with Journal(tmp_path) as journal:
            assert journal.begin({**SETTINGS, "cut_offs": "9"}).failed == 0
            journal.add(inputs("a"))
            with journal.transaction():
                journal.start(1, "t")
    assert reopened(tmp_path, cut_offs="9") == Recovered(again=1)


def test_a_try_in_vain_is_kept(journal: Journal) -> None:
    journal.add(inputs("a"))
    with journal.transaction():
        journal.start(1, "t")
        journal.retry(1, Record("failed", "unreachable", "nobody there", target="t"), same=False)
    (one,) = journal.waiting(0, 9)
    assert (one.failures, one.generation, one.target) == (1, 2, None)
    assert journal.read("SELECT outcome, message FROM attempts") == [("unreachable", "nobody there")]


def test_a_job_that_may_be_there_keeps_its_number_and_its_target(journal: Journal) -> None:
    journal.add(inputs("a"))
    with journal.transaction():
        journal.start(1, "t")
        journal.retry(1, Record("failed", "lost", target="t"), same=True)
    (one,) = journal.waiting(0, 9)
    assert (one.failures, one.generation, one.target) == (1, 1, "t")


def test_what_is_handed_back_is_not_counted(journal: Journal) -> None:
    journal.add(inputs("a", "b"))
    with journal.transaction():
        journal.start(1, "t")
        journal.start(2, "t")
        journal.hand_back(1, started=True)
        journal.hand_back(2, started=False)
    first, second = journal.waiting(0, 9)
    assert (first.failures, first.generation) == (0, 2)  # a cancelled job must not be found again by its key
    assert (second.failures, second.generation) == (0, 1)


def test_failed_inputs_wait_again_if_asked(journal: Journal) -> None:
    journal.add(inputs("a", "b", "c"))
    with journal.transaction():
        journal.finish(1, Record("completed"))
        journal.finish(2, Record("failed", "node_failed"))
        journal.finish(3, Record("blocked", "blocked"))
    assert journal.forget_failed() == 1
    assert [one.place for one in journal.waiting(0, 9)] == [2]
    assert journal.counts()["blocked"] == 1


@pytest.mark.parametrize("setting", ["the workflow", "--set"])
def test_what_changed_is_named(tmp_path: Path, setting: str) -> None:
    with Journal(tmp_path) as journal:
        journal.begin({**SETTINGS, "--set": "{}"})
    with Journal(tmp_path) as journal, pytest.raises(UsageError, match=f"{setting} changed") as raised:
        journal.begin({**SETTINGS, "--set": "{}", setting: "other"})
    assert "--restart" in str(raised.value.remedy)


def test_restart_forgets_everything(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.begin(SETTINGS)
        first = journal.id
        journal.add(inputs("a"))
        with journal.transaction():
            journal.finish(1, Record("completed"))
    with Journal(tmp_path) as journal:
        journal.begin({"the workflow": "other", "cut_offs": "1"}, restart=True)
        assert journal.counts()["inputs"] == 0
        assert journal.id != first


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with Journal(tmp_path):
        with pytest.raises(UsageError, match="another process"):
            Journal(tmp_path)
        program = "import sys; from pathlib import Path; from comfy_cpu_client.batch.journal import Journal\n"
        program += "Journal(Path(sys.argv[1]))"
        done = subprocess.run([sys.executable, "-c", program, tmp_path], check=False, capture_output=True, text=True)
        assert "another process" in done.stderr
    Journal(tmp_path).close()


def test_a_file_that_is_no_journal_is_said_so(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(b"this is no database" * 1000)
    with pytest.raises(InputError, match="cannot be read") as raised:
        Journal(tmp_path)
    assert raised.value.remedy


def test_a_newer_journal_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / JOURNAL) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(Exception, match="newer comfy-cpu"):
        Journal(tmp_path)


def test_time_adds_up_over_sessions(tmp_path: Path) -> None:
    now = [100.0]
    for _ in range(2):
        with Journal(tmp_path, clock=lambda: now[0]) as journal:
            journal.begin(SETTINGS)
            journal.add(inputs("a", "b"))
            now[0] += 5
            place = journal.waiting(0, 1)[0].place
            with journal.transaction():
                journal.finish(place, Record("completed"))
        now[0] += 1000
    with Journal(tmp_path) as journal:
        assert journal.read("SELECT active_at FROM results ORDER BY place") == [(5.0,), (10.0,)]


def test_file_names_may_be_any_bytes(journal: Journal) -> None:
    journal.add([BatchInput("file", "a", {"1.image": "/x/\udcff.png"})])
    assert journal.waiting(0, 1)[0].files == {"1.image": "/x/\udcff.png"}
