"""A target that the tests control, in place of the installed plugins' targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pluggy
import pytest

from comfy_cpu_client import client as client_module
from comfy_cpu_core import hookspecs
from comfy_cpu_core.convert import InputChange
from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.plugins import Plugins
from comfy_cpu_core.registry import NodeRegistry
from comfy_cpu_core.results import EventSink, Output, Progress, Result, RunRequest, TargetType


@dataclass
class FakeJob:
    """A job that is over at once, unless `error` says what waiting for it raises."""

    result: Result
    error: BaseException | None = None
    cancelled: bool = False
    id: str = "job-1"

    def status(self) -> str:
        return self.result.status

    def wait(self, timeout_s: float | None = None) -> Result:
        if self.error is not None:
            raise self.error
        return self.result

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class FakeTarget:
    """Remembers what it was asked."""

    result: Result = field(default_factory=lambda: Result("completed"))
    error: BaseException | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    requests: list[RunRequest] = field(default_factory=list)
    jobs: list[FakeJob] = field(default_factory=list)
    ready: Mapping[str, Any] = field(default_factory=lambda: {"ready": True})
    closed: int = 0

    def submit(self, request: RunRequest, *, on_event: EventSink | None = None) -> FakeJob:
        self.requests.append(request)
        if on_event is not None:
            on_event(Progress("finished", "1", "LoadImage", done=1, nodes=1))
        self.jobs.append(FakeJob(self.result, self.error))
        return self.jobs[-1]

    def health(self) -> Mapping[str, Any]:
        return self.ready

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTarget]:
    """The target ``fake``; every node's input ``provider`` is converted to CPU."""
    fake = FakeTarget()

    class Plugin:
        @hookimpl
        def comfy_cpu_targets(self) -> list[TargetType]:
            def open_fake(name: str, options: Mapping[str, Any]) -> FakeTarget:
                fake.options = options
                return fake

            return [TargetType("fake", open_fake, "for tests")]

        @hookimpl
        def comfy_cpu_convert_node(self, node: Any) -> list[InputChange]:
            return [InputChange("provider", "CPU", "no GPU")] if node.widget("provider") == "CUDA" else []

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(Plugin(), name="test")
    plugins = Plugins(manager)
    monkeypatch.setattr(client_module, "get_plugins", lambda: plugins)
    monkeypatch.setattr(client_module, "get_registry", lambda: NodeRegistry(plugins))
    return fake


@pytest.fixture
def output() -> Output:
    return Output("9", "SaveImage", "image", "out_00001_.png", "image/png", b"png bytes")
