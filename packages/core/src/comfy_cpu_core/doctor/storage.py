"""Checks of the model tree and of what is in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from comfy_cpu_core.doctor.check import Check, format_bytes
from comfy_cpu_core.errors import ModelError
from comfy_cpu_core.models import ModelSpec
from comfy_cpu_core.tree import MODELS_VARIABLE, ModelTree
from comfy_cpu_core.verify import ModelState, model_state

__all__ = ["Place", "check_models", "check_packaged_model", "check_tree", "inspect_place", "look_at_models"]

#: Less than this is likely to be too little for the next model; the largest that a workflow here names is 6 GB.
_ENOUGH_DISK = 8 << 30

_HERE = frozenset({"verified", "present", "installed"})


@dataclass(frozen=True)
class Place:
    """A directory, as the file system has it.

    Attributes:
        exists: whether it is there; a file of that name does not count.
        writable: whether files can be made in it, or it can be made itself.
        free_bytes: free disk where it is or would be; None if the system does not say.
    """

    path: Path
    exists: bool
    writable: bool
    free_bytes: int | None


def inspect_place(path: Path) -> Place:
    """Look at a directory that need not exist. Changes nothing."""
    nearest = path
    while not _exists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        free: int | None = shutil.disk_usage(nearest).free
    except OSError:
        free = None
    exists = nearest == path and path.is_dir()
    return Place(path, exists, nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK), free)


def check_tree(place: Place) -> Check:
    """Where the model tree is, and whether models can be put there."""
    name = "model tree"
    elsewhere = f"name another directory with --models DIR or {MODELS_VARIABLE}"
    if not place.exists and not place.writable:
        return Check(name, "missing", f"{place.path}: is not there and cannot be made", elsewhere)
    free = f", {format_bytes(place.free_bytes)} free" if place.free_bytes is not None else ""
    if not place.writable:
        # As it should be where models are baked into an image.
        detail = f"{place.path}: read-only, so nothing can be fetched into it{free}"
        return Check(name, "note", detail, f"to fetch models, make it writable, or {elsewhere}")
    detail = f"{place.path}{'' if place.exists else ': will be made at the first fetch'}{free}"
    if place.free_bytes is not None and place.free_bytes < _ENOUGH_DISK:
        return Check(name, "note", f"{detail}: too little for a large model", f"free some disk space, or {elsewhere}")
    return Check(name, "ok", detail)


def look_at_models(tree: ModelTree, specs: Iterable[ModelSpec]) -> dict[str, ModelState | None]:
    """Where each model stands, by id; None where the tree or its record of the model cannot be read."""
    states: dict[str, ModelState | None] = {}
    for spec in specs:
        try:
            states[spec.id] = model_state(spec, tree)
        except (ModelError, OSError):
            states[spec.id] = None
    return states


def check_models(states: Mapping[str, ModelState | None]) -> list[Check]:
    """The models that plugins know: how many are here, and one line for each that is here but not whole."""
    if not states:
        return [Check("models", "note", "no plugin that knows a model is active", "pip install comfy-cpu-plugin-ben2")]
    here = sorted(name for name, state in states.items() if state in _HERE)
    absent = sorted(name for name, state in states.items() if state == "missing")
    detail = f"{len(here)} of {len(states)} known models are here"
    if here:
        detail += f": {', '.join(here)}"
    if absent:
        detail += f"; not here: {', '.join(absent)}"
    remedy = "fetch those that your workflow needs: `comfy-cpu models fetch ID`" if absent else ""
    checks = [Check("models", "missing" if not here else "note" if absent else "ok", detail, remedy)]
    for name, state in sorted(states.items()):
        if state == "partial":
            checks.append(Check(f"model {name}", "missing", "a part of it is here", f"`comfy-cpu models fetch {name}`"))
        elif state == "wrong" or state is None:
            detail = "a file has the wrong size or hash" if state else "its files or its record cannot be read"
            checks.append(Check(f"model {name}", "missing", detail, f"`comfy-cpu models verify {name}`"))
    return checks


def check_packaged_model(spec: ModelSpec, state: ModelState | None) -> Check:
    """A model whose weights come inside a Python package (NudeNet's): in the tree, in the package, or nowhere."""
    package = spec.source.partition(":")[2]
    name = f"{package} weights"
    if state == "installed":
        return Check(name, "ok", f"in the installed package {package}")
    if state in _HERE:
        return Check(name, "ok", "in the model tree")
    return Check(name, "missing", "neither in the model tree nor in an installed package", f"pip install {package}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # below a directory that we may not look into
        return False
