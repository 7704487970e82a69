from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_runner import FakeBackend, FakeRunner, job

from comfy_cpu_worker.errors import JobConflict, JobUnknown, KeyReused, QueueFull, ShuttingDown, StorageFailed
from comfy_cpu_worker.queue import JobQueue, JobView, QueueLimits
from comfy_cpu_worker.settings import WorkerSettings
from comfy_cpu_worker.shelf import Shelf
from comfy_cpu_worker.store import CUT_OFF_TWICE, SECRETS_LOST, Store
from comfy_cpu_worker.submission import Submission, parse_submission


def submission(document: Mapping[str, Any], **options: Any) -> Submission:
    return parse_submission(document, WorkerSettings(), Shelf(None), **{"key": None, "sync": False, **options})


class Desk:
    """A queue with a fake runner."""

    def __init__(self, limits: QueueLimits, refresh: bool) -> None:
        self.runner = FakeRunner()
        self.backend = FakeBackend()
        self.ended: list[tuple[str, Any]] = []
        self.queue = JobQueue(
            self.runner,
            self.backend,
            limits,
            refresh=refresh,
            on_end=lambda record, document: self.ended.append((record.state, document)),
        )

    async def submit(self, document: Mapping[str, Any] | None = None, **options: Any) -> str:
        return (await self.queue.submit(submission(job() if document is None else document, **options))).record.id

    async def result(self, job_id: str) -> JobView:
        view = await self.queue.wait(job_id, 10)
        assert view.record.ended
        return view

    async def running(self, job_id: str) -> None:
        while job_id not in [ran for ran, _ in self.runner.ran]:
            await asyncio.sleep(0.001)


@asynccontextmanager
async def desk(state: Path, *, start: bool = True, refresh: bool = False, **limits: Any) -> AsyncIterator[Desk]:
    found = Desk(QueueLimits(**limits), refresh)
    await found.queue.open(state)
    if start:
        found.queue.start()
    try:
        yield found
    finally:
        await found.queue.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(limited())


def in_loop(test: Callable[[Path], Awaitable[None]]) -> Callable[[Path], None]:
    def wrapped(tmp_path: Path) -> None:
        run(lambda: test(tmp_path))

    wrapped.__name__ = test.__name__
    return wrapped


@in_loop
async def test_a_job_from_queue_to_result(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        job_id = await d.submit(job(echo=7))
        view = await d.result(job_id)
        assert view.record.state == "COMPLETED"
        assert json.loads(view.record.output or b"") == {"images": [], "echo": 7}
        assert view.record.delay_ms is not None
        assert view.record.execution_ms is not None
        assert view.record.attempts == 1
        assert d.ended == [("COMPLETED", job(echo=7))]


@in_loop
async def test_one_job_at_a_time_in_order(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        first = await d.submit(job(hold=True))
        others = [await d.submit(job(echo=number)) for number in range(3)]
        await d.running(first)
        assert await d.queue.counts() == {"IN_PROGRESS": 1, "IN_QUEUE": 3}
        d.runner.hold.set()
        for job_id in others:
            await d.result(job_id)
        assert [job_id for job_id, _ in d.runner.ran] == [first, *others]


@in_loop
async def test_a_failed_job_has_error_and_output(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        record = (await d.result(await d.submit(job(state="FAILED", error="blocked", output={"a": 1})))).record
        assert (record.state, record.error, record.output) == ("FAILED", "blocked", b'{"a":1}')


@in_loop
async def test_a_runner_that_raises_fails_its_job_and_not_the_next(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        broken = await d.submit(job(**{"raise": "secret detail"}))
        fine = await d.submit()
        record = (await d.result(broken)).record
        assert record.state == "FAILED"
        assert "RuntimeError" in (record.error or "")
        assert "secret detail" not in (record.error or "")
        assert (await d.result(fine)).record.state == "COMPLETED"


@in_loop
async def test_an_output_that_json_cannot_hold_fails_its_job(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        document = job(echo="nan")
        d.runner.run = _give_nan  # type: ignore[method-assign]
        record = (await d.result(await d.submit(document))).record
        assert record.state == "FAILED"
        assert "no JSON" in (record.error or "")


async def _give_nan(job_id: str, document: Mapping[str, Any], *, on_progress: Any) -> Any:
    from comfy_cpu_worker.outcome import JobOutcome

    return JobOutcome("COMPLETED", {"value": float("nan")})


@in_loop
async def test_the_queue_is_bounded_and_says_when_to_come_back(tmp_path: Path) -> None:
    async with desk(tmp_path, waiting=2) as d:
        running = await d.submit(job(hold=True))
        await d.running(running)
        for _ in range(2):
            await d.submit()
        with pytest.raises(QueueFull) as caught:
            await d.submit()
        assert 1 <= caught.value.retry_after_s <= 60
        assert d.queue.stats.refused == {"queue_full": 1}


@in_loop
async def test_a_key_is_one_job(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        first = await d.submit(job(idempotency_key="k", echo=1))
        assert await d.submit(job(idempotency_key="k", echo=1)) == first
        assert await d.submit(job(echo=1), key="k") == first  # in the header it is the same
        with pytest.raises(KeyReused):
            await d.submit(job(idempotency_key="k", echo=2))
        await d.result(first)
        assert await d.submit(job(echo=1), key="k") == first
        assert len(d.runner.ran) == 1


@in_loop
async def test_concurrent_submissions_with_one_key_are_one_job(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        ids = await asyncio.gather(*[d.submit(job(idempotency_key="k")) for _ in range(20)])
        assert len(set(ids)) == 1
        await d.result(ids[0])
        assert len(d.runner.ran) == 1


@in_loop
async def test_cancel_while_it_waits(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        running = await d.submit(job(hold=True))
        waiting = await d.submit()
        view = await d.queue.cancel(waiting)
        assert (view.record.state, view.record.error) == ("CANCELLED", "the job was cancelled")
        d.runner.hold.set()
        await d.result(running)
        assert [job_id for job_id, _ in d.runner.ran] == [running]


@in_loop
async def test_cancel_while_it_runs(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        running = await d.submit(job(hold=True))
        await d.running(running)
        waiting = asyncio.create_task(d.result(running))
        assert (await d.queue.cancel(running)).record.state == "CANCELLED"
        assert (await waiting).record.state == "CANCELLED"
        assert (await d.result(await d.submit())).record.state == "COMPLETED"
        await d.queue.drain(5)
        assert d.runner.interrupted == [running]
        assert +d.queue.stats.ended == {"CANCELLED": 1, "COMPLETED": 1}


@in_loop
async def test_cancel_counts_even_if_the_job_completes_all_the_same(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        running = await d.submit(job(hold=True, after_cancel=True))
        await d.running(running)
        await d.queue.cancel(running)
        await d.result(await d.submit())
        assert (await d.queue.get(running)).record.state == "CANCELLED"


@in_loop
async def test_cancel_after_the_end_changes_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        job_id = await d.submit()
        await d.result(job_id)
        assert (await d.queue.cancel(job_id)).record.state == "COMPLETED"
        with pytest.raises(JobUnknown):
            await d.queue.cancel("nobody")


@in_loop
async def test_retry(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        job_id = await d.submit(job(state="FAILED", error="e"))
        await d.result(job_id)
        assert (await d.queue.retry(job_id)).record.state == "IN_QUEUE"
        record = (await d.result(job_id)).record
        assert (record.state, record.attempts, record.cut_off) == ("FAILED", 2, False)
        completed = await d.submit()
        await d.result(completed)
        with pytest.raises(JobConflict):
            await d.queue.retry(completed)
        assert d.queue.stats.retried == 1


@in_loop
async def test_two_retries_at_once_are_one(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        job_id = await d.submit(job(state="FAILED", error="e"))
        await d.result(job_id)
        await d.submit(job(hold=True))
        answers = await asyncio.gather(d.queue.retry(job_id), d.queue.retry(job_id), return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in answers) == ["JobConflict", "JobView"]
        d.runner.hold.set()
        assert (await d.result(job_id)).record.attempts == 2


@in_loop
async def test_retry_has_the_secrets_as_long_as_they_are_kept(tmp_path: Path) -> None:
    document = job(state="FAILED", error="e")
    document["input"]["comfy_org_api_key"] = "s3cret"
    async with desk(tmp_path) as d:
        job_id = await d.submit(document)
        await d.result(job_id)
        await d.queue.retry(job_id)
        await d.result(job_id)
        assert [ran["input"]["comfy_org_api_key"] for _, ran in d.runner.ran] == ["s3cret"] * 2
    async with desk(tmp_path) as d:
        with pytest.raises(JobConflict, match="secrets are no longer kept"):
            await d.queue.retry(job_id)


@in_loop
async def test_secrets_never_reach_the_disk(tmp_path: Path) -> None:
    document = job(hold=True)
    document["input"]["comfy_org_api_key"] = "s3cret-value"
    document["s3Config"] = {
        "accessId": "the-access-id", "accessSecret": "the-access-secret",
        "bucketName": "bucket", "endpointUrl": "https://s3.example",
    }  # fmt: skip
    async with desk(tmp_path) as d:
        await d.running(await d.submit(document))
        content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert b'"hold"' in content
        for secret in (b"s3cret-value", b"the-access-id", b"the-access-secret"):
            assert secret not in content
        assert d.runner.ran[0][1] == document


@in_loop
async def test_a_job_whose_secrets_died_with_the_worker_fails_and_says_so(tmp_path: Path) -> None:
    document = job(idempotency_key="k")
    document["input"]["comfy_org_api_key"] = "s3cret"
    async with desk(tmp_path, start=False) as d:
        job_id = await d.submit(document)
    async with desk(tmp_path) as d:
        record = (await d.queue.get(job_id)).record
        assert (record.state, record.error) == ("FAILED", SECRETS_LOST)
        again = await d.submit(document)  # its key is free again
        assert (await d.result(again)).record.state == "COMPLETED"


@in_loop
async def test_purge(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        running = await d.submit(job(hold=True))
        await d.running(running)
        waiting = [await d.submit() for _ in range(3)]
        assert await d.queue.purge() == 3
        for job_id in waiting:
            assert (await d.result(job_id)).record.state == "CANCELLED"
        d.runner.hold.set()
        assert (await d.result(running)).record.state == "COMPLETED"


@in_loop
async def test_a_job_that_waits_too_long_times_out(tmp_path: Path) -> None:
    async with desk(tmp_path, keep_sync_s=0.02, keep_run_s=60) as d:  # the sweeper looks often
        await d.submit(job(hold=True))
        record = (await d.result(await d.submit(job(policy={"ttl": 30})))).record
        assert record.state == "TIMED_OUT"
        assert "while it waited" in (record.error or "")


@in_loop
async def test_a_job_that_runs_beyond_its_ttl_times_out(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        job_id = await d.submit(job(policy={"ttl": 50}, hold=True))
        record = (await d.result(job_id)).record
        assert record.state == "TIMED_OUT"
        assert "while it ran" in (record.error or "")
        assert d.runner.interrupted == [job_id]


@in_loop
async def test_results_are_forgotten(tmp_path: Path) -> None:
    async with desk(tmp_path, keep_sync_s=0.05) as d:
        job_id = await d.submit(sync=True)
        assert job_id.startswith("sync-")
        await d.result(job_id)
        while True:
            try:
                await d.queue.get(job_id)
            except JobUnknown:
                return
            await asyncio.sleep(0.01)


@in_loop
async def test_progress_is_followed_and_taken(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        job_id = await d.submit(job(steps=3, hold=True))
        states, steps = [], []
        async for view, documents, mark in d.queue.follow(job_id):
            states.append(view.record.state)
            steps += [document["step"] for document in documents]
            if mark == 3:
                d.runner.hold.set()
        assert states[-1] == "COMPLETED"
        assert steps == [1, 2, 3]
        view, taken = await d.queue.take_progress(job_id)
        assert (view.record.state, [document["step"] for document in taken]) == ("COMPLETED", [1, 2, 3])
        assert (await d.queue.take_progress(job_id))[1] == []
        late = [documents async for _, documents, _ in d.queue.follow(job_id, after=2)]
        assert [document["step"] for documents in late for document in documents] == [3]


@in_loop
async def test_a_running_job_shows_its_last_progress(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        job_id = await d.submit(job(steps=2, hold=True))
        async for view, _, mark in d.queue.follow(job_id):
            if mark == 2:
                assert view.progress == {"kind": "step", "step": 2}
                assert view.record.delay_ms is not None
                break


@in_loop
async def test_waiting_ends_at_its_time(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        job_id = await d.submit(job(hold=True))
        assert (await d.queue.wait(job_id, 0.02)).record.state in {"IN_QUEUE", "IN_PROGRESS"}
        with pytest.raises(JobUnknown):
            await d.queue.wait("nobody", 1)


@in_loop
async def test_the_back_end_is_restarted_behind_a_job_that_asks_for_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.result(await d.submit(job(refresh=True)))
        await d.result(await d.submit())
        assert d.backend.restarts == 1


@in_loop
async def test_refresh_worker_restarts_it_behind_every_job(tmp_path: Path) -> None:
    async with desk(tmp_path, refresh=True) as d:
        for _ in range(3):
            await d.result(await d.submit())
        await d.queue.drain(5)
        assert d.backend.restarts == 3


@in_loop
async def test_draining_lets_the_job_end_and_takes_no_other(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        running = await d.submit(job(hold=True))
        await d.running(running)
        waiting = await d.submit(job(echo=2))
        draining = asyncio.create_task(d.queue.drain(30))
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDown):
            await d.submit()
        with pytest.raises(ShuttingDown):
            await d.queue.retry(running)
        d.runner.hold.set()
        await draining
        assert (await d.queue.get(running)).record.state == "COMPLETED"
        assert (await d.queue.wait(waiting, 30)).record.state == "IN_QUEUE"  # nobody waits for the next worker
    async with desk(tmp_path) as d:
        assert (await d.result(waiting)).record.state == "COMPLETED"


@in_loop
async def test_after_the_grace_period_the_job_is_handed_back(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        running = await d.submit(job(hold=True))
        await d.running(running)
        await d.queue.drain(0.02)
        assert d.runner.interrupted == [running]
        assert (await d.queue.get(running)).record.state == "IN_QUEUE"
    async with desk(tmp_path) as d:
        d.runner.hold.set()
        record = (await d.result(running)).record
        assert (record.state, record.attempts, record.cut_off) == ("COMPLETED", 2, False)


@in_loop
async def test_hurry_ends_the_grace_period(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        running = await d.submit(job(hold=True))
        await d.running(running)
        draining = asyncio.create_task(d.queue.drain(1000))
        await asyncio.sleep(0)
        d.queue.hurry()
        await draining
        assert (await d.queue.get(running)).record.state == "IN_QUEUE"


@in_loop
async def test_jobs_of_an_earlier_worker_can_be_waited_for(tmp_path: Path) -> None:
    async with desk(tmp_path, start=False) as d:
        job_id = await d.submit(job(echo=3))
    async with desk(tmp_path, start=False) as d:
        waiting = asyncio.create_task(d.result(job_id))
        await asyncio.sleep(0)
        d.queue.start()
        assert (await waiting).record.state == "COMPLETED"


@in_loop
async def test_what_was_cut_off_twice_fails(tmp_path: Path) -> None:
    async with desk(tmp_path, start=False) as d:
        job_id = await d.submit()
    for _ in range(2):
        store = Store(tmp_path)  # as a worker that is killed leaves it
        store.recover(0)
        assert store.start_next() is not None
        store.close()
    async with desk(tmp_path) as d:
        record = (await d.queue.get(job_id)).record
        assert (record.state, record.error) == ("FAILED", CUT_OFF_TWICE)
        assert d.queue.stats.ended["FAILED"] == 1


@in_loop
async def test_a_result_that_cannot_be_written_is_answered_from_memory_and_written_later(tmp_path: Path) -> None:
    async with desk(tmp_path, keep_sync_s=0.05, keep_run_s=60) as d:
        real, full = Store.finish, True

        def finish(store: Store, record: Any) -> bool:
            if full:
                raise StorageFailed("the state directory is full")
            return real(store, record)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "finish", finish)
            job_id = await d.submit(job(echo=1))
            record = (await d.result(job_id)).record
            assert record.state == "COMPLETED"
            assert json.loads(record.output or b"")["echo"] == 1
            full = False
            while (await d.queue.counts()) != {"COMPLETED": 1}:
                await asyncio.sleep(0.01)
        assert (await d.queue.get(job_id)).record == record


@in_loop
async def test_no_job_is_started_while_that_cannot_be_written(tmp_path: Path) -> None:
    async with desk(tmp_path, start=False) as d:
        real, full = Store.start_next, True

        def start_next(store: Store) -> Any:
            if full:
                raise StorageFailed("the state directory is full")
            return real(store)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "start_next", start_next)
            d.queue.start()
            job_id = await d.submit()
            while not d.queue.problem:
                await asyncio.sleep(0.01)
            assert d.runner.ran == []
            full = False
            assert (await d.result(job_id)).record.state == "COMPLETED"
            assert d.queue.problem == ""
