"""`Workflow`: what the rest of comfy-cpu works on. Never changed in place: an edit gives a new one."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from comfy_cpu_core.errors import WorkflowError
from comfy_cpu_core.workflow.document import check_json
from comfy_cpu_core.workflow.prompt import Link, PromptNode, is_link
from comfy_cpu_core.workflow.writeback import Source, write_back

__all__ = ["Dropped", "Workflow", "wrap_list"]


@dataclass(frozen=True)
class Dropped:
    """Something that the conversion from UI to API format left out, as ComfyUI's editor would.

    Attributes:
        reason: ``muted``, ``bypassed``, ``note``, ``reroute``, ``primitive`` (its value went into the inputs that it
            was connected to), or ``N widget values without a name`` (the class is unknown and the file names none).
    """

    node_id: str
    class_type: str
    reason: str


@dataclass(frozen=True)
class Workflow:
    """A workflow, ready to be edited, converted and run.

    Attributes:
        nodes: by id, in the order of the file (API format) or of execution (UI format).
        source_format: what it was read from.
        ui: the UI document that it was read from, or None. Never changed.
        name: what messages call it: the file's name.
        dropped: what the conversion from UI format left out.
        guessed: ids of nodes whose class is unknown, so that the names of their widgets come from the file itself.
        declared: node id → names of the inputs that its class declares, as far as the class is known: such an input
            may be set even where the workflow does not have it yet.
        source: for `to_ui`; None unless the workflow was read from UI format.
    """

    nodes: Mapping[str, PromptNode]
    source_format: Literal["api", "ui"] = "api"
    ui: Mapping[str, Any] | None = field(default=None, repr=False)
    name: str = "workflow"
    dropped: tuple[Dropped, ...] = ()
    guessed: tuple[str, ...] = ()
    declared: Mapping[str, frozenset[str]] = field(default_factory=dict, repr=False, compare=False)
    source: Source | None = field(default=None, repr=False, compare=False)

    def to_prompt(self) -> dict[str, dict[str, Any]]:
        """The workflow in API format: node id → ``{"class_type", "inputs", "_meta"}``. The caller may change it."""
        return {node_id: copy.deepcopy(node.to_json()) for node_id, node in self.nodes.items()}

    def links(self) -> Iterator[tuple[str, str, Link]]:
        """Every connection: node id, input, and where it comes from."""
        for node_id, node in self.nodes.items():
            for name, link in node.links():
                yield node_id, name, link

    def with_input(self, key: str, value: Any) -> Workflow:
        """A copy with one input set; see `with_inputs`."""
        return self.with_inputs({key: value})

    def with_inputs(self, values: Mapping[str, Any]) -> Workflow:
        """A copy with inputs set.

        Args:
            values: ``NODE.INPUT`` (``4.provider``, ``1:2.seed``) → value. A value takes the place of a connection. A
                list like ``["4", 0]`` that names a node of the workflow is a connection; other lists are values.

        Raises:
            WorkflowError: there is no such node or input, or the value is not JSON; the message names what is near.
        """
        nodes = dict(self.nodes)
        for key, value in values.items():
            node_id, name = self._find(key)
            check_json(value, f"value of {key}")
            node = nodes[node_id]
            nodes[node_id] = replace(node, inputs={**node.inputs, name: self._as_input(key, value)})
        return replace(self, nodes=nodes)

    def to_ui(self) -> dict[str, Any]:
        """The UI document with the changed values written into it; everything else as it was read.

        Raises:
            WorkflowError: the workflow was not read from UI format, or a changed value has no place in the document.
        """
        if self.ui is None or self.source is None:
            raise WorkflowError(
                f"{self.name}: it was read in API format, so there is no UI format to write",
                remedy="write it in API format, or convert the file that ComfyUI's editor saved",
            )
        return write_back(self.ui, self.nodes, self.source, self.name)

    def _find(self, key: str) -> tuple[str, str]:
        # Input names may hold dots, and so may node ids that a program made: the shortest id that exists is meant.
        dots = [index for index, character in enumerate(key) if character == "."]
        if not dots or dots[0] == 0 or not key[dots[0] + 1 :]:
            raise WorkflowError(f"{key!r} does not name an input", remedy="write NODE.INPUT, for example 4.provider")
        for index in dots:
            if key[:index] in self.nodes:
                return key[:index], self._input_name(key[:index], key[index + 1 :])
        raise self._no_node(*key.split(".", 1))

    def _input_name(self, node_id: str, name: str) -> str:
        node = self.nodes[node_id]
        known = [*node.inputs, *sorted(self.declared.get(node_id, frozenset()) - set(node.inputs))]
        if name in known:
            return name
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:8]
        raise WorkflowError(
            f"{self.name}: node {node_id} ({node.class_type}) has no input {name!r}",
            remedy=f"its inputs: {', '.join(near)}" if near else "the node has no inputs",
            node_id=node_id,
        )

    def _no_node(self, node_id: str, name: str) -> WorkflowError:
        gone = next((item for item in self.dropped if item.node_id == node_id), None)
        if gone is not None:
            return WorkflowError(
                f"{self.name}: node {node_id} ({gone.class_type}) does not run: {gone.reason}",
                remedy="set an input of a node that runs",
                node_id=node_id,
            )
        # Who types a class or a title means the nodes of that class or title.
        wanted = node_id.casefold()
        same = [n for n in self.nodes.values() if wanted in {n.class_type.casefold(), n.title.casefold()}]
        near = same or [self.nodes[i] for i in difflib.get_close_matches(node_id, list(self.nodes), n=3)]
        near = near or [node for node in self.nodes.values() if name in node.inputs] or list(self.nodes.values())
        shown = ", ".join(f"{node.id} ({node.class_type})" for node in near[:5])
        return WorkflowError(f"{self.name}: there is no node {node_id!r}", remedy=f"nodes near that: {shown}")

    def _as_input(self, key: str, value: Any) -> Any:
        if is_link(value):
            if value[0] not in self.nodes:
                raise WorkflowError(
                    f"value of {key}: there is no node {value[0]!r} to connect to",
                    remedy='a list of two is a connection; write {"__value__": [...]} for a list',
                )
            if value[1] != int(value[1]) or value[1] < 0:
                raise WorkflowError(
                    f"value of {key}: no node has an output {value[1]}", remedy="outputs are counted 0, 1, 2, …"
                )
            return list(value)
        return wrap_list(copy.deepcopy(value))


def wrap_list(value: Any) -> Any:
    """A list as an input's value: wrapped, as ComfyUI does, so that nobody takes it for a connection."""
    return {"__value__": value} if isinstance(value, list) else value
