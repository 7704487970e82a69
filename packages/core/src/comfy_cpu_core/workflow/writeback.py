"""Writing changed values back into the UI document that a workflow was read from."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from comfy_cpu_core.errors import WorkflowError
from comfy_cpu_core.workflow.document import same_json
from comfy_cpu_core.workflow.graph import Place
from comfy_cpu_core.workflow.prompt import PromptNode

__all__ = ["InputOrigin", "Source", "write_back"]


@dataclass(frozen=True)
class InputOrigin:
    """Where an input's value stands in the UI document.

    Attributes:
        places: every place that holds it; empty if none does.
        reason: why there is none, for a message.
    """

    places: tuple[Place, ...] = ()
    reason: str = "the file has no value for it"


@dataclass(frozen=True)
class Source:
    """A workflow as it was read from a UI document.

    Attributes:
        nodes: as they were read.
        origins: node id → input → where its value stands.
    """

    nodes: Mapping[str, PromptNode]
    origins: Mapping[str, Mapping[str, InputOrigin]]


class _Change(NamedTuple):
    node_id: str
    input: str
    value: Any


def write_back(ui: Mapping[str, Any], nodes: Mapping[str, PromptNode], source: Source, name: str) -> dict[str, Any]:
    """The document with the values of `nodes` that differ from those that were read; `ui` itself stays as it is.

    Raises:
        WorkflowError: a changed value has no place of its own in the document.
    """
    written: dict[Place, _Change] = {}
    for change in _changes(nodes, source):
        if isinstance(change.value, list):
            raise _cannot(name, change, "a connection is no value")
        origin = source.origins.get(change.node_id, {}).get(change.input, InputOrigin())
        if not origin.places:
            raise _cannot(name, change, origin.reason)
        written.update(dict.fromkeys(origin.places, change))
    if written:
        _check_shared(nodes, source, written, name)
    document: dict[str, Any] = copy.deepcopy(dict(ui))
    for place, change in written.items():
        holder: Any = document
        for step in place[:-1]:
            holder = holder[step]
        holder[place[-1]] = copy.deepcopy(_unwrapped(change.value))
    return document


def _changes(nodes: Mapping[str, PromptNode], source: Source) -> Iterator[_Change]:
    for node_id, node in nodes.items():
        before = source.nodes[node_id].inputs
        for name, value in node.inputs.items():
            if name not in before or not same_json(before[name], value):
                yield _Change(node_id, name, value)


def _check_shared(nodes: Mapping[str, PromptNode], source: Source, written: Mapping[Place, _Change], name: str) -> None:
    """A place may feed several inputs (a primitive, a subgraph that is used twice): all must have the same value."""
    for node_id, origins in source.origins.items():
        for input_name, origin in origins.items():
            for place in origin.places:
                change = written.get(place)
                if change and not same_json(nodes[node_id].inputs[input_name], change.value):
                    raise _cannot(name, change, f"{node_id}.{input_name} has its value from the same place")


def _unwrapped(value: Any) -> Any:
    return value["__value__"] if isinstance(value, dict) and set(value) == {"__value__"} else value


def _cannot(name: str, change: _Change, reason: str) -> WorkflowError:
    return WorkflowError(
        f"{name}: {change.node_id}.{change.input} cannot be written back to UI format: {reason}",
        remedy="write the workflow in API format, or change it in ComfyUI's editor",
        node_id=change.node_id,
    )
