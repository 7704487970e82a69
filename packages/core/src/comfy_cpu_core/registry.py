"""The node classes that are known: those that plugins bring, and those that a ComfyUI says it has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from comfy_cpu_core.nodes import NodeClass, NodeSignature
from comfy_cpu_core.plugins import Plugins, get_plugins

__all__ = ["Conflict", "NodeRegistry", "get_registry"]


@dataclass(frozen=True)
class Conflict:
    """A class_type that several plugins bring.

    Attributes:
        plugin: the one whose class is taken: the first by name.
        others: the ones whose classes are not.
    """

    class_type: str
    plugin: str
    others: tuple[str, ...]


class NodeRegistry(Collection[str]):
    """Every node class that is known, by class_type; as a collection, those class_types.

    Args:
        plugins: asked for their classes at once; problems that show up are noted there.
        object_info: what a ComfyUI answers under ``/object_info``. Its signatures go before those of plugins: who
            gives one means to run the workflow on that ComfyUI.
    """

    def __init__(self, plugins: Plugins | None = None, *, object_info: Mapping[str, Any] | None = None) -> None:
        self._plugins = plugins
        self._classes: dict[str, NodeClass] = {}
        self._plugin_of: dict[str, str] = {}
        self._losers: dict[str, list[str]] = {}
        self._problems: dict[str, str] = {}
        if plugins is not None:
            for plugin, item in plugins.collect("comfy_cpu_node_classes"):
                self._add(plugins, plugin, item)
        readers: dict[str, Callable[[], NodeSignature]] = {}
        for class_type, node in self._classes.items():
            readers[class_type] = partial(NodeSignature.from_class, class_type, node.cls)
        for class_type, info in (object_info or {}).items():
            readers[class_type] = partial(NodeSignature.from_object_info, class_type, info)
        self._signatures = _Signatures(readers, self._note)

    def _add(self, plugins: Plugins, plugin: str, item: object) -> None:
        if not isinstance(item, NodeClass):
            plugins.note_problem(plugin, f"comfy_cpu_node_classes gave {type(item).__name__}, not NodeClass")
            return
        if item.class_type in self._classes:
            winner = self._plugin_of[item.class_type]
            self._losers.setdefault(item.class_type, []).append(plugin)
            plugins.note_problem(plugin, f"the node class {item.class_type!r} is taken from plugin {winner!r}")
            return
        self._classes[item.class_type] = item
        self._plugin_of[item.class_type] = plugin

    def _note(self, class_type: str, problem: str) -> None:
        self._problems[class_type] = problem
        plugin = self._plugin_of.get(class_type)
        if self._plugins is not None and plugin is not None:
            self._plugins.note_problem(plugin, f"node class {class_type!r}: {problem}")

    @property
    def classes(self) -> Mapping[str, NodeClass]:
        """The classes that plugins bring."""
        return self._classes

    @property
    def signatures(self) -> Mapping[str, NodeSignature]:
        """The signature of every class that is known, read when first asked for and then kept.

        The options of a COMBO are those of that moment; `NodeClass.signature` reads them anew. A class whose
        signature cannot be read is not in the mapping; `problems` says why.
        """
        return self._signatures

    @property
    def conflicts(self) -> tuple[Conflict, ...]:
        """The class_types that several plugins bring."""
        return tuple(Conflict(c, self._plugin_of[c], tuple(others)) for c, others in sorted(self._losers.items()))

    @property
    def problems(self) -> Mapping[str, str]:
        """class_type → why its signature could not be read, of those that were asked for so far."""
        return self._problems

    def get(self, class_type: str) -> NodeClass | None:
        """The class that a plugin brings under that name, or None."""
        return self._classes.get(class_type)

    def plugin_of(self, class_type: str) -> str | None:
        """The name of the plugin that brings a class; None if none does."""
        return self._plugin_of.get(class_type)

    def __contains__(self, class_type: object) -> bool:
        return class_type in self._signatures

    def __iter__(self) -> Iterator[str]:
        return iter(self._signatures)

    def __len__(self) -> int:
        return len(self._signatures)


class _Signatures(Mapping[str, NodeSignature]):
    def __init__(
        self, readers: Mapping[str, Callable[[], NodeSignature]], on_problem: Callable[[str, str], None]
    ) -> None:
        self._readers = dict(readers)
        self._read: dict[str, NodeSignature] = {}
        self._on_problem = on_problem

    def __getitem__(self, class_type: str) -> NodeSignature:
        if class_type not in self._read:
            reader = self._readers[class_type]
            try:
                self._read[class_type] = reader()
            except Exception as error:  # a class of somebody else may do anything
                del self._readers[class_type]
                self._on_problem(class_type, f"its inputs cannot be read ({type(error).__name__}: {error})")
                raise KeyError(class_type) from error
        return self._read[class_type]

    def __iter__(self) -> Iterator[str]:
        return iter([class_type for class_type in list(self._readers) if class_type in self])

    def __len__(self) -> int:
        return sum(1 for _ in self)


@lru_cache(maxsize=1)
def get_registry() -> NodeRegistry:
    """The node classes of this process's plugins, found once."""
    return NodeRegistry(get_plugins())
