"""A workflow in UI format, parsed: nodes, links and subgraphs as ComfyUI's editor saves them.

Only what the conversion to API format needs is kept. Ids are text here: files have them as numbers and as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from comfy_cpu_core.errors import WorkflowError

__all__ = ["ANY", "BYPASSED", "MUTED", "Graph", "Place", "Port", "Slot", "UiDocument", "UiLink", "UiNode", "parse_ui"]

#: Where a value stands in the document: the keys and indices on the way to it.
Place = tuple[str | int, ...]

#: The type of a slot that takes everything.
ANY = "*"

#: Values of a node's mode. All others mean that the node runs.
MUTED, BYPASSED = 2, 4

# Far more than any workflow has; below these numbers a conversion takes seconds at most.
_MAX_NODES, _MAX_SLOTS = 50_000, 1_000

# The pseudo nodes of a subgraph's inside that stand for its inputs and outputs.
_INPUT_NODE, _OUTPUT_NODE = "-10", "-20"


@dataclass(frozen=True)
class Slot:
    """An input of a node.

    Attributes:
        name: the input's name.
        type: ComfyUI's type, `ANY` for everything.
        link: the id of the link that ends here, or None.
        widget: the name of the widget that it belongs to, or None for an input that is a connection only.
    """

    name: str
    type: str = ANY
    link: str | None = None
    widget: str | None = None


@dataclass(frozen=True)
class UiNode:
    """A node as the editor saved it.

    Attributes:
        id, type, mode, title: as in the file; the title is empty where the user gave none.
        order: its place in the order of execution, or None.
        outputs: the type of each output.
        values: ``widgets_values``: a list in the order of the widgets, or a dict; an empty list if there is none.
        named_values: ``widgets_values_named``, which newer editors write beside it; empty if there is none.
        proxies: the widgets of inner nodes that a subgraph node shows: (inner node id, widget name).
        place: where the node stands in the document.
    """

    id: str
    type: str
    mode: int = 0
    title: str = ""
    order: int | None = None
    inputs: tuple[Slot, ...] = ()
    outputs: tuple[str, ...] = ()
    values: list[Any] | dict[str, Any] = field(default_factory=list)
    named_values: Mapping[str, Any] = field(default_factory=dict)
    proxies: tuple[tuple[str, str], ...] = ()
    place: Place = ()


@dataclass(frozen=True)
class UiLink:
    """A connection from an output to an input."""

    id: str
    origin: str
    origin_slot: int
    target: str
    target_slot: int | None


@dataclass(frozen=True)
class Port:
    """An input or output of a subgraph; `links` are the ids of the links inside that end at it."""

    name: str
    type: str
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class Graph:
    """The workflow itself, or the inside of a subgraph.

    Attributes:
        id, name: of a subgraph; empty for the workflow itself.
        nodes: in the order of execution, as far as the file tells it.
        inputs, outputs: what a subgraph shows outside; empty for the workflow itself.
        input_node, output_node: the ids that links inside a subgraph use for its inputs and outputs.
    """

    id: str
    name: str
    nodes: Mapping[str, UiNode]
    links: Mapping[str, UiLink]
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    input_node: str = ""
    output_node: str = ""

    def output_link(self, index: int) -> UiLink | None:
        """The link inside this subgraph that feeds one of its outputs, or None."""
        for link_id in self.outputs[index].links if index < len(self.outputs) else ():
            if link_id in self.links:
                return self.links[link_id]
        ends = (link for link in self.links.values() if link.target == self.output_node and link.target_slot == index)
        return next(ends, None)

    def fed_by(self, port: int) -> Sequence[tuple[UiNode, Slot]]:
        """The inputs of nodes inside this subgraph that one of its own inputs feeds."""
        return self._fed.get(port, ())

    @cached_property
    def _fed(self) -> dict[int, list[tuple[UiNode, Slot]]]:
        ports = {link.id: link.origin_slot for link in self.links.values() if link.origin == self.input_node}
        fed: dict[int, list[tuple[UiNode, Slot]]] = {}
        for node in self.nodes.values():
            for slot in node.inputs:
                if slot.link in ports:
                    fed.setdefault(ports[slot.link], []).append((node, slot))
        return fed


@dataclass(frozen=True)
class UiDocument:
    """A UI document: the workflow and the subgraphs that it defines, by id (which is their nodes' type)."""

    root: Graph
    subgraphs: Mapping[str, Graph]


def parse_ui(document: Mapping[str, Any], name: str) -> UiDocument:
    """Parse a UI document.

    Args:
        document: plain JSON with a list under ``nodes``.
        name: what messages call it.

    Raises:
        WorkflowError: a node or link is malformed, or a node id occurs twice.
    """
    parser = _Parser(name)
    subgraphs: dict[str, Graph] = {}
    for definition, place in parser.definitions(document, ()):
        graph = parser.graph(definition, place)
        if graph.id in subgraphs:
            raise WorkflowError(f"{name}: the subgraph {graph.id} is defined twice")
        subgraphs[graph.id] = graph
    return UiDocument(parser.graph(document, ()), subgraphs)


class _Parser:
    def __init__(self, name: str) -> None:
        self._name = name

    def definitions(self, holder: Mapping[str, Any], place: Place) -> Iterator[tuple[Mapping[str, Any], Place]]:
        """Every subgraph's definition; one may hold further ones."""
        definitions = holder.get("definitions")
        subgraphs = definitions.get("subgraphs") if isinstance(definitions, dict) else None
        for index, definition in enumerate(self._list(subgraphs, "definitions.subgraphs")):
            here = (*place, "definitions", "subgraphs", index)
            if not isinstance(definition, dict) or not self._is_id(definition.get("id")):
                raise self._bad(f"subgraph {index} has no id")
            yield definition, here
            yield from self.definitions(definition, here)

    def graph(self, holder: Mapping[str, Any], place: Place) -> Graph:
        inside = bool(place)
        nodes: dict[str, UiNode] = {}
        for index, data in enumerate(self._list(holder.get("nodes"), "nodes")):
            node = self._node(data, (*place, "nodes", index))
            if node.id in nodes:
                raise WorkflowError(
                    f"{self._name}: the node id {node.id} occurs twice",
                    remedy="open the workflow in ComfyUI and save it again: that renumbers the nodes",
                    node_id=node.id,
                )
            nodes[node.id] = node
        if all(node.order is not None for node in nodes.values()):
            nodes = dict(sorted(nodes.items(), key=lambda item: item[1].order or 0))
        return Graph(
            id=str(holder["id"]) if inside else "",
            name=str(holder.get("name") or holder["id"]) if inside else "",
            nodes=nodes,
            links={link.id: link for link in self._links(holder.get("links"))},
            inputs=tuple(self._ports(holder.get("inputs"))) if inside else (),
            outputs=tuple(self._ports(holder.get("outputs"))) if inside else (),
            input_node=self._pseudo_node(holder.get("inputNode"), _INPUT_NODE) if inside else "",
            output_node=self._pseudo_node(holder.get("outputNode"), _OUTPUT_NODE) if inside else "",
        )

    def _node(self, data: Any, place: Place) -> UiNode:
        if not isinstance(data, dict) or not self._is_id(data.get("id")):
            raise self._bad(f"node {place[-1]} of the file has no id")
        node_id = str(data["id"])
        kind = data.get("type")
        if not isinstance(kind, str) or not kind:
            raise self._bad(f"node {node_id} has no type", node_id)
        mode, order = data.get("mode"), data.get("order")
        values, named = data.get("widgets_values"), data.get("widgets_values_named")
        title = data.get("title")
        return UiNode(
            id=node_id,
            type=kind,
            mode=mode if isinstance(mode, int) else 0,
            title=title if isinstance(title, str) else "",
            order=order if isinstance(order, int) else None,
            inputs=tuple(self._slot(slot, node_id) for slot in self._list(data.get("inputs"), "inputs", node_id)),
            outputs=tuple(
                _type(slot.get("type") if isinstance(slot, dict) else None)
                for slot in self._list(data.get("outputs"), "outputs", node_id)
            ),
            values=values if isinstance(values, list | dict) else [],
            named_values=named if isinstance(named, dict) else {},
            proxies=tuple(_proxies(data.get("properties"))),
            place=place,
        )

    def _slot(self, data: Any, node_id: str) -> Slot:
        if not isinstance(data, dict) or not isinstance(data.get("name"), str):
            raise self._bad(f"node {node_id} has an input without a name", node_id)
        link, widget = data.get("link"), data.get("widget")
        widget_name = widget.get("name") if isinstance(widget, dict) else None
        return Slot(
            name=data["name"],
            type=_type(data.get("type")),
            link=str(link) if self._is_id(link) else None,
            widget=widget_name if isinstance(widget_name, str) else None,
        )

    def _links(self, data: Any) -> Iterator[UiLink]:
        for item in self._list(data, "links"):
            if item is None:  # old editors left holes
                continue
            if isinstance(item, dict):
                fields = [item.get(k) for k in ("id", "origin_id", "origin_slot", "target_id", "target_slot")]
            else:
                fields = list(item[:5]) if isinstance(item, list) else []
            whole = len(fields) == 5 and all(self._is_id(fields[i]) for i in (0, 1, 3))
            origin_slot = _index(fields[2]) if whole else None
            if origin_slot is None:
                raise self._bad(f"a link is malformed: {str(item)[:80]}")
            yield UiLink(str(fields[0]), str(fields[1]), origin_slot, str(fields[3]), _index(fields[4]))

    def _ports(self, data: Any) -> Iterator[Port]:
        for item in self._list(data, "a subgraph's inputs or outputs"):
            links = item.get("linkIds") or [] if isinstance(item, dict) else None
            if not isinstance(links, list):
                raise self._bad(f"an input or output of a subgraph is malformed: {str(item)[:80]}")
            yield Port(
                name=str(item.get("name", "")),
                type=_type(item.get("type")),
                links=tuple(str(link) for link in links if self._is_id(link)),
            )

    def _pseudo_node(self, data: Any, usual: str) -> str:
        named = data.get("id") if isinstance(data, dict) else None
        return str(named) if self._is_id(named) else usual

    def _list(self, data: Any, what: str, node_id: str | None = None) -> Iterable[Any]:
        if data is None:
            return ()
        where = f"node {node_id}: " if node_id else ""
        if not isinstance(data, list):
            raise self._bad(f"{where}{what} is not a list", node_id)
        if len(data) > (_MAX_SLOTS if node_id else _MAX_NODES):
            raise self._bad(f"{where}{len(data):,} {what} are absurdly many", node_id)
        return data

    def _is_id(self, value: Any) -> bool:
        return isinstance(value, int | str) and not isinstance(value, bool) and value != ""

    def _bad(self, problem: str, node_id: str | None = None) -> WorkflowError:
        return WorkflowError(f"{self._name}: {problem}", remedy="save the workflow from ComfyUI again", node_id=node_id)


def _type(value: Any) -> str:
    # Old files have a list of options for a COMBO, and 0 for "everything".
    if isinstance(value, list):
        return "COMBO"
    return value if isinstance(value, str) and value else ANY


def _index(value: Any) -> int | None:
    """A slot's index, which some editors wrote as text; None if it is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _proxies(properties: Any) -> Iterator[tuple[str, str]]:
    entries = properties.get("proxyWidgets") if isinstance(properties, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, list) and len(entry) >= 2 and isinstance(entry[1], str):
            yield str(entry[0]), entry[1]
