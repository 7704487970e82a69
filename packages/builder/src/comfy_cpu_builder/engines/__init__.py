"""Build engines (Docker so far; others by the hook), and which one to take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from comfy_cpu_core.errors import BuildError, UsageError

if TYPE_CHECKING:
    from comfy_cpu_core.image import BuildEngine, BuildEngineType
    from comfy_cpu_core.plugins import Plugins

__all__ = ["NEEDS_NONE", "open_engine"]

#: The remedy of every error about a missing engine.
NEEDS_NONE = "`--output DIR` writes the build context, and needs none"


def open_engine(name: str | None, plugins: Plugins, environ: Mapping[str, str]) -> BuildEngine:
    """The engine of that name; where none is named, the first that is installed.

    Raises:
        UsageError: there is no such engine.
        BuildError: none is installed.
    """
    types: dict[str, BuildEngineType] = plugins.unique("comfy_cpu_build_engines", "name", "build engine")
    if name is not None:
        if name not in types:
            raise UsageError(f"there is no build engine {name!r}", remedy=f"known are: {', '.join(sorted(types))}")
        return types[name].open(environ)
    for kind in sorted(types.values(), key=lambda kind: (kind.rank, kind.name)):
        if kind.installed(environ):
            return kind.open(environ)
    raise BuildError(
        f"nothing that builds images is installed: {', '.join(sorted(types))}",
        remedy=f"install one of them; {NEEDS_NONE}",
    )
