"""Bake: prepare models at build time, and accept only what gives the same answers as the unbaked model.

Each step runs in a process of its own, so that a library that takes all memory or crashes costs a warning and not the
build. What a step made is kept by what it was made of, and made once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from comfy_cpu_core.errors import BuildError
from comfy_cpu_core.files import sha256_file, write_json
from comfy_cpu_core.image import BakeStep
from comfy_cpu_core.models import ModelFile, ModelSpec
from comfy_cpu_core.resources import get_resources

if TYPE_CHECKING:
    from comfy_cpu_core.plugins import Plugins
    from comfy_cpu_core.tree import ModelTree

__all__ = ["BakeCache", "BakedModel", "bake_all", "plan_bakes"]

Note = Callable[[str], None]

_RECORD = "baked.json"


@dataclass(frozen=True)
class BakedModel:
    """What a bake step made, verified.

    Attributes:
        model_id, step: what was baked, and how.
        folder: the directory that has the files, with the layout of a model tree.
        files: each with its place in the tree, size and hash.
        instruction_sets: what a CPU must have for it.
    """

    model_id: str
    step: str
    folder: Path
    files: tuple[ModelFile, ...]
    instruction_sets: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """What its layer is called."""
        return f"{self.model_id}.{self.step}"


@dataclass(frozen=True)
class BakeCache:
    """Baked models by what they were made of, below a directory that need not exist."""

    root: Path

    def folder(self, step: BakeStep, model: ModelSpec) -> Path:
        """Where what a step makes of a model is kept."""
        facts = {
            "step": {**asdict(step), "instruction_sets": sorted(step.instruction_sets)},
            "files": [(file.target, file.sha256) for file in model.files],
        }
        return self.root / "baked" / hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def plan_bakes(
    models: Iterable[ModelSpec], plugins: Plugins, available: frozenset[str]
) -> list[tuple[ModelSpec, BakeStep]]:
    """The steps for these models whose instruction sets are declared, by model and name.

    Args:
        available: the instruction sets that the image is declared to run on.

    Raises:
        Exception: whatever a plugin's hook raises.
    """
    found = []
    for model in models:
        steps = [step for _, step in plugins.collect("comfy_cpu_bake", strict=True, model=model)]
        for step in sorted(steps, key=lambda step: step.name):
            if step.model_id != model.id:
                raise BuildError(f"bake step {step.name!r} was given for {model.id} and is for {step.model_id}")
            if step.instruction_sets <= available:
                found.append((model, step))
    return found


def bake_all(
    wanted: Iterable[tuple[ModelSpec, BakeStep]], tree: ModelTree, cache: BakeCache, note: Note
) -> tuple[BakedModel, ...]:
    """Carry out bake steps. One that fails, or whose result differs, is left out with a warning.

    Raises:
        OSError: the cache cannot be written.
    """
    baked = []
    for model, step in wanted:
        folder = cache.folder(step, model)
        found = _kept(folder, model, step)
        if found is None:
            note(f"baking {model.id}: {step.name}")
            try:
                found = _bake(folder, model, step, tree)
            except BuildError as error:
                note(f"warning: {error}; the image has the model unbaked")
                continue
        baked.append(found)
    return tuple(baked)


def _kept(folder: Path, model: ModelSpec, step: BakeStep) -> BakedModel | None:
    """What was baked before, if it is still what it was."""
    try:
        record = json.loads((folder / _RECORD).read_text())
        files = tuple(ModelFile(f["target"], f["target"], int(f["size"]), f["sha256"]) for f in record["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    for file in files:
        path = folder / "tree" / file.target
        if not path.is_file() or sha256_file(path) != file.sha256:
            return None
    return BakedModel(model.id, step.name, folder / "tree", files, step.instruction_sets)


def _bake(folder: Path, model: ModelSpec, step: BakeStep, tree: ModelTree) -> BakedModel:
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    output = part / "tree"
    output.mkdir(parents=True)
    try:
        targets = _call(step, step.function, tree, output)
        files = tuple(_baked_file(step, output, target) for target in targets)
        if not files:
            raise BuildError(f"bake step {step.name} of {model.id} made nothing")
        _call(step, step.verify, tree, output)
        listed = [{"target": f.target, "size": f.size, "sha256": f.sha256} for f in files]
        write_json(part / _RECORD, {"model": model.id, "step": step.name, "files": listed})
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return BakedModel(model.id, step.name, folder / "tree", files, step.instruction_sets)


def _baked_file(step: BakeStep, output: Path, target: str) -> ModelFile:
    path = output / target
    if PurePosixPath(target).is_absolute() or ".." in PurePosixPath(target).parts or not path.is_file():
        raise BuildError(f"bake step {step.name} of {step.model_id} names {target!r}, which it did not write")
    return ModelFile(target, target, path.stat().st_size, sha256_file(path))


def _call(step: BakeStep, function: str, tree: ModelTree, output: Path) -> list[str]:
    """Call a step's function in a process of its own; give the targets of what it made."""
    request: Mapping[str, Any] = {
        "function": function,
        "models": str(tree.root),
        "output": str(output),
        "parameters": dict(step.parameters),
        "threads": get_resources().threads,
    }
    command = [sys.executable, "-m", "comfy_cpu_builder.bake_child"]
    done = subprocess.run(command, check=False, input=json.dumps(request), capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise BuildError(
            f"bake step {step.name} of {step.model_id}: {function} failed: "
            f"{lines[-1] if lines else f'exit code {done.returncode}'}"
        )
    return [str(target) for target in json.loads(done.stdout.splitlines()[-1])]
