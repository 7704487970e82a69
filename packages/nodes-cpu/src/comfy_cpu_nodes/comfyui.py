"""Our node classes inside a ComfyUI: what the small folder in ``custom_nodes`` asks for (see `comfy_cpu_nodes.pack`).

A class is left out if the user switched it off, because another pack brings the same name, or if the optional library
that it runs on is not installed; the log says which and why. Nothing here loads a library or a model.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from comfy_cpu_core.errors import ComfyCpuError
from comfy_cpu_core.nodes import NodeClass
from comfy_cpu_nodes.host import MODEL_FOLDERS

__all__ = ["DISABLED_FILE", "DISABLED_VARIABLE", "EXTRAS", "Choice", "choose", "disabled_patterns", "load"]

#: Names of node classes to leave out, or patterns (``Florence2*``), separated by commas.
DISABLED_VARIABLE = "COMFY_CPU_DISABLED_NODES"

#: The same in a file of the pack's folder, one a line; ``#`` starts a comment.
DISABLED_FILE = "disabled_nodes.txt"

#: Extras of this distribution that node classes name, and the modules that each brings.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime",),
    "llama": ("llama_cpp",),
    "florence2": ("torch", "transformers", "tokenizers", "safetensors"),
}

_DISTRIBUTION = "comfy-cpu-nodes"

_log = logging.getLogger("comfy_cpu")


@dataclass(frozen=True)
class Choice:
    """Which classes are on.

    Attributes:
        on: in the order in which they were given.
        disabled: class types that the user switched off.
        missing: class type → why it cannot run, and what to do.
        unused: patterns that fit no class.
    """

    on: tuple[NodeClass, ...]
    disabled: tuple[str, ...]
    missing: Mapping[str, str]
    unused: tuple[str, ...]


def load(folder: Path) -> tuple[dict[str, type], dict[str, str]]:
    """The two mappings that ComfyUI looks for: classes and display names, by class type.

    Called once, while ComfyUI starts. Makes our model folders known to ComfyUI, so that its
    ``extra_model_paths.yaml`` may name them.

    Args:
        folder: the pack's, where `DISABLED_FILE` may be.
    """
    from comfy_cpu_nodes.nodes import NODES

    choice = choose(NODES, disabled_patterns(os.environ, folder))
    _say(choice)
    _register_model_folders()
    return (
        {node.class_type: _for_comfyui(node.cls) for node in choice.on},
        {node.class_type: node.display_name for node in choice.on},
    )


def disabled_patterns(environ: Mapping[str, str], folder: Path) -> list[str]:
    """What the user switched off: names and patterns out of the environment and the folder's file."""
    words = environ.get(DISABLED_VARIABLE, "").split(",")
    try:
        text = (folder / DISABLED_FILE).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        text = ""
    except (OSError, ValueError) as error:
        _log.warning("comfy-cpu: %s cannot be read, nothing in it is switched off: %s", folder / DISABLED_FILE, error)
        text = ""
    words += [line.partition("#")[0] for line in text.splitlines()]
    return list(dict.fromkeys(word.strip() for word in words if word.strip()))


def choose(nodes: Iterable[NodeClass], disabled: Iterable[str]) -> Choice:
    """Decide which classes are on.

    Args:
        disabled: names and patterns with ``*``, ``?`` and ``[…]``; upper and lower case differ, as they do in names.
    """
    nodes, patterns = tuple(nodes), tuple(disabled)
    off = {n.class_type for n in nodes if any(_fits(n.class_type, pattern) for pattern in patterns)}
    missing = {n.class_type: reason for n in nodes if n.class_type not in off and (reason := _missing(n))}
    return Choice(
        on=tuple(n for n in nodes if n.class_type not in off and n.class_type not in missing),
        disabled=tuple(n.class_type for n in nodes if n.class_type in off),
        missing=missing,
        unused=tuple(p for p in patterns if not any(_fits(n.class_type, p) for n in nodes)),
    )


def _fits(class_type: str, pattern: str) -> bool:
    return class_type == pattern or fnmatchcase(class_type, pattern)


def _missing(node: NodeClass) -> str:
    """Why a class cannot run, in one line; empty if it can."""
    lacking = {extra: _lacking(extra) for extra in node.extras}
    if not lacking or not all(lacking.values()):
        return ""
    names = " or ".join(" and ".join(what) for what in lacking.values())
    return f"needs {names}: {sys.executable} -m pip install '{_DISTRIBUTION}[{next(iter(lacking))}]'"


@functools.cache
def _lacking(extra: str) -> tuple[str, ...]:
    """What an extra would bring that is not there: modules, or distributions that are there in another version."""
    if modules := tuple(module for module in EXTRAS.get(extra, ()) if not find_spec(module)):
        return modules
    found = []
    for requirement in map(Requirement, metadata.requires(_DISTRIBUTION) or ()):
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        # The module may come from a distribution of another name (onnxruntime-gpu): then nobody says its version.
        with suppress(metadata.PackageNotFoundError):
            version = metadata.version(requirement.name)
            if not requirement.specifier.contains(version, prereleases=True):
                found.append(f"{requirement.name}{requirement.specifier} (there is {version})")
    return tuple(found)


def _say(choice: Choice) -> None:
    """Tell the log what is off. Classes with the same reason share a line."""
    if choice.disabled:
        _log.info("comfy-cpu: switched off: %s", ", ".join(choice.disabled))
    for pattern in choice.unused:
        _log.warning("comfy-cpu: %r is to be switched off, but no node of ours is called so", pattern)
    by_reason: dict[str, list[str]] = {}
    for class_type, reason in choice.missing.items():
        by_reason.setdefault(reason, []).append(class_type)
    for reason, class_types in by_reason.items():
        _log.warning("comfy-cpu: not there: %s (%s)", ", ".join(class_types), reason)
    # Packs are loaded in no particular order, and the last one wins: this sees the ones before us only.
    theirs = getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {})
    if twice := [node.class_type for node in choice.on if node.class_type in theirs]:
        _log.warning(
            "comfy-cpu: another pack brings %s too, and ours takes its place; switch ours off with %s",
            ", ".join(twice),
            DISABLED_VARIABLE,
        )


def _register_model_folders() -> None:
    comfyui = sys.modules.get("folder_paths")
    if comfyui is not None:
        for name in MODEL_FOLDERS:
            comfyui.add_model_folder_path(name, str(Path(comfyui.models_dir, name)))


def _for_comfyui(cls: Any) -> type:
    """The class with a function that puts an error's remedy into its message: ComfyUI shows nothing else of it."""
    function = _explaining(getattr(cls, cls.FUNCTION))
    return type(cls.__name__, (cls,), {"__doc__": cls.__doc__, "__module__": cls.__module__, cls.FUNCTION: function})


def _explaining(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ComfyCpuError as error:
            if error.remedy and error.remedy not in str(error):
                error.args = (f"{error}\n{error.remedy}",)
            raise

    return call
