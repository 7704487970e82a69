"""Bake steps, carried out in processes of their own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_builder.bake import BakeCache, BakedModel, bake_all, plan_bakes
from comfy_cpu_core.errors import BuildError
from comfy_cpu_core.image import BakeStep
from comfy_cpu_core.models import ModelFile, ModelSpec
from comfy_cpu_core.tree import ModelTree

STEPS = """
import os
from comfy_cpu_core.image import BakedFile

def double(job):
    data = (job.models.root / "small/model.onnx").read_bytes()
    target = job.output / "small" / "model.baked"
    target.parent.mkdir()
    target.write_bytes(data * job.parameters.get("times", 2))
    return [BakedFile("small/model.baked")]

def nothing(job):
    return []

def elsewhere(job):
    return [BakedFile("../outside")]

def unwritten(job):
    return [BakedFile("small/model.baked")]

def crash(job):
    os.abort()

def right(job):
    assert (job.output / "small/model.baked").is_file()

def differs(job):
    raise ValueError("the pictures differ by 3 levels")
"""
MODEL = ModelSpec(
    id="small",
    source="hf:OWNER/NAME",
    files=(ModelFile("model.onnx", "small/model.onnx", size=4, sha256="a" * 64),),
    licence="MIT",
)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelTree:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "small_bake.py").write_text(STEPS)
    monkeypatch.setenv("PYTHONPATH", str(modules), prepend=":")
    (tmp_path / "models" / "small").mkdir(parents=True)
    (tmp_path / "models" / "small" / "model.onnx").write_bytes(b"onnx")
    return ModelTree(tmp_path / "models")


def step(function: str = "double", verify: str = "right", **fields: Any) -> BakeStep:
    return BakeStep("twice", "small", f"small_bake:{function}", f"small_bake:{verify}", **fields)


def bake(tree: ModelTree, wanted: BakeStep, model: ModelSpec = MODEL) -> tuple[tuple[BakedModel, ...], list[str]]:
    notes: list[str] = []
    return bake_all([(model, wanted)], tree, BakeCache(tree.root.parent / "cache"), notes.append), notes


def left(tree: ModelTree) -> list[Path]:
    return [path for path in (tree.root.parent / "cache").rglob("*") if path.is_file()]


def test_what_was_baked_is_kept_and_baked_once(tree: ModelTree) -> None:
    (baked,), notes = bake(tree, step())
    assert notes == ["baking small: twice"]
    assert (baked.name, baked.files[0].target, baked.files[0].size) == ("small.twice", "small/model.baked", 8)
    assert (baked.folder / "small" / "model.baked").read_bytes() == b"onnxonnx"
    again, notes = bake(tree, step())
    assert (again, notes) == ((baked,), [])


def test_other_parameters_and_other_files_are_another_baking(tree: ModelTree) -> None:
    other = replace(MODEL, files=(replace(MODEL.files[0], sha256="b" * 64),))
    folders = {
        found.folder
        for wanted, model in ((step(), MODEL), (step(parameters={"times": 3}), MODEL), (step(), other))
        for found in bake(tree, wanted, model)[0]
    }
    assert len(folders) == 3


@pytest.mark.parametrize("damage", [b"evil", None])
def test_what_was_damaged_is_baked_anew(damage: bytes | None, tree: ModelTree) -> None:
    ((baked,), _) = bake(tree, step())
    path = baked.folder / "small" / "model.baked"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    ((again,), notes) = bake(tree, step())
    assert notes == ["baking small: twice"]
    assert (again.folder / "small" / "model.baked").read_bytes() == b"onnxonnx"


def test_a_record_that_is_half_there_is_none(tree: ModelTree) -> None:
    ((baked,), _) = bake(tree, step())
    record = baked.folder.parent / "baked.json"
    record.write_text(record.read_text()[:20])
    assert bake(tree, step())[1] == ["baking small: twice"]
    assert json.loads(record.read_text())["model"] == "small"


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (step(verify="differs"), "small_bake:differs failed: ValueError: the pictures differ by 3 levels"),
        (step("nothing"), "bake step twice of small made nothing"),
        (step("elsewhere"), "bake step twice of small names '../outside', which it did not write"),
        (step("unwritten"), "bake step twice of small names 'small/model.baked', which it did not write"),
        (step("gone"), "small_bake:gone failed: AttributeError: "),
        (step("crash"), "small_bake:crash failed: "),
    ],
)
def test_what_fails_or_differs_is_left_out_with_a_warning(wanted: BakeStep, reason: str, tree: ModelTree) -> None:
    baked, (_, warning) = bake(tree, wanted)
    assert baked == ()
    assert reason in warning
    assert warning.startswith("warning: ")
    assert warning.endswith("the image has the model unbaked")
    assert left(tree) == []


class Steps:
    """Plugins that give these steps for every model."""

    def __init__(self, *steps: BakeStep) -> None:
        self._steps = steps

    def collect(self, hook: str, *, strict: bool, model: ModelSpec) -> Iterable[tuple[str, BakeStep]]:
        return [("small", step) for step in self._steps]


def test_steps_are_taken_for_the_declared_instruction_sets() -> None:
    plain, fast = step(), replace(step(instruction_sets=frozenset({"amx_bf16"})), name="fast")
    plugins: Any = Steps(plain, fast)
    assert plan_bakes([MODEL], plugins, frozenset()) == [(MODEL, plain)]
    assert plan_bakes([MODEL], plugins, frozenset({"amx_bf16"})) == [(MODEL, fast), (MODEL, plain)]


def test_a_step_for_another_model_is_an_error() -> None:
    plugins: Any = Steps(replace(step(), model_id="other"))
    with pytest.raises(BuildError, match="'twice' was given for small and is for other"):
        plan_bakes([MODEL], plugins, frozenset())
