from __future__ import annotations

import json
from pathlib import Path

import pytest

from comfy_cpu_core.errors import UsageError
from comfy_cpu_worker.backends import open_backend
from comfy_cpu_worker.settings import WorkerSettings


def test_nothing_is_started(tmp_path: Path) -> None:
    backend = open_backend(WorkerSettings(models=tmp_path))
    assert backend.name == "engine"
    health = backend.health()
    assert (health.state, health.pid, health.ready) == ("starting", None, False)


@pytest.mark.parametrize("warm_up", [True, False])
def test_workflows_that_can_be_read_are_warmed_up(
    tmp_path: Path, warm_up: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from comfy_cpu_worker.backends import engine

    given: list[object] = []
    monkeypatch.setattr(engine, "EngineBackend", lambda options, *, environ, workflows: given.append(workflows))
    workflow = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}
    (tmp_path / "good.json").write_text(json.dumps(workflow))
    (tmp_path / "bad.json").write_text("{")
    open_backend(WorkerSettings(workflows=tmp_path, warm_up=warm_up))
    assert given == [{"good": workflow} if warm_up else {}]
    assert len([record for record in caplog.records if "not warmed up" in record.getMessage()]) == warm_up


def test_the_limits_of_the_settings_reach_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy_cpu_worker.backends import engine

    given: list[engine.EngineOptions] = []

    def note(options: engine.EngineOptions, **_more: object) -> None:
        given.append(options)

    monkeypatch.setattr(engine, "EngineBackend", note)
    environ = {"COMFY_CPU_MEMORY": "2000000000", "COMFY_CPU_HANG": "30", "COMFY_CPU_MODELS": str(tmp_path)}
    open_backend(WorkerSettings.from_environ(environ))
    (options,) = given
    assert (options.memory_bytes, options.hang_s, options.models) == (2_000_000_000, 30.0, tmp_path)


def test_a_directory_of_workflows_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no directory of workflows"):
        open_backend(WorkerSettings(workflows=tmp_path / "nowhere"))
