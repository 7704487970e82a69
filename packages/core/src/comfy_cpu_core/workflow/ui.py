"""From UI format to API format: what ComfyUI's editor does when a workflow is queued.

Nodes that do not run disappear, links that went through them go to where the data comes from, subgraphs are taken
apart (a node ``2`` inside node ``1`` becomes ``1:2``), and the values of widgets get the names of inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comfy_cpu_core.errors import WorkflowError
from comfy_cpu_core.nodes import NodeSignature
from comfy_cpu_core.workflow.graph import ANY, BYPASSED, MUTED, UiDocument, UiNode
from comfy_cpu_core.workflow.prompt import Link, PromptNode
from comfy_cpu_core.workflow.subgraphs import MAX_DEPTH, Scope, enter
from comfy_cpu_core.workflow.widgets import WidgetValue, read_widgets, unnamed_values
from comfy_cpu_core.workflow.workflow import Dropped, wrap_list
from comfy_cpu_core.workflow.writeback import InputOrigin

__all__ = ["Flattened", "flatten"]

#: Nodes that exist in the editor only, and what `Dropped` calls them.
_VIRTUAL = {"Reroute": "reroute", "PrimitiveNode": "primitive", "Note": "note", "MarkdownNote": "note"}

_CONNECTED = InputOrigin(reason="its value comes through a connection")

# Nested subgraphs multiply: a small file can stand for millions of nodes.
_MAX_NODES = 50_000


@dataclass(frozen=True)
class Flattened:
    """A UI document in API format; the fields are those of `Workflow`."""

    nodes: dict[str, PromptNode]
    origins: dict[str, dict[str, InputOrigin]]
    dropped: tuple[Dropped, ...]
    guessed: tuple[str, ...]


def flatten(document: UiDocument, signatures: Mapping[str, NodeSignature], name: str) -> Flattened:
    """Convert a UI document.

    Args:
        document: parsed.
        signatures: of the node classes that are known.
        name: what messages call it.

    Raises:
        WorkflowError: a link leads to a node that is not there, a subgraph contains itself, reroutes or bypassed
            nodes form a loop, or a group node is used.
    """
    return _Flattener(document, signatures, name).run()


class _Flattener:
    def __init__(self, document: UiDocument, signatures: Mapping[str, NodeSignature], name: str) -> None:
        self._document = document
        self._signatures = signatures
        self._name = name
        self._scopes: dict[str, Scope] = {}
        self._dropped: list[Dropped] = []

    def run(self) -> Flattened:
        nodes: dict[str, PromptNode] = {}
        origins: dict[str, dict[str, InputOrigin]] = {}
        guessed: list[str] = []
        for scope, node in self._real_nodes(Scope(self._document.root)):
            node_id = scope.prefix + node.id
            nodes[node_id], origins[node_id] = self._convert(scope, node, node_id)
            if node.type not in self._signatures:
                guessed.append(node_id)
            self._check_size(len(nodes))
        return Flattened(nodes, origins, tuple(self._dropped), tuple(guessed))

    def _real_nodes(self, scope: Scope) -> Iterator[tuple[Scope, UiNode]]:
        """The nodes that run, with those inside subgraphs in the place of the subgraph's node."""
        for node in scope.graph.nodes.values():
            if node.mode in {MUTED, BYPASSED}:
                self._drop(scope.prefix, node, "muted" if node.mode == MUTED else "bypassed")
            elif node.type in self._document.subgraphs:
                yield from self._real_nodes(self._inside(scope, node))
            elif node.type in _VIRTUAL and node.type not in self._signatures:
                self._drop(scope.prefix, node, _VIRTUAL[node.type])
            elif node.type.startswith(("workflow/", "workflow>")):
                raise WorkflowError(
                    f"{self._name}: node {scope.prefix}{node.id} is a group node ({node.type}), which ComfyUI has given up",
                    remedy="open the workflow in ComfyUI, convert the group node to a subgraph or ungroup it, and save",
                    node_id=scope.prefix + node.id,
                )
            else:
                yield scope, node

    def _drop(self, prefix: str, node: UiNode, reason: str, inside: tuple[str, ...] = ()) -> None:
        """Note a node that does not run; of a subgraph, everything in it too: it may hold a safety gate.

        Args:
            inside: the ids of the subgraphs that are being noted.
        """
        graph = self._document.subgraphs.get(node.type)
        self._dropped.append(Dropped(prefix + node.id, graph.name if graph else node.type, reason))
        self._check_size(len(self._dropped))
        if graph is None or graph.id in inside or len(inside) > MAX_DEPTH:
            return
        for inner in graph.nodes.values():
            if inner.type not in _VIRTUAL:
                self._drop(f"{prefix}{node.id}:", inner, reason, (*inside, graph.id))

    def _inside(self, scope: Scope, host: UiNode) -> Scope:
        prefix = f"{scope.prefix}{host.id}:"
        if prefix not in self._scopes:
            self._scopes[prefix] = enter(scope, host, self._document, self._signatures, self._name)
            self._check_size(len(self._scopes))
        return self._scopes[prefix]

    def _check_size(self, count: int) -> None:
        if count > _MAX_NODES:
            raise WorkflowError(
                f"{self._name}: more than {_MAX_NODES:,} nodes, with the insides of all subgraphs",
                remedy="this is no workflow",
            )

    def _convert(self, scope: Scope, node: UiNode, node_id: str) -> tuple[PromptNode, dict[str, InputOrigin]]:
        signature = self._signatures.get(node.type)
        widgets = read_widgets(node, signature)
        if signature is None and (unnamed := unnamed_values(node, widgets)):
            values = "value" if unnamed == 1 else "values"
            self._dropped.append(Dropped(node_id, node.type, f"{unnamed} widget {values} without a name"))
        inputs: dict[str, Any] = {}
        origins: dict[str, InputOrigin] = {}
        for widget in widgets:
            shown = scope.shown.get((node.id, widget.name), widget)
            inputs[widget.name], origins[widget.name] = wrap_list(shown.value), InputOrigin(shown.places)
        for index, slot in enumerate(node.inputs):
            source = self._resolve(scope, node, index)
            if isinstance(source, Link):
                inputs[slot.name], origins[slot.name] = [source.node_id, source.output], _CONNECTED
            elif source is not None:
                inputs[slot.name], origins[slot.name] = wrap_list(source.value), InputOrigin(source.places)
        return PromptNode(node_id, node.type, inputs, node.title), origins

    def _resolve(self, scope: Scope, node: UiNode, index: int) -> Link | WidgetValue | None:
        """Follow an input's link to the output, or the value, that it stands for; None if it leads nowhere.

        A link to a muted node leads nowhere: an input that is a widget then keeps its own value.
        """
        at = scope.prefix + node.id
        link_id, kind = node.inputs[index].link, node.inputs[index].type
        shown: WidgetValue | None = None
        seen: set[tuple[str, str]] = set()
        while link_id is not None:
            link = scope.graph.links.get(link_id)
            if link is None:
                raise self._broken(at, f"the link {link_id}, which the file does not have")
            if (scope.prefix, link_id) in seen:
                raise self._broken(at, "a loop of reroutes or bypassed nodes")
            seen.add((scope.prefix, link_id))
            if scope.host is not None and scope.parent is not None and link.origin == scope.graph.input_node:
                # Out of a subgraph: on with what its node is connected to, or with the value that its node shows.
                shown = scope.promoted.get(link.origin_slot, shown)
                position = scope.host_inputs.get(link.origin_slot)
                slot = None if position is None else scope.host.inputs[position]
                scope, link_id, kind = scope.parent, slot.link if slot else None, slot.type if slot else kind
                continue
            shown = None
            origin = scope.graph.nodes.get(link.origin)
            if origin is None:
                raise self._broken(at, f"node {scope.prefix}{link.origin}, which the file does not have")
            if origin.mode == MUTED:
                return None
            if origin.mode == BYPASSED:
                position = _bypass(origin, link.origin_slot, kind)
                if position is None:
                    return None
                link_id, kind = origin.inputs[position].link, origin.inputs[position].type
            elif origin.type in self._document.subgraphs:
                scope = self._inside(scope, origin)
                inner = scope.graph.output_link(link.origin_slot)
                link_id = inner.id if inner else None
            elif origin.type in self._signatures or origin.type not in _VIRTUAL:
                return Link(scope.prefix + origin.id, link.origin_slot)
            elif origin.type == "PrimitiveNode":
                return _primitive_value(origin)
            else:  # a reroute; a note has no outputs
                link_id = origin.inputs[0].link if origin.inputs else None
        return shown

    def _broken(self, node_id: str, where: str) -> WorkflowError:
        return WorkflowError(
            f"{self._name}: an input of node {node_id} is connected to {where}",
            remedy="open the workflow in ComfyUI, mend the connection, and save it",
            node_id=node_id,
        )


def _primitive_value(node: UiNode) -> WidgetValue | None:
    if isinstance(node.values, list) and node.values:
        return WidgetValue("value", node.values[0], ((*node.place, "widgets_values", 0),))
    return None


def _bypass(node: UiNode, output: int, wanted: str) -> int | None:
    """The input that takes the place of a bypassed node's output; None if no type matches.

    Args:
        wanted: the type of the input that the output was connected to.
    """
    if wanted == ANY:
        return (output if output < len(node.inputs) else 0) if node.inputs else None
    given = node.outputs[output] if output < len(node.outputs) else ANY
    fitting = [
        index for index, slot in enumerate(node.inputs) if _connects(slot.type, given) and _connects(slot.type, wanted)
    ]
    if output in fitting:
        return output
    exact = [index for index, slot in enumerate(node.inputs) if slot.type == wanted]
    return next(iter(exact or fitting), None)


def _connects(one: str, other: str) -> bool:
    """Whether two types may be connected; a type may list several, with commas, in any case."""
    if ANY in {one, other}:
        return True
    ones, others = ({part.strip().casefold() for part in kind.split(",")} for kind in (one, other))
    return bool(ones & others) or ANY in ones | others
