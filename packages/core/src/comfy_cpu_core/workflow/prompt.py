"""A workflow in API format: what ComfyUI calls a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeGuard

__all__ = ["Link", "PromptNode", "is_link"]


class Link(NamedTuple):
    """The output of another node that an input is connected to."""

    node_id: str
    output: int


def is_link(value: Any) -> TypeGuard[list[Any]]:
    """Whether an input's value in API format is a connection: ``["4", 0]``.

    ComfyUI reads every list of two whose first item is a string and whose second is a whole number as one.
    """
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
        and not isinstance(value[1], bool)
    )


@dataclass(frozen=True)
class PromptNode:
    """One node of a workflow in API format.

    Attributes:
        id: unique in the workflow; ``1:2`` for a node inside a subgraph.
        class_type: the name of its class.
        inputs: name → value, or ``[node id, output index]`` for a connection. Never changed in place.
        title: what the user called it, or empty.
    """

    id: str
    class_type: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""

    def links(self) -> Iterator[tuple[str, Link]]:
        """The connected inputs: name and where each comes from."""
        for name, value in self.inputs.items():
            if is_link(value):
                yield name, Link(value[0], int(value[1]))

    def widget(self, name: str) -> Any:
        """The value of an input that is not connected; None if it is connected or absent."""
        value = self.inputs.get(name)
        return None if is_link(value) else value

    def to_json(self) -> dict[str, Any]:
        """The node as API format has it."""
        node: dict[str, Any] = {"class_type": self.class_type, "inputs": dict(self.inputs)}
        if self.title:
            node["_meta"] = {"title": self.title}
        return node
