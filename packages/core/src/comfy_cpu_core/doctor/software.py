"""Checks of the software: Python, runtimes, plugins, node classes, targets."""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from comfy_cpu_core.doctor.check import Check, one_line
from comfy_cpu_core.plugins import DISABLED_VARIABLE, PluginInfo

__all__ = [
    "SHIPPED_WORKFLOW_CLASSES",
    "Installed",
    "check_node_classes",
    "check_onnx",
    "check_optional",
    "check_plugins",
    "check_python",
    "check_targets",
    "look_up",
]

#: The node classes of examples/workflows/background_removal.json: what must be there for `doctor` to be content.
SHIPPED_WORKFLOW_CLASSES = frozenset(
    {
        "BEN2_ONNX_RemoveBg",
        "LoadImage",
        "MaskToImage",
        "NudeNetSafetyChecker",
        "PreviewImage",
        "RestoreOriginalSize",
        "SaveImageNoMetadata",
        "ShowText|pysssss",
        "SmartResizeForModel",
    }
)

_INSTALL_ENGINE = 'pip install "comfy-cpu-client[embedded]"'
_INSTALL_OPENVINO = 'pip install "comfy-cpu-nodes[openvino]"'


@dataclass(frozen=True)
class Installed:
    """A library, as far as can be told without importing it.

    Attributes:
        module: the name that is imported.
        version: of the distribution that brings it; ``?`` where no distribution says so; None if it is not there.
    """

    module: str
    version: str | None

    def __bool__(self) -> bool:
        return self.version is not None

    def __str__(self) -> str:
        return f"{self.module} {self.version}" if self.version is not None else f"no {self.module}"


def look_up(module: str, *distributions: str) -> Installed:
    """Whether a library is installed, and which version.

    Args:
        module: the top-level module that would be imported.
        distributions: the distributions that bring it, likeliest first.
    """
    try:
        if find_spec(module) is None:
            return Installed(module, None)
    except (ImportError, ValueError):
        return Installed(module, None)
    for distribution in distributions:
        try:
            return Installed(module, metadata.version(distribution))
        except metadata.PackageNotFoundError:
            continue
    return Installed(module, "?")


def check_python() -> Check:
    """Which Python this is."""
    return Check("Python", "ok", f"{platform.python_version()} ({platform.python_implementation()})")


def check_onnx(openvino: Installed, onnxruntime: Installed) -> Check:
    """Which runtime runs ONNX models: openvino where it is installed, else onnxruntime."""
    if openvino:
        beside = f" ({onnxruntime} is installed too)" if onnxruntime else ""
        return Check("ONNX runtime", "ok", f"{openvino} will be used{beside}")
    if onnxruntime:
        return Check(
            "ONNX runtime",
            "note",
            f"{onnxruntime} will be used; openvino is not installed: it takes a fraction of the memory and is faster",
            _INSTALL_OPENVINO,
        )
    return Check("ONNX runtime", "problem", "neither openvino nor onnxruntime is installed", _INSTALL_OPENVINO)


def check_optional(found: Installed, purpose: str, remedy: str) -> Check:
    """A library that only some nodes need."""
    if found:
        return Check(found.module, "ok", f"{found.version}")
    return Check(found.module, "note", f"not installed; only needed for {purpose}", remedy)


def check_plugins(infos: Iterable[PluginInfo]) -> list[Check]:
    """The plugins: one line for those that work, one for each that is broken or switched off."""
    known = list(infos)
    active = [info.name for info in known if info.state == "active"]
    checks = [Check("plugins", "ok", f"{len(active)} active: {', '.join(active)}")]
    for info in known:
        named = f"plugin {info.name}"
        if info.state == "broken":
            package = f" {info.distribution} {info.version}".rstrip()
            repair = f"repair or upgrade {info.distribution}" if info.distribution else "repair it"
            checks.append(
                Check(
                    named,
                    "missing",
                    f"broken, so what{package} brings is not there: {one_line(info.problem)}",
                    f"{repair}, or leave it out with {DISABLED_VARIABLE}={info.name}",
                )
            )
        elif info.state == "disabled":
            checks.append(
                Check(named, "note", f"switched off by {DISABLED_VARIABLE}", f"take it out of {DISABLED_VARIABLE}")
            )
        elif info.problem:
            checks.append(Check(named, "note", one_line(info.problem), "see `comfy-cpu plugins list`"))
    return checks


def check_node_classes(class_types: Collection[str]) -> Check:
    """Whether the nodes of the shipped background-removal workflow are there, and how many there are in all."""
    absent = sorted(SHIPPED_WORKFLOW_CLASSES.difference(class_types))
    if absent:
        return Check(
            "node classes",
            "problem",
            f"{len(class_types)}, but the background-removal workflow needs {', '.join(absent)} too",
            f"{_INSTALL_ENGINE}, and see `comfy-cpu plugins list`",
        )
    return Check("node classes", "ok", f"{len(class_types)} available, see `comfy-cpu nodes list`")


def check_targets(schemes: Collection[str]) -> Check:
    """Where workflows can run."""
    if "embedded" not in schemes:
        return Check("targets", "problem", "workflows cannot run in this process (no `embedded`)", _INSTALL_ENGINE)
    return Check("targets", "ok", ", ".join(sorted(schemes)))
