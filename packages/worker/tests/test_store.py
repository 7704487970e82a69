from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from comfy_cpu_core.errors import ComfyCpuError
from comfy_cpu_worker.errors import JobConflict, JobUnknown, KeyReused, QueueFull
from comfy_cpu_worker.records import JobRecord, NewJob
from comfy_cpu_worker.store import CUT_OFF_TWICE, DATABASE, SECRETS_LOST, Store

NOW = 1_000_000.0


@pytest.fixture
def store(tmp_path: Path):
    store = Store(tmp_path)
    yield store
    store.close()


def new(name: str, *, key: str | None = None, digest: str = "d", secrets: bool = False, **values: float) -> NewJob:
    return NewJob(
        id=name,
        document=b'{"input":"%s"}' % name.encode(),
        has_secrets=secrets,
        ttl_s=values.get("ttl_s", 100.0),
        keep_s=values.get("keep_s", 60.0),
        idempotency_key=key,
        digest=digest,
    )


def add(store: Store, name: str, **values: object) -> tuple[JobRecord, bool]:
    return store.add(new(name, **values), NOW, 5, 1.0)  # type: ignore[arg-type]


def run(store: Store, state: str = "COMPLETED", *, output: bytes | None = b"{}", now: float = NOW) -> JobRecord:
    """Start the next job and end it."""
    started = store.start_next()
    assert started is not None
    record = JobRecord(
        **{
            **vars(started.record),
            "state": state,
            "output": output,
            "finished_at": now,
            "delay_ms": 3,
            "execution_ms": 7,
        }
    )
    assert store.finish(record)
    return store.get(record.id)


def test_jobs_are_taken_in_the_order_in_which_they_came(store: Store) -> None:
    for name in "abc":
        add(store, name)
    taken = [store.start_next() for _ in range(4)]
    assert [started.record.id if started else None for started in taken] == ["a", "b", "c", None]
    assert taken[0] is not None
    assert taken[0].document == b'{"input":"a"}'
    assert (taken[0].record.state, taken[0].record.attempts) == ("IN_PROGRESS", 1)


def test_a_finished_job_has_its_output_and_its_times(store: Store) -> None:
    add(store, "a")
    record = run(store, output=b'{"images":[]}')
    assert (record.state, record.output, record.error) == ("COMPLETED", b'{"images":[]}', None)
    assert (record.delay_ms, record.execution_ms, record.finished_at) == (3, 7, NOW)
    assert store.get("a", output=False).output is None


def test_the_queue_is_bounded(store: Store) -> None:
    for name in "abcde":
        add(store, name)
    with pytest.raises(QueueFull, match="5 jobs wait") as caught:
        add(store, "f")
    assert caught.value.retry_after_s == 1.0
    store.start_next()
    assert add(store, "f")[1]


def test_a_key_makes_two_submissions_one_job(store: Store) -> None:
    assert add(store, "a", key="k") == (store.get("a"), True)
    assert add(store, "b", key="k") == (store.get("a"), False)
    with pytest.raises(KeyReused):
        add(store, "c", key="k", digest="another")
    with pytest.raises(JobUnknown):
        store.get("b")


def test_a_key_finds_its_job_in_a_full_queue_too(store: Store) -> None:
    for name in "abcde":
        add(store, name, key=name)
    assert add(store, "f", key="a")[0].id == "a"


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    first = Store(tmp_path)
    add(first, "done", key="k")
    run(first, output=b"[1]")
    add(first, "waiting")
    first.close()
    second = Store(tmp_path)
    assert second.get("done").output == b"[1]"
    assert add(second, "again", key="k")[0].id == "done"
    assert second.recover(NOW).waiting == {"waiting": NOW}
    second.close()


def test_a_job_that_was_cut_off_runs_again_once(tmp_path: Path) -> None:
    for attempt in (1, 2):
        store = Store(tmp_path)
        if attempt == 1:
            add(store, "cut")
            add(store, "other")
        recovered = store.recover(NOW)
        assert recovered.cut_off == (["cut"] if attempt == 2 else [])
        started = store.start_next()
        assert started is not None
        assert (started.record.id, started.record.attempts) == ("cut", attempt)  # in its old place
        assert started.record.cut_off == (attempt == 2)
        store.close()
    store = Store(tmp_path)
    recovered = store.recover(NOW)
    assert recovered.failed == {"cut": CUT_OFF_TWICE}
    assert (store.get("cut").state, store.get("cut").error) == ("FAILED", CUT_OFF_TWICE)
    assert list(recovered.waiting) == ["other"]
    store.close()


def test_a_job_that_was_handed_back_does_not_count_as_cut_off(tmp_path: Path) -> None:
    store = Store(tmp_path)
    add(store, "a")
    store.start_next()
    store.hand_back("a")
    store.close()
    store = Store(tmp_path)
    assert store.recover(NOW).cut_off == []
    started = store.start_next()
    assert started is not None
    assert (started.record.attempts, started.record.cut_off) == (2, False)
    store.close()


def test_a_job_with_secrets_does_not_survive_and_gives_its_key_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    add(store, "ran", secrets=True)
    store.start_next()
    add(store, "waited", secrets=True, key="k")
    store.close()
    store = Store(tmp_path)
    recovered = store.recover(NOW)
    assert recovered.failed == {"ran": SECRETS_LOST, "waited": SECRETS_LOST}
    assert (recovered.waiting, recovered.cut_off) == ({}, [])
    assert store.get("waited").error == SECRETS_LOST
    assert add(store, "again", key="k")[1]
    store.close()


@pytest.mark.parametrize("state", ["FAILED", "TIMED_OUT"])
def test_retry_puts_a_job_at_the_end_of_the_queue(store: Store, state: str) -> None:
    add(store, "a", ttl_s=50)
    run(store, state)
    add(store, "b")
    record = store.retry("a", NOW + 10, 5, 1.0)
    assert (record.state, record.error, record.finished_at, record.output) == ("IN_QUEUE", None, None, None)
    assert (record.queued_at, record.expires_at) == (NOW + 10, NOW + 60)
    assert store.start_next().record.id == "b"  # type: ignore[union-attr]
    assert run(store, output=b"[2]").output == b"[2]"
    assert store.get("a").attempts == 2


@pytest.mark.parametrize("state", ["COMPLETED", "CANCELLED"])
def test_retry_is_for_failures_only(store: Store, state: str) -> None:
    add(store, "a")
    run(store, state)
    with pytest.raises(JobConflict, match=f"a is {state}"):
        store.retry("a", NOW, 5, 1.0)
    with pytest.raises(JobUnknown):
        store.retry("b", NOW, 5, 1.0)


def test_retry_respects_the_bound(store: Store) -> None:
    add(store, "failed")
    run(store, "FAILED")
    for name in "abcde":
        add(store, name)
    with pytest.raises(QueueFull):
        store.retry("failed", NOW, 5, 1.0)
    assert store.get("failed").state == "FAILED"


def test_cancel(store: Store) -> None:
    for name in "ab":
        add(store, name)
    assert store.cancel("b", "why", NOW) == "IN_QUEUE"
    started = store.start_next()
    assert started is not None
    assert store.cancel("a", "why", NOW) == "IN_PROGRESS"
    assert not store.finish(started.record)  # the cancellation counts
    assert store.cancel("a", "another", NOW) == "CANCELLED"
    assert [(store.get(name).state, store.get(name).error) for name in "ab"] == [("CANCELLED", "why")] * 2
    assert store.start_next() is None


def test_purge_leaves_what_runs(store: Store) -> None:
    for name in "abc":
        add(store, name)
    store.start_next()
    assert store.purge("purged", NOW) == ["b", "c"]
    assert store.counts() == {"IN_PROGRESS": 1, "CANCELLED": 2}


def test_jobs_expire_while_they_wait(store: Store) -> None:
    add(store, "short", ttl_s=1)
    add(store, "long")
    assert store.expire(NOW + 0.9) == []
    assert store.expire(NOW + 1) == ["short"]
    assert store.get("short").state == "TIMED_OUT"
    assert "policy.ttl" in (store.get("short").error or "")
    assert store.start_next().record.id == "long"  # type: ignore[union-attr]


def test_results_are_forgotten_after_their_time(store: Store) -> None:
    add(store, "a", keep_s=10)
    add(store, "b", keep_s=20)
    run(store)
    run(store)
    add(store, "waits", keep_s=0)
    assert store.sweep(NOW + 9, 10**9) == []
    assert store.sweep(NOW + 10, 10**9) == ["a"]
    with pytest.raises(JobUnknown):
        store.get("a")
    assert store.counts() == {"COMPLETED": 1, "IN_QUEUE": 1}


def test_the_oldest_results_go_where_they_take_too_much(store: Store) -> None:
    for number, name in enumerate("abc"):
        add(store, name)
        run(store, output=b"x" * 1000, now=NOW + number)
    assert store.sweep(NOW + 3, 2500) == ["a"]
    assert store.sweep(NOW + 3, 0) == ["b"]  # the last one stays


def test_the_file_shrinks_again(store: Store, tmp_path: Path) -> None:
    for name in "abc":
        add(store, name)
        run(store, output=b"x" * 5_000_000)
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    store.sweep(NOW + 1000, 10**9)
    store.close()
    assert size > 15_000_000
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 100_000


def test_documents_of_completed_jobs_are_not_kept(store: Store, tmp_path: Path) -> None:
    add(store, "a")
    run(store)
    add(store, "b")
    run(store, "FAILED")
    store.close()
    with sqlite3.connect(tmp_path / DATABASE) as database:
        assert database.execute("SELECT id FROM inputs").fetchall() == [("b",)]
    database.close()


def test_only_the_owner_can_read_it(store: Store, tmp_path: Path) -> None:
    add(store, "a")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert set(modes) >= {DATABASE, f"{DATABASE}-wal"}
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 500, b"SQLite format 3\x00" + b"\xff" * 8000], ids=["other", "damaged"]
)
def test_an_unreadable_database_is_set_aside(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / DATABASE).write_bytes(content)
    store = Store(tmp_path)
    add(store, "a")
    assert store.get("a").state == "IN_QUEUE"
    store.close()
    assert (tmp_path / f"{DATABASE}.unreadable").read_bytes() == content
    assert "cannot be read" in caplog.text
    assert "a new one begins" in caplog.text


def test_a_damaged_page_is_noticed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(5):
        store.add(new(f"job-{number}" * 200), NOW, 50, 1.0)
    store.close()
    file = tmp_path / DATABASE
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    file.write_bytes(content)
    store = Store(tmp_path)
    assert store.counts() == {}
    store.close()


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / DATABASE) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(ComfyCpuError, match="newer comfy-cpu"):
        Store(tmp_path)
    assert (tmp_path / DATABASE).exists()
