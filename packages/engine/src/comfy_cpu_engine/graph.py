"""The workflow as a graph: its nodes, what depends on what, and in which order to run it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from comfy_cpu_core.errors import ComfyCpuError
from comfy_cpu_core.workflow import PromptNode, is_link

__all__ = ["Cycle", "dependencies", "order"]


class Cycle(ComfyCpuError):
    """Nodes that depend on each other.

    Attributes:
        path: their ids in the direction in which data flow; the first is the last, too.
    """

    def __init__(self, path: tuple[str, ...]) -> None:
        super().__init__("nodes depend on each other in a cycle: " + " -> ".join(path))
        self.path = path


def dependencies(node: PromptNode, nodes: Mapping[str, PromptNode]) -> Iterator[str]:
    """The ids of the nodes that a node is connected to, as far as there are such nodes; may repeat.

    ComfyUI follows the connections of inputs that the class does not declare as well, so they count here.
    """
    for value in node.inputs.values():
        if is_link(value) and value[0] in nodes:
            yield value[0]


def order(start: Iterable[str], nodes: Mapping[str, PromptNode]) -> list[str]:
    """All nodes that `start` needs, and those themselves, each after what it depends on.

    Nodes that lie behind one output node stay together, so that its intermediate results can go early.

    Raises:
        Cycle: nodes depend on each other.
    """
    done: dict[str, None] = {}
    for first in start:
        if first in done:
            continue
        # The path from `first` to the node that is looked at, with what is left to look at of each node on it.
        path = {first: dependencies(nodes[first], nodes)}
        while path:
            current, rest = next(reversed(path.items()))
            needed = next((other for other in rest if other not in done), None)
            if needed is None:
                done[current] = None
                del path[current]
            elif needed in path:
                ids = list(path)
                raise Cycle((needed, *reversed(ids[ids.index(needed) :])))
            else:
                path[needed] = dependencies(nodes[needed], nodes)
    return list(done)
