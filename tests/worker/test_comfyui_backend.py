"""A ComfyUI's process under real faults: whatever happens to it, the job says so and the next job succeeds."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comfyui_double import make_comfyui

from comfy_cpu_client import FileInput
from comfy_cpu_core.errors import TargetError, UsageError
from comfy_cpu_core.results import Progress, Result
from comfy_cpu_worker.backends import open_backend
from comfy_cpu_worker.backends.comfyui import ComfyUIBackend, ComfyUIOptions
from comfy_cpu_worker.backends.warmup import warm_up_picture
from comfy_cpu_worker.backoff import Backoff
from comfy_cpu_worker.delivery import DeliveryPolicy
from comfy_cpu_worker.job import JobLimits
from comfy_cpu_worker.runner import JobRunner
from comfy_cpu_worker.settings import WorkerSettings
from comfy_cpu_worker.shelf import Shelf
from comfy_cpu_worker.work import Work

Prompt = dict[str, dict[str, Any]]

PNG = warm_up_picture()


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def working(class_type: str, **inputs: Any) -> Prompt:
    """A node at work, and one that shows what it gives."""
    return {"1": node(class_type, **inputs), "2": node("PreviewImage", images=["1", 0])}


PICTURE: Prompt = {
    "1": node("LoadImage", image="photo.png"),
    "2": node("SaveImage", images=["1", 0], filename_prefix="out/cut"),
    "3": node("Litter"),
}


@pytest.fixture
def options(tmp_path: Path) -> ComfyUIOptions:
    return ComfyUIOptions(
        root=make_comfyui(tmp_path / "ComfyUI"),
        python=Path(sys.executable),
        workdir=tmp_path / "work",
        start_s=60,
        deadline_grace_s=0.3,
        cancel_grace_s=0.5,
        hang_s=60,
        wait_s=60,
    )


Script = Callable[[ComfyUIBackend], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture
def play(clean_environment: dict[str, str], options: ComfyUIOptions) -> Play:
    """Run a script with a back end that has started; afterwards nothing of it may be left."""

    def play(
        script: Script, *, environ: dict[str, str] = clean_environment, workflows: Any = None, **changed: Any
    ) -> None:
        chosen = replace(options, **changed)

        async def main() -> None:
            backend = ComfyUIBackend(
                chosen, environ=environ, workflows=workflows, backoff=Backoff(first_s=0.01, longest_s=0.05)
            )
            try:
                await backend.start()
                await script(backend)
            finally:
                await backend.close()
            assert backend.health().state == "closed"

        before, threads = children(), set(threading.enumerate())
        asyncio.run(main())
        assert children() <= before
        assert chosen.workdir is not None
        assert list(chosen.workdir.iterdir()) == []
        end = time.monotonic() + 30
        while more := {t for t in threading.enumerate() if t.name.startswith("comfy-cpu")} - threads:
            assert time.monotonic() < end, more
            time.sleep(0.01)

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


async def run(backend: ComfyUIBackend, workflow: Any, **more: Any) -> Result:
    return await backend.run(Work("job", workflow, **more), on_event=ignore)


async def succeeds(backend: ComfyUIBackend, data: bytes = b"picture") -> Result:
    result = await run(backend, PICTURE, files={"photo.png": data})
    assert result.status == "completed", result.errors
    assert result.images[0].data == data
    assert backend.health().ready
    return result


async def begin(backend: ComfyUIBackend, workflow: Any, **more: Any) -> asyncio.Task[Result]:
    """Start a job and wait until its first node runs."""
    started = asyncio.Event()

    def note(event: Progress) -> None:
        if event.kind == "started":
            started.set()

    task = asyncio.create_task(backend.run(Work("job", workflow, **more), on_event=note))
    await asyncio.wait_for(started.wait(), 60)
    assert backend.health().state == "busy"
    return task


async def until(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.01)


def left(options: ComfyUIOptions) -> set[str]:
    """The files in the directories of the process."""
    assert options.workdir is not None
    (directory,) = options.workdir.iterdir()
    found = {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}
    return {name for name in found if not name.startswith(("owner", "input/baked"))}


# --- jobs -----------------------------------------------------------------------------------------------------------


def test_a_job_and_nothing_is_left_of_it(play: Play, options: ComfyUIOptions) -> None:
    (options.root / "input" / "baked.png").write_bytes(b"baked")
    (options.root / "input" / "baked-folder").mkdir()
    (options.root / "input" / "baked-folder" / "b.png").write_bytes(b"in a folder")

    async def script(backend: ComfyUIBackend) -> None:
        names = set()
        for data in (b"one", b"one", b"two"):
            result = await succeeds(backend, data)
            names |= {output.filename for output in result.images}
            assert left(options) == set()
        assert names == {"cut_00001_.png"}, "each job finds the folders empty"
        for name, data in (("baked.png", b"baked"), ("baked-folder/b.png", b"in a folder")):
            result = await run(backend, {**PICTURE, "1": node("LoadImage", image=name)})
            assert result.images[0].data == data
        assert (await run(backend, working("Fail", message="no"))).status == "failed"
        assert left(options) == set()

    play(script)
    assert sorted(path.name for path in (options.root / "input").iterdir()) == ["baked-folder", "baked.png"]
    assert (options.root / "input" / "baked-folder" / "b.png").is_file()
    assert not (options.root / "output").exists()


def test_the_same_job_twice_gives_its_outputs_twice(play: Play) -> None:
    async def script(backend: ComfyUIBackend) -> None:
        for _ in range(2):
            result = await run(backend, working("Steps", count=1))
            assert result.ok, result.errors
            assert result.images[0].data == b"steps"

    play(script)


def test_inputs_values_and_progress(play: Play) -> None:
    threads: set[str] = set()
    events: list[Progress] = []

    def note(event: Progress) -> None:
        threads.add(threading.current_thread().name)
        events.append(event)

    async def script(backend: ComfyUIBackend) -> None:
        work = Work(
            "job",
            {**PICTURE, "4": node("Steps", count=1), "5": node("PreviewImage", images=["4", 0])},
            inputs={"1.image": FileInput("other.jpg", b"a file")},
            values={"4.count": 3},
        )
        result = await backend.run(work, on_event=note)
        assert result.ok, result.errors
        assert {output.data for output in result.images} == {b"a file", b"steps"}

    play(script)
    assert threads == {"MainThread"}
    assert [event.value for event in events if event.kind == "step"] == [1, 2, 3]
    assert events[-1].done == events[-1].nodes == 5


@pytest.mark.parametrize(
    ("workflow", "status", "code", "message"),
    [
        (working("Fail", message="boom"), "failed", "node_failed", "ValueError: boom"),
        (working("Fail", message="Content blocked by x"), "blocked", "blocked", "Content blocked by x"),
        (PICTURE, "failed", "invalid", "Invalid image file: photo.png"),
        (working("Magic"), "failed", "invalid", "node Magic does not exist"),
        ({"1": 3}, "failed", "input", "neither a workflow"),
    ],
)
def test_jobs_that_fail_keep_the_process(play: Play, workflow: Any, status: str, code: str, message: str) -> None:
    async def script(backend: ComfyUIBackend) -> None:
        pid = backend.health().pid
        result = await run(backend, workflow)
        assert (result.status, result.errors[0].code) == (status, code)
        assert message in result.errors[0].message
        await succeeds(backend)
        assert backend.health().pid == pid

    play(script)


def test_jobs_come_one_after_the_other(play: Play) -> None:
    async def script(backend: ComfyUIBackend) -> None:
        results = await asyncio.gather(*(succeeds(backend, b"%d" % number) for number in range(5)))
        assert [result.images[0].data for result in results] == [b"%d" % number for number in range(5)]

    play(script)


def test_a_key_reaches_comfyui_and_secrets_of_the_worker_do_not(
    play: Play, clean_environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def script(backend: ComfyUIBackend) -> None:
        pid = backend.health().pid
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"hunter2" not in environ
        assert b"CUDA_VISIBLE_DEVICES=\0" in environ
        assert b"OMP_NUM_THREADS=" in environ
        result = await run(backend, working("Sleep", seconds=0), comfy_org_api_key="hunter3")
        assert result.ok

    play(script, environ={**clean_environment, "COMFY_CPU_TOKEN": "hunter2", "RUNPOD_AI_API_KEY": "hunter2"})
    assert "hunter" not in caplog.text


def test_a_proxy_of_the_environment_is_none_of_its_business(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    play(succeeds)


def test_another_model_tree(play: Play, options: ComfyUIOptions, tmp_path: Path) -> None:
    (tmp_path / "tree" / "ben2_onnx").mkdir(parents=True)
    (tmp_path / "tree" / "LLM").mkdir()
    told: list[Any] = []

    async def script(backend: ComfyUIBackend) -> None:
        command = Path(f"/proc/{backend.health().pid}/cmdline").read_bytes().decode().split("\0")
        told.append(json.loads(Path(command[command.index("--extra-model-paths-config") + 1]).read_text()))

    play(script, models=tmp_path / "tree")
    assert told == [{"comfy_cpu": {"base_path": str(tmp_path / "tree"), "LLM": "LLM", "ben2_onnx": "ben2_onnx"}}]

    async def own(backend: ComfyUIBackend) -> None:
        assert b"--extra-model-paths-config" not in Path(f"/proc/{backend.health().pid}/cmdline").read_bytes()

    play(own, models=options.root / "models")


def test_a_whole_job_as_existing_clients_send_it(play: Play) -> None:
    document = {
        "input": {
            "workflow": PICTURE,
            "images": [{"name": "photo.png", "image": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}],
        }
    }

    async def script(backend: ComfyUIBackend) -> None:
        policy = DeliveryPolicy()
        runner = JobRunner(backend, shelf=Shelf(None), limits=JobLimits(), urls=None, delivery=policy)
        told: list[Any] = []
        outcome = await runner.run("job", document, on_progress=told.append)
        assert outcome.state == "COMPLETED", outcome.error
        (image,) = outcome.output["images"]
        assert base64.b64decode(image["data"]) == PNG
        assert (image["node_id"], image["class_type"], image["subfolder"]) == ("2", "SaveImage", "out")
        assert outcome.output["texts"][0]["data"] == "littered"
        assert told[-1]["percent"] == 100
        blocked = {"input": {"workflow": working("Fail", message="Content blocked by a gate")}}
        outcome = await runner.run("job", blocked, on_progress=told.append)
        assert (outcome.state, outcome.error) == ("FAILED", "Content blocked by a gate")
        assert outcome.output["blocked"]["node_id"] == "1"

    play(script)


# --- faults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "message"),
    [("kill", "ComfyUI was killed by SIGKILL while node 1 (Crash) ran"), ("exit", "ComfyUI ended with exit code 3")],
)
def test_a_crash_in_the_middle(play: Play, how: str, message: str) -> None:
    async def script(backend: ComfyUIBackend) -> None:
        pid = backend.health().pid
        result = await run(backend, working("Crash", how=how))
        assert (result.status, result.errors[0].code) == ("failed", "worker_crashed")
        assert message in result.errors[0].message
        assert (result.errors[0].node_id, result.errors[0].class_type) == ("1", "Crash")
        await succeeds(backend)
        health = backend.health()
        assert (health.restarts, health.problem) == (1, "")
        assert health.pid != pid

    play(script)


def test_killed_between_jobs(play: Play) -> None:
    async def script(backend: ComfyUIBackend) -> None:
        await succeeds(backend)
        pid = backend.health().pid or 0
        os.kill(pid, signal.SIGKILL)
        await until(lambda: backend.health().pid != pid, "nobody noticed")
        await succeeds(backend)

    play(script)


def test_out_of_memory(play: Play) -> None:
    async def script(backend: ComfyUIBackend) -> None:
        result = await run(backend, working("Crash", how="memory"))
        assert (result.status, result.errors[0].code) == ("failed", "memory"), result.errors
        await succeeds(backend)

    play(script, memory_bytes=600 * 2**20)


def test_a_server_that_answers_nothing_any_more(play: Play) -> None:
    async def script(backend: ComfyUIBackend) -> None:
        result = await run(backend, working("Crash", how="hang"))
        assert (result.status, result.errors[0].code) == ("failed", "worker_hung"), result.errors[0].details
        assert "no sign of life for 0.8 s" in result.errors[0].message
        await succeeds(backend)

    play(script, hang_s=0.8)


def test_a_process_that_is_stopped(play: Play) -> None:
    async def script(backend: ComfyUIBackend) -> None:
        task = await begin(backend, working("Sleep", seconds=60))
        os.kill(backend.health().pid or 0, signal.SIGSTOP)
        result = await task
        assert result.errors[0].code == "worker_hung"
        await succeeds(backend)

    play(script, hang_s=0.8)


def test_the_deadline_interrupts_and_keeps_the_process(play: Play) -> None:
    async def script(backend: ComfyUIBackend) -> None:
        pid = backend.health().pid
        result = await run(backend, working("Sleep", seconds=60), timeout_s=0.3)
        assert (result.status, result.errors[0].code) == ("timed_out", "deadline")
        await succeeds(backend)
        assert backend.health().pid == pid

    play(script, deadline_grace_s=30)


def test_the_deadline_kills_what_takes_no_notice(play: Play) -> None:
    async def script(backend: ComfyUIBackend) -> None:
        pid = backend.health().pid
        result = await run(backend, working("Stubborn", seconds=60), timeout_s=0.3)
        assert (result.status, result.errors[0].code) == ("timed_out", "deadline")
        await succeeds(backend)
        assert backend.health().pid != pid

    play(script)


@pytest.mark.parametrize(("class_type", "killed"), [("Sleep", False), ("Stubborn", True)])
def test_cancelling_interrupts_and_in_the_end_kills(play: Play, class_type: str, killed: bool) -> None:
    async def script(backend: ComfyUIBackend) -> None:
        pid = backend.health().pid
        task = await begin(backend, working(class_type, seconds=60))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await succeeds(backend)
        assert (backend.health().pid != pid) is killed

    play(script, cancel_grace_s=0.5 if killed else 30)


def test_cancelling_at_once(play: Play) -> None:
    async def script(backend: ComfyUIBackend) -> None:
        for delay in (0, 0.001, 0.01, 0.03):
            task = asyncio.create_task(run(backend, working("Sleep", seconds=60)))
            await asyncio.sleep(delay)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await succeeds(backend)

    play(script, cancel_grace_s=30)


def test_a_fresh_process_where_one_is_asked_for(play: Play) -> None:
    async def script(backend: ComfyUIBackend) -> None:
        pid = backend.health().pid
        await backend.restart()
        await succeeds(backend)
        assert backend.health().pid != pid

    play(script)


def test_closing_ends_the_job_that_runs(play: Play) -> None:
    async def script(backend: ComfyUIBackend) -> None:
        task = await begin(backend, working("Sleep", seconds=60))
        await backend.close()
        assert (await task).status == "cancelled"
        assert (await run(backend, PICTURE)).status == "cancelled"

    play(script, arguments=("--fake", "ignore-signals"))


def test_it_ends_with_the_worker(options: ComfyUIOptions, clean_environment: dict[str, str]) -> None:
    program = """
import asyncio, os, sys
from pathlib import Path
from comfy_cpu_worker.backends.comfyui import ComfyUIBackend, ComfyUIOptions

async def main():
    root, workdir = map(Path, sys.argv[1:])
    backend = ComfyUIBackend(ComfyUIOptions(root, Path(sys.executable), workdir=workdir), environ=os.environ)
    await backend.start()
    print(backend.health().pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
    command = [sys.executable, "-c", program, str(options.root), str(options.workdir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=clean_environment) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        worker.kill()
    end = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]:
        assert time.monotonic() < end
        time.sleep(0.01)


# --- starting -------------------------------------------------------------------------------------------------------


def test_a_process_that_dies_at_its_start_says_why(play: Play) -> None:
    async def script(backend: ComfyUIBackend) -> None:
        raise AssertionError

    with pytest.raises(TargetError) as caught:
        play(script, arguments=("--fake", "die"))
    assert str(caught.value) == (
        "ComfyUI ended with exit code 1 before it was ready; the last that it wrote: a ComfyUI that is none | "
        "ModuleNotFoundError: No module named 'torch'"
    )


def test_a_process_that_never_answers(play: Play) -> None:
    async def script(backend: ComfyUIBackend) -> None:
        raise AssertionError

    with pytest.raises(TargetError, match=r"ComfyUI was not ready within 1\.5 s; the last that it wrote: a ComfyUI"):
        play(script, arguments=("--fake", "never-ready"), start_s=1.5)


def test_a_python_that_is_not_there(play: Play, tmp_path: Path) -> None:
    async def script(backend: ComfyUIBackend) -> None:
        raise AssertionError

    with pytest.raises(TargetError, match=r"cannot run .*nowhere: No such file"):
        play(script, python=tmp_path / "nowhere")


def test_one_that_cannot_start_again_is_tried_until_it_can(play: Play, options: ComfyUIOptions) -> None:
    main = options.root / "main.py"
    works = main.read_text()

    async def script(backend: ComfyUIBackend) -> None:
        main.write_text("raise SystemExit('no more')")
        result = await run(backend, working("Crash", how="kill"))
        assert result.errors[0].code == "worker_crashed"
        await until(lambda: "no more" in backend.health().problem, "it started")
        assert backend.health().state == "restarting"
        main.write_text(works)
        await succeeds(backend)
        assert backend.health().problem == ""

    play(script)


def test_warm_up_runs_the_workflows_and_says_which_fail(play: Play) -> None:
    async def script(backend: ComfyUIBackend) -> None:
        assert backend.health().problem == "the warm-up of workflow bad failed: ValueError: boom"
        assert backend.health().ready
        await succeeds(backend)

    play(script, workflows={"good": PICTURE, "bad": working("Fail", message="boom")})


def test_the_settings_say_which_comfyui(options: ComfyUIOptions, tmp_path: Path) -> None:
    settings = WorkerSettings(backend="comfyui", comfyui=options.root, models=tmp_path, memory_bytes=10**9, hang_s=9)
    backend = open_backend(settings)
    assert isinstance(backend, ComfyUIBackend)
    assert backend.name == "comfyui"
    assert backend._options.python == options.root / "venv" / "bin" / "python"
    assert (backend._options.memory_bytes, backend._options.hang_s) == (10**9, 9)
    environ = {"COMFYUI_PYTHON": sys.executable, "COMFYUI_ARGS": "--lowvram --reserve-vram '1'"}
    backend = ComfyUIBackend.from_settings(settings, environ=environ)
    assert backend._options.python == Path(sys.executable)
    assert backend._options.arguments == ("--lowvram", "--reserve-vram", "1")
    with pytest.raises(UsageError, match="COMFYUI_ARGS cannot be read"):
        ComfyUIBackend.from_settings(settings, environ={"COMFYUI_ARGS": "'"})
    with pytest.raises(UsageError, match="is no ComfyUI") as caught:
        open_backend(WorkerSettings(backend="comfyui", comfyui=tmp_path / "nowhere"))
    assert "COMFYUI_PATH" in str(caught.value.remedy)
