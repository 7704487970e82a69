"""Supervised processes: real ones, ended in every way."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_worker.endings import ProcessEnding
from comfy_cpu_worker.process import SupervisedProcess, child_environ

ENVIRON = child_environ(os.environ)


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and only not reaped by its parent does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def wait_until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


async def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


async def start(program: str, **more: Any) -> SupervisedProcess:
    return await SupervisedProcess.start(
        [sys.executable, "-c", textwrap.dedent(program)], name="child", environ=ENVIRON, **more
    )


def ends(program: str, **more: Any) -> tuple[ProcessEnding, tuple[str, ...]]:
    """Run a program to its end."""

    async def run() -> tuple[ProcessEnding, tuple[str, ...]]:
        process = await start(program, **more)
        ending = await process.wait()
        assert process.ending == ending
        return ending, process.log_tail

    return asyncio.run(run())


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a test, and see that it leaves no file descriptor open."""
    before = set(Path("/proc/self/fd").iterdir())
    asyncio.run(coroutine)
    assert set(Path("/proc/self/fd").iterdir()) <= before


def test_the_log_of_a_process_is_kept_and_forwarded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    program = (
        "import sys; print('one', flush=True); print('two', file=sys.stderr); sys.stdout.write('three'); sys.exit(3)"
    )
    ending, log = ends(program, log_lines=2)
    assert str(ending) == "ended with exit code 3"
    assert log == ("two", "three")
    assert [record.getMessage() for record in caplog.records] == ["child: one", "child: two", "child: three"]


def test_a_command_that_is_not_there_ends_at_once_and_says_so() -> None:
    async def test() -> None:
        process = await SupervisedProcess.start(["/nowhere/program"], name="child", environ=ENVIRON)
        assert str(await process.wait()) == "ended with exit code 127"
        assert process.log_tail == ("cannot run /nowhere/program: No such file or directory",)

    run(test())


def test_a_directory_that_is_not_there_is_an_error_of_the_start(tmp_path: Path) -> None:
    async def test() -> None:
        with pytest.raises(FileNotFoundError):
            await start("", cwd=tmp_path / "nowhere")

    run(test())


def test_the_process_gets_the_environment_and_the_descriptors_and_nothing_else(tmp_path: Path) -> None:
    async def test() -> None:
        reader, writer = os.pipe()
        try:
            process = await SupervisedProcess.start(
                [sys.executable, "-c", f"import os; os.write({writer}, repr(sorted(os.environ)).encode())"],
                name="child",
                environ={"A": "1", "LC_CTYPE": "C.UTF-8"},
                pass_fds=[writer],
            )
            assert (await process.wait()).returncode == 0, process.log_tail
            assert os.read(reader, 1000) == b"['A', 'LC_CTYPE']"
        finally:
            os.close(reader)
            os.close(writer)

    run(test())


def test_stop_asks_first() -> None:
    async def test() -> None:
        process = await start(
            """
            import signal, sys, time
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
            print("ready", flush=True)
            time.sleep(60)
            """
        )
        await until(lambda: process.log_tail, "it did not start")
        assert str(await process.stop(grace_s=20)) == "ended with exit code 5"
        assert str(await process.stop(grace_s=20)) == "ended with exit code 5"

    run(test())


def test_stop_kills_what_does_not_listen() -> None:
    async def test() -> None:
        process = await start(
            """
            import signal, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("ready", flush=True)
            time.sleep(60)
            """
        )
        await until(lambda: process.log_tail, "it did not start")
        assert (await process.stop(grace_s=0.1)).signal == "SIGKILL"

    run(test())


@pytest.mark.parametrize("how", ["kill", "end"])
def test_nothing_that_a_process_started_outlives_it(how: str) -> None:
    async def test() -> None:
        process = await start(
            f"""
            import subprocess, sys, time
            print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
            time.sleep({60 if how == "kill" else 0})
            """
        )
        await until(lambda: process.log_tail, "it did not start")
        if how == "kill":
            process.kill()
        await process.wait()
        (grandchild,) = process.log_tail
        await until(lambda: not alive(int(grandchild)), "the grandchild lives")
        assert not Path(f"/proc/{process.pid}").exists()  # reaped, too

    run(test())


def test_a_process_ends_with_its_parent_even_when_that_is_killed() -> None:
    program = """
        import asyncio, os, sys
        from comfy_cpu_worker.process import SupervisedProcess

        async def start():
            process = await SupervisedProcess.start(
                [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(60)"],
                name="child", environ=dict(os.environ),
            )
            while not process.log_tail:
                await asyncio.sleep(0.01)
            print(process.pid, flush=True)
            await asyncio.sleep(60)

        asyncio.run(start())
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
    wait_until(lambda: not alive(child), "the child outlived its parent")


def test_the_first_process_of_a_container_leaves_no_zombies() -> None:
    """What a dead process had started becomes a child of the first process, which has to reap it."""
    program = """
        import asyncio, ctypes, os, sys, time
        from pathlib import Path
        from comfy_cpu_worker.process import SupervisedProcess

        def children():
            stats = [path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")]
            return [state for state, parent, *_ in stats if int(parent) == os.getpid()]

        async def main():
            process = await SupervisedProcess.start(
                ["sh", "-c", "sleep 60 & sleep 60 & echo started; wait"], name="child", environ=dict(os.environ)
            )
            while not process.log_tail:
                await asyncio.sleep(0.01)
            process.kill()
            await process.wait()
            deadline = time.monotonic() + 20
            while children() and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            print(children())

        PR_SET_CHILD_SUBREAPER = 36
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        asyncio.run(main())
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], check=False, capture_output=True, text=True
    )
    assert answer.stdout == "[]\n", answer.stderr


def test_a_process_outlives_the_thread_that_asked_for_it() -> None:
    """The kernel ends it with the thread that forked, which must not be a thread of the caller's."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        process = await asyncio.to_thread(
            lambda: asyncio.run_coroutine_threadsafe(start("import time; time.sleep(60)"), loop).result()
        )
        await loop.shutdown_default_executor()
        assert alive(process.pid)
        await process.stop(grace_s=20)

    run(test())


def test_a_loop_that_is_gone_does_not_keep_a_process_from_being_reaped() -> None:
    async def begin() -> SupervisedProcess:
        return await start("import time; time.sleep(60)")

    process = asyncio.run(begin())
    process.kill()
    wait_until(lambda: not Path(f"/proc/{process.pid}").exists(), "it was not reaped")


def test_a_process_that_the_kernel_crashed() -> None:
    ending, log = ends("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert str(ending) == "was killed by SIGSEGV"
    assert "Fatal Python error: Segmentation fault" in log[0]


def test_a_memory_limit_becomes_a_memory_error() -> None:
    ending, _ = ends("bytearray(10**9)", memory_bytes=10**8)
    assert str(ending) == "ran out of memory and ended with exit code 1"


def test_a_full_log_pipe_does_not_stop_a_process() -> None:
    ending, log = ends("for i in range(100_000): print('line', i)")
    assert ending.returncode == 0
    assert log[-1] == "line 99999"
    assert len(log) == 50


def test_a_descendant_that_keeps_writing_does_not_hold_up_the_end() -> None:
    async def test() -> None:
        process = await start(
            """
            import subprocess
            child = subprocess.Popen(["sh", "-c", "while :; do echo x; done"], start_new_session=True)
            print(f"{child.pid}\\n", end="")  # in one piece: the other is writing, too
            """,
            log_lines=10**6,
        )
        assert (await process.wait()).returncode == 0
        stray = int(next(line for line in process.log_tail if line.isdecimal()))
        await until(lambda: not alive(stray), "the stray process lives, although nobody reads what it writes")

    run(test())


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("PATH", True),
        ("COMFY_CPU_MODELS", True),
        ("COMFY_CPU_THREADS", True),
        ("TOKENIZERS_PARALLELISM", True),
        ("KEYBOARD", True),
        ("COMFY_CPU_TOKEN", False),
        ("RUNPOD_POD_ID", False),
        ("RUNPOD_AI_API_KEY", False),
        ("BUCKET_ACCESS_KEY_ID", False),
        ("BUCKET_ENDPOINT_URL", False),
        ("AWS_SESSION_TOKEN", False),
        ("AWS_PROFILE", False),
        ("HF_TOKEN", False),
        ("COMFY_ORG_API_KEY", False),
        ("db_password", False),
    ],
)
def test_a_child_gets_no_secrets(name: str, kept: bool) -> None:
    environ = child_environ({name: "value"}, EXTRA="2")
    assert (name in environ) is kept
    assert environ["EXTRA"] == "2"


def test_a_signal_after_the_end_does_nothing() -> None:
    async def test() -> None:
        process = await start("")
        await process.wait()
        process.kill()
        process.send_signal(signal.SIGTERM)

    run(test())
