"""The engine's process under real faults: whatever happens to it, the job says so and the next job succeeds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faulty_nodes import MODEL_FILE, faulty_environment, one_node

from comfy_cpu_client import Client, FileInput
from comfy_cpu_core.errors import TargetError
from comfy_cpu_core.resources import THREADS_VARIABLE
from comfy_cpu_core.results import Progress, Result
from comfy_cpu_worker.backends.engine import EngineBackend, EngineOptions
from comfy_cpu_worker.backends.warmup import warm_up_picture
from comfy_cpu_worker.backoff import Backoff
from comfy_cpu_worker.work import Work

TEXT = one_node("TestText")


@pytest.fixture
def environ(clean_environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return {**clean_environment, **faulty_environment(tmp_path)}


@pytest.fixture
def options(tmp_path: Path) -> EngineOptions:
    (tmp_path / "models").mkdir()
    return EngineOptions(
        models=tmp_path / "models",
        workdir=tmp_path / "work",
        prefetch=False,
        start_s=60,
        deadline_grace_s=0.2,
        cancel_grace_s=0.5,
        heartbeat_s=0.05,
        hang_s=60,
        wait_s=60,
    )


Script = Callable[[EngineBackend], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture
def play(environ: dict[str, str], options: EngineOptions) -> Play:
    """Run a script with a back end that has started; afterwards nothing of it may be left."""

    def play(script: Script, *, environ: dict[str, str] = environ, workflows: Any = None, **changed: Any) -> None:
        chosen = replace(options, **changed)

        async def main() -> None:
            backend = EngineBackend(
                chosen, environ=environ, workflows=workflows, backoff=Backoff(first_s=0.01, longest_s=0.05)
            )
            try:
                await backend.start()
                await script(backend)
            finally:
                await backend.close()
            assert backend.health().state == "closed"

        before = set(Path("/proc/self/fd").iterdir()), children()
        asyncio.run(main())
        assert set(Path("/proc/self/fd").iterdir()) <= before[0]
        assert children() <= before[1]
        assert chosen.workdir is not None
        assert list(chosen.workdir.iterdir()) == []

    return play


def children() -> set[int]:
    """The child processes of this one, zombies too."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                if int(parent) == os.getpid():
                    found.add(int(entry.name))
    return found


def ignore(event: Progress) -> None:
    pass


async def run(backend: EngineBackend, workflow: Any, **more: Any) -> Result:
    return await backend.run(Work("job", workflow, **more), on_event=ignore)


async def succeeds(backend: EngineBackend) -> None:
    result = await run(backend, TEXT)
    assert result.status == "completed", result.errors
    assert result.outputs[0].text == "done"
    assert backend.health().ready


async def begin(backend: EngineBackend, workflow: Any, **more: Any) -> asyncio.Task[Result]:
    """Start a job and wait until its node runs."""
    started = asyncio.Event()

    def note(event: Progress) -> None:
        if event.kind == "started":
            started.set()

    task = asyncio.create_task(backend.run(Work("job", workflow, **more), on_event=note))
    await asyncio.wait_for(started.wait(), 60)
    assert backend.health().state == "busy"
    return task


async def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def test_a_job_gives_what_the_embedded_engine_gives(play: Play, options: EngineOptions) -> None:
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "other.png"}},
        "3": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], "upscale_method": "bilinear", "width": 32, "height": 32, "crop": "disabled"}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "a/b"}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "c"}},
    }  # fmt: skip
    given: dict[str, Any] = {"files": {"photo.png": warm_up_picture()}}
    inputs = {"2.image": FileInput("x.png", warm_up_picture())}
    events: list[Progress] = []

    async def script(backend: EngineBackend) -> None:
        result = await backend.run(
            Work("job", workflow, inputs=inputs, values={"3.width": 16}, **given), on_event=events.append
        )
        with Client("embedded", models=options.models) as client:
            expected = await asyncio.to_thread(client.run, workflow, inputs=inputs, set={"3.width": 16}, **given)
        assert result.status == "completed"
        assert result.outputs == expected.outputs
        assert result.changes == expected.changes
        assert [(t.node_id, t.class_type) for t in result.timings] == [
            (t.node_id, t.class_type) for t in expected.timings
        ]
        assert [event.node_id for event in events if event.kind == "finished"] == [t.node_id for t in expected.timings]

    play(script)


def test_progress_comes_while_a_job_runs(play: Play) -> None:
    async def script(backend: EngineBackend) -> None:
        events: list[Progress] = []
        work = Work("job", one_node("TestSteps", steps=1000, seconds=0.0001))
        assert (await backend.run(work, on_event=events.append)).ok
        kinds = [event.kind for event in events]
        assert (kinds[0], kinds[-1]) == ("started", "finished")
        steps = [event.value for event in events if event.kind == "step"]
        assert steps == sorted(steps)
        assert steps[-1] == 1000
        assert len(steps) < 100  # not each of them

    play(script)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("SIGKILL", "the engine's process was killed by SIGKILL while node 1 (TestCrash) ran"),
        ("SIGSEGV", "the engine's process was killed by SIGSEGV while node 1 (TestCrash) ran"),
        ("SIGABRT", "the engine's process was killed by SIGABRT while node 1 (TestCrash) ran"),
        ("0", "the engine's process ended with exit code 0 while node 1 (TestCrash) ran"),
        ("7", "the engine's process ended with exit code 7 while node 1 (TestCrash) ran"),
    ],
)
def test_a_process_that_dies_in_the_middle_of_a_job(play: Play, how: str, message: str) -> None:
    async def script(backend: EngineBackend) -> None:
        before = backend.health()
        result = await run(backend, one_node("TestCrash", how=how))
        assert result.status == "failed"
        (failure,) = result.errors
        assert (failure.code, failure.message) == ("worker_crashed", message)
        assert (failure.node_id, failure.class_type) == ("1", "TestCrash")
        assert failure.remedy
        assert backend.health().state == "restarting"
        await succeeds(backend)
        after = backend.health()
        assert (after.restarts, after.state, after.problem) == (1, "ready", "")
        assert after.pid != before.pid

    play(script)


def test_a_process_that_hangs_in_the_middle_of_a_job(play: Play) -> None:
    async def script(backend: EngineBackend) -> None:
        result = await run(backend, one_node("TestCrash", how="SIGSTOP"))
        (failure,) = result.errors
        assert (failure.code, failure.node_id) == ("worker_hung", "1")
        assert "no sign of life for 1 s" in failure.message
        await succeeds(backend)

    play(script, hang_s=1.0)


def test_a_process_that_hangs_or_dies_between_jobs_is_replaced(play: Play) -> None:
    async def script(backend: EngineBackend) -> None:
        for number, sent in enumerate((signal.SIGSTOP, signal.SIGKILL), start=1):
            pid = backend.health().pid
            assert pid is not None
            os.kill(pid, sent)
            await until(lambda: backend.health().restarts == number, "it was not replaced")  # noqa: B023
        await succeeds(backend)

    play(script, hang_s=1.0)


@pytest.mark.parametrize("text", ["Traceback (most recent call last):", "CCF1\xff\xff\xff\xff", "CCF1\0\0\0\2[]"])
def test_a_process_that_sends_nonsense(play: Play, text: str) -> None:
    async def script(backend: EngineBackend) -> None:
        result = await run(backend, one_node("TestScribble", text=text))
        (failure,) = result.errors
        assert failure.code == "worker_crashed"
        assert failure.message.startswith("the engine's process sent nonsense: ")
        await succeeds(backend)

    play(script)


def test_a_memory_limit_ends_the_node_and_not_the_process(play: Play) -> None:
    async def script(backend: EngineBackend) -> None:
        pid = backend.health().pid
        result = await run(backend, one_node("TestHog", megabytes=4000))
        (failure,) = result.errors
        assert (failure.code, failure.node_id, failure.message) == ("memory", "1", "not enough memory")
        assert failure.remedy
        await succeeds(backend)
        assert backend.health().pid == pid

    play(script, memory_bytes=1500 * 2**20)


@pytest.fixture
def memory_cgroup() -> Iterator[Callable[[int], list[Path]]]:
    """Make a memory cgroup with a limit in bytes; gives the files that a process writes its id into to join it."""
    made: list[Path] = []

    def make(limit: int) -> list[Path]:
        for base, files in (
            (Path("/sys/fs/cgroup/memory"), ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")),
            (Path("/sys/fs/cgroup"), ("memory.max", "memory.swap.max")),
        ):
            group = base / f"comfy-cpu-test-{os.getpid()}"
            with contextlib.suppress(OSError):
                group.mkdir()
                made.append(group)
                (group / files[0]).write_text(str(limit))
                with contextlib.suppress(OSError):  # no swap is accounted for
                    (group / files[1]).write_text(str(limit) if base.name == "memory" else "0")
                return [group / "cgroup.procs"]
        if os.environ.get("COMFY_CPU_REQUIRE_CGROUPS") == "1":
            pytest.fail("memory cgroups cannot be made here, and COMFY_CPU_REQUIRE_CGROUPS is set")
        pytest.skip("memory cgroups cannot be made here")

    yield make
    for group in made:
        deadline = time.monotonic() + 20
        while True:
            try:
                group.rmdir()
            except OSError:
                assert time.monotonic() < deadline, f"{group} is still in use"
                time.sleep(0.05)
            else:
                break


DRIVER = """
    import asyncio, json, os, sys
    from pathlib import Path

    sys.path.insert(0, sys.argv[2])
    from faulty_nodes import one_node
    from comfy_cpu_worker.backends.engine import EngineBackend, EngineOptions
    from comfy_cpu_worker.work import Work

    def say(**what):
        print(json.dumps(what), flush=True)

    async def main():
        backend = EngineBackend(EngineOptions(workdir=Path(sys.argv[1]), prefetch=False), environ=os.environ)
        await backend.start()
        say(pid=backend.health().pid)
        for class_type, values in json.loads(sys.argv[3]):
            work = Work("job", one_node(class_type, **values))
            result = await backend.run(work, on_event=lambda event: say(event=event.kind))
            say(result=result.to_json())
        await backend.close()

    asyncio.run(main())
"""


def drive(environ: dict[str, str], workdir: Path, *jobs: Any, join: list[Path] | None = None) -> subprocess.Popen[str]:
    """Run a back end in a process of its own, which writes what happens as JSON, a line each."""
    program = textwrap.dedent(DRIVER)
    for file in join or []:
        program = f"open({str(file)!r}, 'w').write('0')\n{program}"
    support = str(Path(__file__).parent.parent / "support")
    command = [sys.executable, "-c", program, str(workdir), support, json.dumps(jobs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)


def test_the_kernel_ends_a_process_for_want_of_memory(
    environ: dict[str, str], tmp_path: Path, memory_cgroup: Callable[[int], list[Path]]
) -> None:
    group = memory_cgroup(400 * 2**20)
    with drive(environ, tmp_path / "work", ["TestHog", {"megabytes": 2000}], ["TestText", {}], join=group) as driver:
        assert driver.stdout is not None
        lines = [json.loads(line) for line in driver.stdout]
    assert driver.returncode == 0
    hog, text = [line["result"] for line in lines if "result" in line]
    (failure,) = hog["errors"]
    assert failure["code"] == "memory"
    assert failure["message"] == (
        "the engine's process ran out of memory and was killed by SIGKILL while node 1 (TestHog) ran"
    )
    assert failure["remedy"]
    assert text["status"] == "completed"


def test_a_worker_that_is_killed_leaves_no_process_and_its_files_only_until_the_next_one(
    environ: dict[str, str], options: EngineOptions, play: Play
) -> None:
    assert options.workdir is not None
    with drive(environ, options.workdir, ["TestSleep", {"polite": False}]) as driver:
        assert driver.stdout is not None
        pid = json.loads(driver.stdout.readline())["pid"]
        assert json.loads(driver.stdout.readline()) == {"event": "started"}
        assert alive(pid)
        driver.kill()
    deadline = time.monotonic() + 20
    while alive(pid):
        assert time.monotonic() < deadline, "the process outlived its worker"
        time.sleep(0.01)
    assert len(list(options.workdir.iterdir())) == 1
    play(succeeds)


@pytest.mark.parametrize("polite", [True, False], ids=["polite", "deaf"])
def test_a_job_that_is_cancelled_while_it_runs(play: Play, polite: bool) -> None:
    async def script(backend: EngineBackend) -> None:
        pid = backend.health().pid
        task = await begin(backend, one_node("TestSleep", polite=polite))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await succeeds(backend)
        assert (backend.health().pid == pid) is polite

    play(script)


def test_a_job_that_is_cancelled_before_it_runs(play: Play) -> None:
    async def script(backend: EngineBackend) -> None:
        pid = backend.health().pid
        for _ in range(3):
            task = asyncio.create_task(run(backend, one_node("TestSleep")))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await succeeds(backend)
        assert backend.health().pid == pid

    play(script)


def test_whoever_cancels_twice_waits_no_longer(play: Play) -> None:
    async def script(backend: EngineBackend) -> None:
        task = await begin(backend, one_node("TestSleep", polite=False))
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await succeeds(backend)

    play(script, cancel_grace_s=60)


@pytest.mark.parametrize("polite", [True, False], ids=["polite", "deaf"])
def test_a_job_that_passes_its_deadline(play: Play, polite: bool) -> None:
    async def script(backend: EngineBackend) -> None:
        pid = backend.health().pid
        result = await run(backend, one_node("TestSleep", polite=polite), timeout_s=0.1)
        assert result.status == "timed_out"
        (failure,) = result.errors
        assert (failure.code, failure.node_id, failure.class_type) == ("deadline", "1", "TestSleep")
        assert "within 0.1 s" in failure.message
        assert result.execution_seconds > 0.05
        assert result.outputs == ()
        await succeeds(backend)
        assert (backend.health().pid == pid) is polite

    play(script, deadline_grace_s=30 if polite else 0.2)


def test_a_model_that_is_removed_and_put_back(play: Play, options: EngineOptions) -> None:
    assert options.models is not None
    model = options.models / MODEL_FILE
    model.parent.mkdir()

    async def script(backend: EngineBackend) -> None:
        for content in ("one", "two"):
            model.write_text(content)
            assert (await run(backend, one_node("TestModel"))).outputs[0].text == content
            model.unlink()
            result = await run(backend, one_node("TestModel"))
            (failure,) = result.errors
            assert failure.code == "model"
            assert MODEL_FILE in failure.message
            assert failure.remedy == f"put a file at {MODEL_FILE}"
        await succeeds(backend)

    play(script)


def test_a_run_that_may_write_no_more(play: Play) -> None:
    """The largest file that a process may write stands for the largest that fits on a disk."""

    async def script(backend: EngineBackend) -> None:
        pid = backend.health().pid
        assert pid is not None
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (2**20, 2**20))
        result = await run(backend, one_node("TestWrite", megabytes=5))
        (failure,) = result.errors
        assert (failure.code, failure.node_id) == ("disk", "1")
        assert failure.message.startswith("no space left to write to: ")
        assert failure.remedy
        result = await run(backend, TEXT, files={"large.bin": bytes(2 * 2**20)})
        assert [error.code for error in result.errors] == ["disk"]
        await succeeds(backend)
        assert backend.health().pid == pid

    play(script)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if os.getuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        if os.environ.get("COMFY_CPU_REQUIRE_ROOT") == "1":
            pytest.fail("a file system cannot be mounted here, and COMFY_CPU_REQUIRE_ROOT is set")
        pytest.skip("only root can mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_full(play: Play, small_disk: Path) -> None:
    async def script(backend: EngineBackend) -> None:
        pid = backend.health().pid
        result = await run(backend, one_node("TestWrite", megabytes=8))
        (failure,) = result.errors
        assert (failure.code, failure.node_id) == ("disk", "1")
        assert "No space left on device" in failure.message
        await succeeds(backend)
        result = await run(backend, TEXT, files={"large.bin": bytes(8 * 2**20)})
        assert [error.code for error in result.errors] == ["disk"]
        await succeeds(backend)
        assert backend.health().pid == pid

    play(script, workdir=small_disk / "work")


def test_a_workflow_that_does_not_validate(play: Play) -> None:
    async def script(backend: EngineBackend) -> None:
        workflow = {
            "1": {"class_type": "TestSleep", "inputs": {"seconds": "x"}},
            "2": {"class_type": "TestHog", "inputs": {"megabytes": "y"}},
        }
        result = await run(backend, workflow)
        assert result.status == "failed"
        assert [(e.code, e.node_id, e.class_type) for e in result.errors] == [
            ("invalid", "1", "TestSleep"),
            ("invalid", "2", "TestHog"),
        ]
        result = await run(backend, one_node("TestText"), values={"7.text": "x"})
        assert [error.code for error in result.errors] == ["input"]
        await succeeds(backend)

    play(script)


def test_a_node_that_raises_and_one_that_blocks(play: Play) -> None:
    async def script(backend: EngineBackend) -> None:
        failed = await run(backend, one_node("TestRaise", text="oops"))
        assert failed.status == "failed"
        assert failed.errors[0].message == "RuntimeError: oops"
        assert "Traceback" in failed.errors[0].details
        blocked = await run(backend, one_node("TestRaise", text="not this", block=True))
        assert blocked.status == "blocked"
        assert (blocked.errors[0].message, blocked.errors[0].node_id) == ("not this", "1")

    play(script)


def test_jobs_that_come_at_once_run_one_after_the_other(play: Play) -> None:
    async def script(backend: EngineBackend) -> None:
        results = await asyncio.gather(*(run(backend, one_node("TestText", text=str(i))) for i in range(5)))
        assert [result.outputs[0].text for result in results] == list("01234")

    play(script)


def test_a_listener_that_fails_does_not_fail_the_job(play: Play) -> None:
    async def script(backend: EngineBackend) -> None:
        def fail(event: Progress) -> None:
            raise ValueError("I do not like this event")

        assert (await backend.run(Work("job", TEXT), on_event=fail)).ok

    play(script)


def test_a_fresh_process_on_request(play: Play) -> None:
    async def script(backend: EngineBackend) -> None:
        pid = backend.health().pid
        grandchild = int((await run(backend, one_node("TestSpawn"))).outputs[0].text)
        assert alive(grandchild)
        await backend.restart()
        assert not alive(pid or 0)
        await until(lambda: not alive(grandchild), "what a node had started lives")
        await succeeds(backend)
        assert backend.health().pid != pid
        await backend.restart()
        await backend.restart()
        await succeeds(backend)

    play(script)


def test_the_process_gets_its_threads_and_no_secrets(play: Play, environ: dict[str, str]) -> None:
    names = ("COMFY_CPU_TOKEN", "RUNPOD_AI_API_KEY", "BUCKET_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN")
    secrets = dict.fromkeys(names, "hidden")

    async def script(backend: EngineBackend) -> None:
        seen = json.loads((await run(backend, one_node("TestEnvironment"))).outputs[0].text)
        assert seen["OMP_NUM_THREADS"] == "3"
        assert "hidden" not in seen.values()
        command = Path(f"/proc/{backend.health().pid}/cmdline").read_text()
        assert "hidden" not in command

    play(script, environ={**environ, **secrets, THREADS_VARIABLE: "3", "OMP_NUM_THREADS": "8"})


def test_a_process_that_says_why_it_cannot_begin(options: EngineOptions, environ: dict[str, str]) -> None:
    async def main() -> None:
        backend = EngineBackend(options, environ={**environ, THREADS_VARIABLE: "many"})
        with pytest.raises(TargetError) as caught:
            await backend.start()
        assert "ended with exit code 3 before it was ready" in str(caught.value)
        assert "COMFY_CPU_THREADS is 'many', which is not a number of threads" in str(caught.value)
        await backend.close()

    asyncio.run(main())
    assert options.workdir is not None
    assert list(options.workdir.iterdir()) == []


@pytest.fixture
def switch(environ: dict[str, str], tmp_path: Path) -> tuple[dict[str, str], Path]:
    """An environment in which a process does what stands in a file before it does anything else, and the file."""
    site, file = tmp_path / "switch", tmp_path / "switch.py"
    site.mkdir()
    file.touch()
    (site / "sitecustomize.py").write_text(f"exec(open({str(file)!r}).read())")
    return {**environ, "PYTHONPATH": f"{site}{os.pathsep}{environ['PYTHONPATH']}"}, file


def test_a_process_that_never_becomes_ready(options: EngineOptions, switch: tuple[dict[str, str], Path]) -> None:
    environ, file = switch
    file.write_text("import time\nprint('reading the tea leaves', flush=True)\ntime.sleep(60)")

    async def main() -> None:
        backend = EngineBackend(replace(options, start_s=2), environ=environ)
        with pytest.raises(TargetError, match=r"was not ready within 2 s; .*: reading the tea leaves$"):
            await backend.start()
        await backend.close()

    before = children()
    asyncio.run(main())
    assert children() <= before


def test_jobs_wait_for_a_process_that_starts_again_but_not_for_ever(
    play: Play, switch: tuple[dict[str, str], Path]
) -> None:
    environ, file = switch

    async def script(backend: EngineBackend) -> None:
        file.write_text("import sys; sys.exit('no luck today')")
        await run(backend, one_node("TestCrash"))
        result = await run(backend, TEXT)
        (failure,) = result.errors
        assert failure.code == "worker_unavailable"
        assert "within 2 s" in failure.message
        assert "no luck today" in failure.message
        health = backend.health()
        assert (health.state, health.pid, health.ready) == ("restarting", None, False)
        assert "no luck today" in health.problem
        waiting = asyncio.create_task(run(backend, TEXT))
        file.write_text("")
        assert (await waiting).ok
        await succeeds(backend)

    play(script, environ=environ, wait_s=2.0)


def test_closing_ends_the_job_that_runs_and_those_that_wait(play: Play) -> None:
    async def script(backend: EngineBackend) -> None:
        running = await begin(backend, one_node("TestSleep", polite=False))
        waiting = asyncio.create_task(run(backend, TEXT))
        await asyncio.sleep(0)
        await backend.close()
        for task in (running, waiting):
            result = await task
            assert result.status == "cancelled"
            assert result.errors[0].message.startswith("the worker is shutting down")
        assert (await run(backend, TEXT)).status == "cancelled"

    play(script)


def test_closing_before_a_start() -> None:
    async def main() -> None:
        backend = EngineBackend(EngineOptions(), environ={})
        assert backend.health().state == "starting"
        await backend.close()
        assert backend.health().state == "closed"

    asyncio.run(main())


def test_warm_up_runs_every_workflow_and_a_broken_one_takes_nothing_down(play: Play) -> None:
    async def script(backend: EngineBackend) -> None:
        health = backend.health()
        assert health.state == "ready"
        assert health.problem == (
            "the warm-up of workflow b failed: the engine's process was killed by SIGKILL while node 1 (TestCrash) ran; "
            "the warm-up of workflow c failed: Cannot execute because node Nowhere does not exist.: Node ID '#1'"
        )
        await succeeds(backend)

    workflows = {
        "a": TEXT,
        "b": one_node("TestCrash"),
        "c": one_node("Nowhere"),
        "d": one_node("TestRaise", block=True, text="not this"),
    }
    play(script, workflows=workflows)


def test_the_workers_side_imports_nothing_heavy(run_python: Any) -> None:
    program = """
        import sys
        import comfy_cpu_worker.backends, comfy_cpu_worker.backends.engine, comfy_cpu_worker.backends.warmup
        heavy = {"numpy", "PIL", "openvino", "onnxruntime", "torch", "requests", "click", "huggingface_hub"}
        print(sorted(heavy & set(sys.modules)))
    """
    answer = run_python(textwrap.dedent(program))
    assert answer.stdout == "[]\n", answer.stderr
