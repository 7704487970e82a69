"""Licences: the texts that travel in an image, and the models that one may not simply pass on."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from typing import TYPE_CHECKING

from comfy_cpu_builder import layout

if TYPE_CHECKING:
    from comfy_cpu_builder.lock import Lock
    from comfy_cpu_core.models import ModelSpec

__all__ = ["licence_files", "restricted"]

#: Licences under which a model may be passed on with no more than its licence text.
_FREE = frozenset({"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "CC0-1.0", "CC-BY-4.0", "Unlicense"})

#: Those whose texts the builder has.
_TEXTS = ("Apache-2.0", "MIT")


def restricted(models: Iterable[ModelSpec]) -> list[ModelSpec]:
    """The models whose licence is not plainly free: whoever pushes an image with them should have read it."""
    return [model for model in models if model.licence not in _FREE]


def licence_files(lock: Lock) -> dict[str, str]:
    """The licence texts of an image: path → text. Those of Python packages lie in their own folders in the image."""
    files = {f"{layout.LICENCES}/comfy-cpu.txt": _text("Apache-2.0"), f"{layout.LICENCES}/models.txt": _models(lock)}
    for name in _TEXTS:
        if any(model.licence == name for model in lock.models):
            files[f"{layout.LICENCES}/{name}.txt"] = _text(name)
    return files


def _models(lock: Lock) -> str:
    lines = ["The models in this image, where they come from, and under which licences they are.", ""]
    for model in lock.models:
        lines += [
            model.id,
            f"  source:   {model.source}{f' at {model.revision}' if model.revision else ''}",
            f"  licence:  {model.licence}",
            *([f"  notice:   {model.notice}"] if model.notice else []),
            *(f"  file:     {file.target} (sha256 {file.sha256})" for file in model.files),
            "",
        ]
    lines += [
        f"The base image is {lock.base.reference}; the licences of its Debian packages are in /usr/share/doc/*/copyright.",
        "Those of Python packages are in the folders licenses of their dist-info.",
    ]
    return "\n".join(lines) + "\n"


def _text(name: str) -> str:
    return resources.files("comfy_cpu_builder").joinpath("templates", "licences", f"{name}.txt").read_text("utf-8")
