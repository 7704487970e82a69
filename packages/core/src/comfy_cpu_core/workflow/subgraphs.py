"""Going into a subgraph: what its inside sees of the node that stands for it.

A subgraph's node may show widgets of the nodes inside it. Their values then stand at that node, in one of the ways in
which ComfyUI's editor has saved them over time, and take the place of those inside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_cpu_core.errors import WorkflowError
from comfy_cpu_core.nodes import NodeSignature
from comfy_cpu_core.workflow.graph import Graph, Place, UiDocument, UiNode
from comfy_cpu_core.workflow.widgets import CONTROL_WORDS, WidgetValue

__all__ = ["MAX_DEPTH", "Scope", "enter"]

#: How deeply subgraphs may be nested.
MAX_DEPTH = 50

# Editors of late 2025 named the widget of a node that is two subgraphs down "6: seed".
_LEGACY_PREFIX = re.compile(r"\s*\d+\s*:\s*")


@dataclass(frozen=True)
class Scope:
    """One graph in one place: the workflow itself, or the inside of one particular subgraph node.

    Attributes:
        prefix: what comes before the ids of its nodes: ``""``, ``1:``, ``1:2:``.
        host: the node that stands for the subgraph; it is a node of `parent`.
        host_inputs: input of the subgraph → index of the input of `host`.
        promoted: input of the subgraph → the value that `host` has for it.
        shown: (node id, widget) → the value that `host` has for a widget that no input of the subgraph feeds.
    """

    graph: Graph
    prefix: str = ""
    host: UiNode | None = None
    parent: Scope | None = None
    host_inputs: Mapping[int, int] = field(default_factory=dict)
    promoted: Mapping[int, WidgetValue] = field(default_factory=dict)
    shown: Mapping[tuple[str, str], WidgetValue] = field(default_factory=dict)


def enter(
    parent: Scope, host: UiNode, document: UiDocument, signatures: Mapping[str, NodeSignature], name: str
) -> Scope:
    """The inside of a subgraph node.

    Raises:
        WorkflowError: the subgraph contains itself, or subgraphs are nested absurdly.
    """
    graph = document.subgraphs[host.type]
    outer: Scope | None = parent
    depth = 0
    while outer is not None:
        depth += 1
        if outer.graph.id == graph.id and outer.host is not None:
            raise WorkflowError(f"{name}: the subgraph {graph.name!r} contains itself", node_id=parent.prefix + host.id)
        outer = outer.parent
    if depth > MAX_DEPTH:
        raise WorkflowError(f"{name}: subgraphs are nested more than {MAX_DEPTH} deep", remedy="this is no workflow")
    reader = _HostValues(host, graph, document, signatures)
    reader.read()
    # What a node further out shows of this one's widgets goes before this one's own value.
    for index, port in enumerate(graph.inputs):
        if (host.id, port.name) in parent.shown:
            reader.promoted[index] = parent.shown[host.id, port.name]
    return Scope(
        graph=graph,
        prefix=f"{parent.prefix}{host.id}:",
        host=host,
        parent=parent,
        host_inputs=dict(_match_inputs(host, graph)),
        promoted=reader.promoted,
        shown=reader.shown,
    )


def _match_inputs(host: UiNode, graph: Graph) -> Iterator[tuple[int, int]]:
    # The node's own list may be shorter than the subgraph's, or older: names decide, and types where names are equal.
    free = dict(enumerate(graph.inputs))
    for index, slot in enumerate(host.inputs):
        same_name = [port for port, item in free.items() if item.name == slot.name]
        same = [port for port in same_name if free[port].type == slot.type] or same_name
        if same:
            del free[same[0]]
            yield same[0], index


class _HostValues:
    def __init__(
        self, host: UiNode, graph: Graph, document: UiDocument, signatures: Mapping[str, NodeSignature]
    ) -> None:
        self._host = host
        self._graph = graph
        self._document = document
        self._signatures = signatures
        self.promoted: dict[int, WidgetValue] = {}
        self.shown: dict[tuple[str, str], WidgetValue] = {}

    def read(self) -> None:
        host = self._host
        if isinstance(host.values, dict):
            self._by_name(host.values, "widgets_values")
        elif host.proxies and len(host.proxies) == len(host.values):
            self._by_proxies(host.values)
        else:
            self._by_position(host.values)
        self._by_name(host.named_values, "widgets_values_named")

    def _by_name(self, values: Mapping[str, Any], key: str) -> None:
        for index, port in enumerate(self._graph.inputs):
            value = values.get(port.name)
            if value is not None:
                earlier = self.promoted.get(index)
                places: tuple[Place, ...] = ((*self._host.place, key, port.name),)
                if earlier is not None and earlier.value == value:
                    places += earlier.places
                self.promoted[index] = WidgetValue(port.name, value, places)

    def _by_proxies(self, values: list[Any]) -> None:
        """One value for each widget that the node shows; null where the value stays inside."""
        for position, ((node_id, widget), value) in enumerate(zip(self._host.proxies, values, strict=True)):
            if value is None:
                continue
            found = WidgetValue(widget, value, ((*self._host.place, "widgets_values", position),))
            port = self._port_of(node_id, widget)
            if port is not None:
                self.promoted[port] = found
            else:
                self.shown[node_id, _LEGACY_PREFIX.sub("", widget)] = found

    def _by_position(self, values: list[Any]) -> None:
        """One value for each input of the subgraph that feeds a widget, in their order."""
        ports = [port for port in range(len(self._graph.inputs)) if self._feeds_widget(self._graph, port, 0)]
        position = 0
        for port in ports:
            if position >= len(values):
                return
            if values[position] is not None:
                place = (*self._host.place, "widgets_values", position)
                self.promoted[port] = WidgetValue(self._graph.inputs[port].name, values[position], (place,))
            position += 1
            # Some files have the choice "fixed, randomize, …" behind a seed here too.
            too_many = len(values) > len(ports)
            if too_many and position < len(values) and _is_control(values[position]):
                position += 1

    def _port_of(self, node_id: str, widget: str) -> int | None:
        """The input of the subgraph behind a widget that its node shows; None if there is none."""
        for port, item in enumerate(self._graph.inputs):
            if node_id == "-1":
                if item.name == widget:
                    return port
            elif any(node.id == node_id and slot.widget == widget for node, slot in self._graph.fed_by(port)):
                return port
        return None

    def _feeds_widget(self, graph: Graph, port: int, depth: int) -> bool:
        for node, slot in graph.fed_by(port):
            if slot.widget is not None:
                return True
            if node.type in self._document.subgraphs and depth < MAX_DEPTH:
                inner = self._document.subgraphs[node.type]
                ports = (index for index, item in enumerate(inner.inputs) if item.name == slot.name)
                if any(self._feeds_widget(inner, index, depth + 1) for index in ports):
                    return True
            elif node.type in self._signatures:
                spec = self._signatures[node.type].input(slot.name)
                if spec is not None and spec.is_widget:
                    return True
        return False


def _is_control(value: Any) -> bool:
    return isinstance(value, str) and value in CONTROL_WORDS
