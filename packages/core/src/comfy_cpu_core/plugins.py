"""Finding plugins, and asking them: the only place that calls hooks.

Built-in hooks of core itself are registered first, then every entry point of the group ``comfy_cpu``. A plugin that
cannot be imported, or whose hook raises, never takes the program down: it is reported as broken. `strict=True` (an
image build) turns that into an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from typing import Any

import pluggy

from comfy_cpu_core import hookspecs
from comfy_cpu_core.errors import UsageError

__all__ = ["DISABLED_VARIABLE", "PluginInfo", "Plugins", "get_plugins", "load_plugins"]

#: Names of plugins to leave out, separated by commas.
DISABLED_VARIABLE = "COMFY_CPU_DISABLED_PLUGINS"

#: Modules of core that implement hooks themselves.
BUILTIN = ("comfy_cpu_core.builtin",)


@dataclass(frozen=True)
class PluginInfo:
    """What ``plugins list`` shows of a plugin.

    Attributes:
        name: its entry point's name, or ``core``.
        distribution, version: the package that brings it.
        hooks: the hooks that it implements.
        state: ``active``, ``disabled`` or ``broken``.
        problem: why it is broken, in one line, or empty.
    """

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...]
    state: str
    problem: str = ""


class Plugins:
    """The plugins of this process."""

    def __init__(self, manager: pluggy.PluginManager, infos: Iterable[PluginInfo] = ()) -> None:
        self._manager = manager
        self._infos = {info.name: info for info in infos}

    @property
    def manager(self) -> pluggy.PluginManager:
        """pluggy's own manager."""
        return self._manager

    def infos(self) -> list[PluginInfo]:
        """Every plugin that was found, by name."""
        return sorted(self._infos.values(), key=lambda info: info.name)

    def collect(
        self,
        hook: str,
        *,
        strict: bool = False,
        on_problem: Callable[[str, str], None] | None = None,
        **arguments: Any,
    ) -> list[tuple[str, Any]]:
        """Call a hook in every plugin, and give (plugin name, item) for each item of each result.

        Sorted by plugin name; inside one plugin, in its own order. A plugin whose hook raises is marked as broken and
        left out (`on_problem` is told its name and the problem), or, if `strict`, its error is raised.
        """
        caller = getattr(self._manager.hook, hook)
        found: list[tuple[str, Any]] = []
        for implementation in sorted(caller.get_hookimpls(), key=lambda impl: impl.plugin_name):
            name = implementation.plugin_name
            wanted = {key: arguments[key] for key in implementation.argnames}
            try:
                items = list(implementation.function(**wanted) or ())
            except Exception as error:
                if strict:
                    raise
                problem = f"{type(error).__name__}: {error}"
                self._break(name, f"{hook}: {problem}")
                if on_problem is not None:
                    on_problem(name, problem)
                continue
            found.extend((name, item) for item in items)
        return found

    def unique(self, hook: str, key: str, what: str) -> dict[str, Any]:
        """Call a hook without arguments whose items must differ in the attribute `key`; give them by that attribute.

        A plugin that gives something without such an attribute is marked as broken.

        Raises:
            UsageError: two plugins contribute the same key.
        """
        by_key: dict[str, tuple[str, Any]] = {}
        for plugin, item in self.collect(hook):
            name = getattr(item, key, None)
            if not isinstance(name, str):
                self._break(plugin, f"{hook}: {item!r} is no {what}")
                continue
            if name in by_key:
                raise UsageError(
                    f"plugins {by_key[name][0]!r} and {plugin!r} both bring the {what} {name!r}",
                    remedy=f"leave one of them out with {DISABLED_VARIABLE}",
                )
            by_key[name] = (plugin, item)
        return {name: item for name, (_, item) in sorted(by_key.items())}

    def note_problem(self, name: str, problem: str) -> None:
        """Let ``plugins list`` show a problem that does not make the plugin broken."""
        info = self._infos.get(name)
        if info is not None and not info.problem:
            self._infos[name] = PluginInfo(info.name, info.distribution, info.version, info.hooks, info.state, problem)

    def _break(self, name: str, problem: str) -> None:
        info = self._infos.get(name) or PluginInfo(name, "", "", (), "active")
        self._infos[name] = PluginInfo(info.name, info.distribution, info.version, info.hooks, "broken", problem)


def load_plugins(environ: Mapping[str, str], *, strict: bool = False) -> Plugins:
    """Find and register every plugin.

    Args:
        environ: read for ``COMFY_CPU_DISABLED_PLUGINS``.
        strict: raise on a plugin that cannot be loaded, instead of reporting it as broken.
    """
    import importlib

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    disabled = {name.strip() for name in environ.get(DISABLED_VARIABLE, "").split(",") if name.strip()}
    infos: list[PluginInfo] = []
    for module in BUILTIN:
        plugin = importlib.import_module(module)
        manager.register(plugin, name="core")
        infos.append(
            PluginInfo("core", "comfy-cpu-core", _version("comfy-cpu-core"), _hooks(manager, plugin), "active")
        )
    for distribution, version, point in _entry_points():
        if point.name in disabled:
            infos.append(PluginInfo(point.name, distribution, version, (), "disabled"))
            continue
        if manager.has_plugin(point.name):
            problem = f"another distribution brings a plugin {point.name!r}, too"
            if strict:
                raise UsageError(f"{distribution}: {problem}", remedy="uninstall one of the two")
            infos.append(PluginInfo(f"{point.name} of {distribution}", distribution, version, (), "broken", problem))
            continue
        try:
            plugin = point.load()
            manager.register(plugin, name=point.name)
            manager.check_pending()
        except Exception as error:
            if strict:
                raise
            if manager.has_plugin(point.name):
                manager.unregister(name=point.name)
            problem = f"{type(error).__name__}: {error}"
            infos.append(PluginInfo(point.name, distribution, version, (), "broken", problem))
            continue
        infos.append(PluginInfo(point.name, distribution, version, _hooks(manager, plugin), "active"))
    return Plugins(manager, infos)


@lru_cache(maxsize=1)
def get_plugins() -> Plugins:
    """The plugins of this process, found once."""
    return load_plugins(os.environ)


def _entry_points() -> list[tuple[str, str, metadata.EntryPoint]]:
    """Distribution, version and entry point of every plugin, in an order that no installation decides."""
    points = [
        (point.dist.name if point.dist else "", point.dist.version if point.dist else "", point)
        for point in metadata.entry_points(group=hookspecs.PROJECT)
    ]
    return sorted(points, key=lambda found: (found[2].name, found[0]))


def _hooks(manager: pluggy.PluginManager, plugin: object) -> tuple[str, ...]:
    return tuple(sorted(caller.name for caller in manager.get_hookcallers(plugin) or ()))


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
