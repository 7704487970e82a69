from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_builder.lock import Lock, lock_text, plan_digest, read_lock, require_fitting, write_lock
from comfy_cpu_builder.plan import Plan
from comfy_cpu_core.errors import BuildError, InputError


def test_what_is_written_is_read(lock: Lock, tmp_path: Path) -> None:
    path = tmp_path / "comfy-cpu.lock"
    write_lock(lock, path)
    assert read_lock(path) == lock
    assert path.read_text() == lock_text(lock) or json.loads(path.read_text()) == json.loads(lock_text(lock))


def test_the_order_of_things_does_not_count(lock: Lock) -> None:
    assert lock_text(replace(lock, packages=lock.packages[::-1])) == lock_text(lock)


def test_there_may_be_none(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "no.lock") is None


def edited(lock: Lock, path: Path, keys: list[Any], value: Any) -> Path:
    document = json.loads(lock_text(lock))
    place = document
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("keys", "value", "where"),
    [
        (["format"], 2, "format: 2 is not known"),
        (["base", "digest"], "latest", "base.digest: "),
        (["base", "name"], "x\nRUN y", "base.name: "),
        (["packages", 1, "sha256"], "0", "packages[1].sha256: "),
        (["packages", 0, "file"], "../x.whl", "packages[0].file: "),
        (["packages", 0, "name"], "x --pre", "packages[0].name: "),
        (["models", 0, "files", 0, "target"], "/etc/passwd", "models[0].files[0].target: "),
        (["models", 0, "files", 0, "size"], -1, "models[0].files[0].size: "),
        (["models", 0, "surprise"], 1, "models[0].surprise: there is no such field"),
    ],
)
def test_an_error_names_the_fields_path(lock: Lock, keys: list[Any], value: Any, where: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_lock(edited(lock, tmp_path / "comfy-cpu.lock", keys, value))
    assert where in str(caught.value)


def test_what_is_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "comfy-cpu.lock"
    for text in ("", "[]", "{"):
        path.write_text(text)
        with pytest.raises(InputError):
            read_lock(path)


def test_a_lock_is_for_one_plan(plan: Plan, lock: Lock, tmp_path: Path) -> None:
    require_fitting(lock, plan, tmp_path)
    with pytest.raises(BuildError, match="made for another plan"):
        require_fitting(lock, replace(plan, requirements=("numpy",)), tmp_path)


def test_a_workflows_values_change_no_lock(plan: Plan) -> None:
    (workflow,) = plan.workflows
    nodes = {**workflow.nodes, "2": replace(workflow.nodes["2"], title="another")}
    assert plan_digest(replace(plan, workflows=(replace(workflow, nodes=nodes),))) == plan_digest(plan)
