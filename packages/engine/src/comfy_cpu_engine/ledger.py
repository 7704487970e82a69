"""The results of a run: which are needed, which are there, and which may go."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from comfy_cpu_core.workflow import PromptNode
from comfy_cpu_engine.cache import CachedResult
from comfy_cpu_engine.graph import dependencies
from comfy_cpu_engine.validate import ValidPrompt

__all__ = ["Ledger"]


class Ledger:
    """Keeps a result until every node that takes it has run, and no longer.

    Args:
        plan: the prompt.
        look_up: gives the result that is kept of a node from an earlier run, or None. What only such a node takes
            need not run.

    Attributes:
        cached: results of earlier runs that this run uses, until they are taken over with `finish`.
        results: node id → result, while somebody waits for it.
        done: the nodes that are finished.
    """

    def __init__(self, plan: ValidPrompt, look_up: Callable[[str], CachedResult | None]) -> None:
        self._nodes = plan.nodes
        self._waiting: dict[str, set[str]] = {output: set() for output in plan.outputs}
        self.cached: dict[str, CachedResult] = {}
        self.results: dict[str, CachedResult] = {}
        self.done: set[str] = set()
        pending = list(plan.outputs)
        while pending:
            node_id = pending.pop()
            found = look_up(node_id)
            if found is not None:
                self.cached[node_id] = found
                continue
            for needed in self._needs(plan.nodes[node_id]):
                if needed not in self._waiting:
                    self._waiting[needed] = set()
                    pending.append(needed)
                self._waiting[needed].add(node_id)

    @property
    def count(self) -> int:
        """How many nodes the run has."""
        return len(self._waiting)

    def before(self, node: PromptNode) -> list[CachedResult]:
        """The results that a node takes, as far as they are there."""
        return [self.results[needed] for needed in self._needs(node) if needed in self.results]

    def finish(self, node: PromptNode, result: CachedResult) -> None:
        """Note a node's result, and drop those that nobody waits for any longer."""
        self.done.add(node.id)
        self.cached.pop(node.id, None)
        if self._waiting[node.id]:
            self.results[node.id] = result
        for needed in self._needs(node):
            waiting = self._waiting.get(needed, set())
            waiting.discard(node.id)
            if not waiting:
                self.results.pop(needed, None)

    def clear(self) -> None:
        """Drop everything."""
        self.results.clear()
        self.cached.clear()

    def _needs(self, node: PromptNode) -> Iterable[str]:
        return dict.fromkeys(dependencies(node, self._nodes))
