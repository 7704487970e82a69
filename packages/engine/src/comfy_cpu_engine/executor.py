"""Running a validated prompt, node by node.

Nodes run when something asks for them, beginning with the first output node; results go as soon as nothing needs them.
Only a run that completed has outputs: after a block nothing may leak that the gate was to guard, and a gate that failed
has let nothing through either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from comfy_cpu_core.context import RunContext, use_run
from comfy_cpu_core.results import ModelUse, NodeFailure, NodeTiming, Output, Progress, Status
from comfy_cpu_core.workflow import PromptNode, is_link
from comfy_cpu_engine.cache import CachedResult, ResultCache, read_only
from comfy_cpu_engine.failures import explain
from comfy_cpu_engine.inputs import Gathered, Hidden, gather
from comfy_cpu_engine.kinds import Kind
from comfy_cpu_engine.ledger import Ledger
from comfy_cpu_engine.limits import Limits
from comfy_cpu_engine.mapping import call_over_lists, merge_returns
from comfy_cpu_engine.validate import ValidPrompt

__all__ = ["Execution", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What came of the nodes; the fields are those of `Result`."""

    status: Status
    outputs: tuple[Output, ...]
    timings: tuple[NodeTiming, ...]
    errors: tuple[NodeFailure, ...]
    models: tuple[ModelUse, ...]
    warnings: tuple[str, ...]


@dataclass
class Execution:
    """One run of a prompt; `run` may be called once.

    Attributes:
        plan: the prompt.
        context: what every node's own context is made from.
        hidden: what hidden inputs get.
        limits: cancellation and deadline.
        cache: where results are kept between runs.
        signatures: node id → what its result is kept under, or None.
        collect: turns what a node shows (node id, class_type, ``ui``) into outputs.
    """

    plan: ValidPrompt
    context: RunContext
    hidden: Hidden
    limits: Limits
    cache: ResultCache
    signatures: Mapping[str, str | None]
    collect: Callable[[str, str, Mapping[str, Sequence[Any]]], list[Output]]

    _ledger: Ledger = field(init=False)
    _asked: dict[str, set[str]] = field(default_factory=dict)  # node id → lazy inputs that it asked for
    _instances: dict[str, Any] = field(default_factory=dict)
    _outputs: list[Output] = field(default_factory=list)
    _timings: list[NodeTiming] = field(default_factory=list)
    _models: list[ModelUse] = field(default_factory=list)
    _warnings: list[str] = field(default_factory=list)

    def run(self) -> Outcome:
        """Run every output node and what it needs."""
        self._ledger = Ledger(self.plan, self._look_up)
        stack = list(reversed(self.plan.outputs))
        while stack:
            node = self.plan.nodes[stack[-1]]
            if node.id in self._ledger.done:
                stack.pop()
            elif first := self._wanted(node):
                stack.extend(reversed(first))
            else:
                try:
                    self._visit(node)
                except (Exception, SystemExit) as error:
                    self._ledger.clear()
                    status, failure = explain(error, node.id, node.class_type, self.limits)
                    return self._outcome(status, (), (failure,))
        return self._outcome("completed", tuple(self._outputs), ())

    def _outcome(self, status: Status, outputs: tuple[Output, ...], errors: tuple[NodeFailure, ...]) -> Outcome:
        models = _merged(self._models)
        return Outcome(status, outputs, tuple(self._timings), errors, models, tuple(dict.fromkeys(self._warnings)))

    def _look_up(self, node_id: str) -> CachedResult | None:
        signature = self.signatures[node_id]
        return self.cache.get(signature) if signature is not None else None

    def _wanted(self, node: PromptNode) -> list[str]:
        """What must run before a node: all that it is connected to, but of lazy inputs only those it asked for."""
        if node.id in self._ledger.cached:
            return []
        kind, asked, done = self.plan.kind(node.id), self._asked.get(node.id, set()), self._ledger.done
        return [
            value[0]
            for name, value in node.inputs.items()
            if is_link(value) and value[0] not in done and (name in asked or not _lazy(kind, name))
        ]

    def _visit(self, node: PromptNode) -> None:
        """Bring about a node's result, or note which lazy inputs it wants first."""
        self.limits.check()
        # A node with the same signature may have run since the ledger was made.
        found = self._ledger.cached.get(node.id) or self._look_up(node.id)
        if found is not None:
            self._models.extend(found.models)
            self._warnings.extend(found.warnings)
            self._finish(node, found, 0.0, cached=True)
            return
        context = replace(self.context, node_id=node.id, class_type=node.class_type, model_uses=[], warnings=[])
        context.emit = lambda event: self._emit(
            replace(event, node_id=event.node_id or node.id, class_type=event.class_type or node.class_type)
        )
        try:
            with use_run(context):
                outputs = {node_id: result.outputs for node_id, result in self._ledger.results.items()}
                kind = self.plan.kind(node.id)
                gathered = gather(node, kind, self.hidden, outputs)
                if node.id not in self._instances:
                    self._instances[node.id] = kind.cls()
                if self._asks_for_more(node, kind, gathered):
                    return
                self._emit(Progress("started", node.id, node.class_type))
                start = time.perf_counter()
                result = self._call(node, kind, gathered, context)
                seconds = time.perf_counter() - start
        finally:
            self._models.extend(context.model_uses)
            self._warnings.extend(context.warnings)
        self.limits.check()  # a node may have swallowed the wish to stop
        self._finish(node, result, seconds, cached=False)

    def _asks_for_more(self, node: PromptNode, kind: Kind, gathered: Gathered) -> bool:
        """Whether a node wants lazy inputs that are not there yet."""
        method = getattr(self._instances[node.id], "check_lazy_status", None)
        if method is None:
            return False
        as_lists = kind.signature.input_is_list
        answers = call_over_lists(method, gathered.lists, as_lists=as_lists, check=self.limits.check)
        asked = {name for answer in answers if isinstance(answer, list) for name in answer}
        if strange := asked - set(gathered.lists):
            raise ValueError(f"the node asks for its input {min(strange)!r}, which it does not have")
        self._asked[node.id] = asked & gathered.missing
        return bool(self._asked[node.id])

    def _call(self, node: PromptNode, kind: Kind, gathered: Gathered, context: RunContext) -> CachedResult:
        """Run a node's function, and keep what came of it."""
        function = getattr(self._instances.pop(node.id), kind.function)
        as_lists = kind.signature.input_is_list
        returns = call_over_lists(function, gathered.lists, as_lists=as_lists, check=self.limits.check)
        returned = merge_returns(returns, kind.signature)
        if returned.ui:
            self._outputs.extend(self.collect(node.id, node.class_type, returned.ui))
        before = self._ledger.before(node)
        models = [*(use for result in before for use in result.models), *context.model_uses]
        warnings = [*(text for result in before for text in result.warnings), *context.warnings]
        result = CachedResult(
            [[read_only(value) for value in values] for values in returned.outputs],
            _merged(replace(use, load_seconds=0.0) for use in models),
            tuple(dict.fromkeys(warnings)),
        )
        signature = self.signatures[node.id]
        if signature is not None and not returned.ui:
            self.cache.put(signature, result)
        return result

    def _finish(self, node: PromptNode, result: CachedResult, seconds: float, *, cached: bool) -> None:
        self._ledger.finish(node, result)
        self._timings.append(NodeTiming(node.id, node.class_type, seconds, cached))
        self._emit(Progress("cached" if cached else "finished", node.id, node.class_type))

    def _emit(self, event: Progress) -> None:
        """Pass an event on, with how far the run is."""
        self.context.emit(replace(event, done=len(self._ledger.done), nodes=self._ledger.count))


def _lazy(kind: Kind, name: str) -> bool:
    spec = kind.specs.get(name)
    return spec is not None and bool(spec.options.get("lazy"))


def _merged(uses: Iterable[ModelUse]) -> tuple[ModelUse, ...]:
    """Each model once, with the time that loading it took."""
    found: dict[ModelUse, float] = {}
    for use in uses:
        key = replace(use, load_seconds=0.0)
        found[key] = max(found.get(key, 0.0), use.load_seconds)
    return tuple(replace(use, load_seconds=seconds) for use, seconds in found.items())
