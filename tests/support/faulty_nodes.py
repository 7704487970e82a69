"""A plugin with nodes that go wrong in every way that a node can, for tests of what runs nodes in another process.

`faulty_environment` makes it known to a child process, as an installed distribution would be::

    environ = {**os.environ, **faulty_environment(tmp_path)}
    workflow = one_node("TestCrash", how="SIGKILL")

Every class is an output node, needs no input, is never answered from a cache, and shows its input ``text`` in the end
(``outputs[0].text``), so that a workflow of one node is enough. What each does before that:

- ``TestText``: nothing.
- ``TestSleep``: sleeps for ``seconds``; with ``polite`` it asks all the time whether to stop, else it is as deaf as native
  code. ``TestSteps``: makes ``steps`` steps of progress, each ``seconds`` long, and asks in between.
- ``TestHog``: allocates ``megabytes`` and writes to all of it.
- ``TestCrash``: ends its process: ``how`` is a signal's name (``SIGKILL``, ``SIGSEGV``, ``SIGSTOP`` to hang) or an exit code.
- ``TestRaise``: raises an error with ``text`` as its message; with ``block`` a block of a safety gate.
- ``TestWrite``: writes a file of ``megabytes`` into the output folder.
- ``TestScribble``: writes ``text`` on every socket that its process has open.
- ``TestSpawn``: starts a process that sleeps; the pid is its output.
- ``TestEnvironment``: shows the environment as JSON.
- ``TestModel``: needs the model file ``test/model.bin`` and shows its content.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from comfy_cpu_core.context import current_run
from comfy_cpu_core.errors import ContentBlocked
from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.models import ModelNeed
from comfy_cpu_core.nodes import NodeClass
from comfy_cpu_core.results import Progress

__all__ = ["MODEL_FILE", "faulty_environment", "one_node"]

MODEL_FILE = "test/model.bin"


def faulty_environment(directory: Path) -> dict[str, str]:
    """Write the metadata of a distribution that brings this plugin; gives the variables to set in the child."""
    site = directory / "faulty-nodes"
    info = site / "faulty_nodes-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-nodes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[comfy_cpu]\nfaulty = faulty_nodes\n")
    paths = [str(site), str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


def one_node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """A workflow of one node, with the id 1."""
    return {"1": {"class_type": class_type, "inputs": inputs}}


class _Node:
    RETURN_TYPES = ("STRING",)
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "tests"
    inputs: ClassVar[dict[str, Any]] = {}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}, "optional": {**cls.inputs, "text": ("STRING", {"default": "done"})}}

    @classmethod
    def IS_CHANGED(cls, **inputs: Any) -> float:
        return float("nan")

    def run(self, text: str = "done", **inputs: Any) -> dict[str, Any]:
        shown = self.work(text=text, **inputs) or text
        return {"ui": {"text": [shown]}, "result": (shown,)}

    def work(self, text: str) -> str | None:
        return None


class _Text(_Node):
    pass


class _Sleep(_Node):
    inputs: ClassVar[dict[str, Any]] = {
        "seconds": ("FLOAT", {"default": 60.0}),
        "polite": ("BOOLEAN", {"default": True}),
    }

    def work(self, text: str, seconds: float = 60, polite: bool = True) -> None:
        if not polite:
            time.sleep(seconds)
            return
        run = current_run()
        assert run is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            run.check()
            time.sleep(0.005)


class _Steps(_Node):
    inputs: ClassVar[dict[str, Any]] = {"steps": ("INT", {"default": 4}), "seconds": ("FLOAT", {"default": 0.0})}

    def work(self, text: str, steps: int = 4, seconds: float = 0) -> None:
        run = current_run()
        assert run is not None
        for step in range(1, steps + 1):
            time.sleep(seconds)
            run.check()
            run.emit(Progress("step", value=step, total=steps))


class _Hog(_Node):
    inputs: ClassVar[dict[str, Any]] = {"megabytes": ("INT", {"default": 100, "max": 10**6})}

    def work(self, text: str, megabytes: int = 100) -> None:
        held = [b"x" * 2**20 + bytes(index) for index in range(megabytes)]  # each written to, none shared
        del held


class _Crash(_Node):
    inputs: ClassVar[dict[str, Any]] = {"how": ("STRING", {"default": "SIGKILL"})}

    def work(self, text: str, how: str = "SIGKILL") -> None:
        if how.isdecimal():
            os._exit(int(how))
        os.kill(os.getpid(), signal.Signals[how])
        time.sleep(60)


class _Raise(_Node):
    inputs: ClassVar[dict[str, Any]] = {"block": ("BOOLEAN", {"default": False})}

    def work(self, text: str, block: bool = False) -> None:
        raise ContentBlocked(text) if block else RuntimeError(text)


class _Write(_Node):
    inputs: ClassVar[dict[str, Any]] = {"megabytes": ("INT", {"default": 100, "max": 10**6})}

    def work(self, text: str, megabytes: int = 100) -> None:
        run = current_run()
        assert run is not None
        with (run.folders.output / "large.bin").open("wb") as file:
            for _ in range(megabytes):
                file.write(b"x" * 2**20)


class _Scribble(_Node):
    def work(self, text: str) -> None:
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
            try:
                with socket.socket(fileno=os.dup(int(name))) as connection:
                    connection.sendall(text.encode())
            except OSError:  # no socket
                continue
        time.sleep(60)


class _Spawn(_Node):
    def work(self, text: str) -> str:
        return str(subprocess.Popen(["sleep", "60"]).pid)


class _Environment(_Node):
    def work(self, text: str) -> str:
        return json.dumps(dict(os.environ))


class _Model(_Node):
    def work(self, text: str) -> str:
        run = current_run()
        assert run is not None
        return run.models.require(MODEL_FILE).read_text()


@hookimpl
def comfy_cpu_node_classes() -> Iterable[NodeClass]:
    classes = (_Text, _Sleep, _Steps, _Hog, _Crash, _Raise, _Write, _Scribble, _Spawn, _Environment, _Model)
    return [NodeClass(f"Test{cls.__name__[1:]}", cls, cls.__name__[1:]) for cls in classes]


@hookimpl
def comfy_cpu_models_for_node(node: Any) -> Iterable[ModelNeed]:
    if node.class_type != "TestModel":
        return []
    return [ModelNeed(None, target=MODEL_FILE, reason=f"put a file at {MODEL_FILE}")]
