"""A real ``comfy-cpu serve`` in a process of its own, with nodes that go wrong in every way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faulty_nodes import faulty_environment, one_node
from worker_client import DEADLINE_S, WorkerClient, poll

__all__ = ["WorkerServer", "node_job", "slow"]

_READY = re.compile(r"ready at http://[^ ]*:(\d+) ")


def node_job(class_type: str = "TestText", *, given: Mapping[str, Any] | None = None, **inputs: Any) -> dict[str, Any]:
    """A job whose workflow is one node. `given` goes into the job's ``input``."""
    return {"input": {"workflow": one_node(class_type, **inputs), **(given or {})}}


def slow(seconds: float = 60.0, **options: Any) -> dict[str, Any]:
    """A job that takes its time."""
    return node_job("TestSleep", seconds=seconds, **options)


class WorkerServer:
    """A worker, ready.

    Args:
        folder: where its state, home and models are; a second worker in the same folder goes on where the first ended.
        options: of the command line.
        environment: variables beside those that are kept of this process.
        ready: whether to wait until it is ready.
    """

    def __init__(
        self, folder: Path, *options: str, environment: Mapping[str, str] | None = None, ready: bool = True
    ) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.log = folder / "worker.log"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("COMFY_CPU_", "HF_", "RUNPOD_", "BUCKET_"))}
        (folder / "models").mkdir(parents=True, exist_ok=True)
        command = [str(Path(sys.executable).with_name("comfy-cpu")), "serve", "--port", "0", "--state", str(self.state)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *options],
                env={
                    **kept,
                    **faulty_environment(folder),
                    "HOME": str(folder / "home"),
                    "COMFY_CPU_MODELS": str(folder / "models"),
                    "COMFY_CPU_THREADS": "1",
                    **(environment or {}),
                },
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        if ready:
            self.client = self.wait_until_ready((environment or {}).get("COMFY_CPU_TOKEN"))

    def wait_until_ready(self, token: str | None = None) -> WorkerClient:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = _READY.search(line)
        assert found, f"not ready: {line}{self.log_text()}"
        return WorkerClient(int(found[1]), token)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for its end; gives the exit code."""
        return self.process.wait(DEADLINE_S)

    def stop(self) -> int:
        """End it as a user does; gives the exit code."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        """End it as the kernel does when memory is short."""
        self.process.kill()
        self.ended()

    def descendants(self) -> list[int]:
        """The pids of the processes that it started, and of those that these did."""
        return descendants(self.process.pid)

    def close(self) -> None:
        """End it in any case, and everything that it started."""
        pids = self.descendants()
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        for pid in pids:
            poll(lambda pid=pid: not _runs(pid), f"the end of {pid}")  # type: ignore[misc]

    def __enter__(self) -> WorkerServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def descendants(pid: int) -> list[int]:
    """The pids of all processes below one."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    left = [pid]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += children
    return found


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
