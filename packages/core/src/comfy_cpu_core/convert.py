"""CPU conversion: what changes in a workflow so that it runs without a GPU, and the report of it.

Plugins know what a node of theirs needs (hook ``comfy_cpu_convert_node``); this module asks them, applies what they
say, and reports it. Nothing is changed silently.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from comfy_cpu_core.errors import UsageError
from comfy_cpu_core.plugins import DISABLED_VARIABLE, Plugins
from comfy_cpu_core.workflow.document import check_json, same_json
from comfy_cpu_core.workflow.prompt import PromptNode
from comfy_cpu_core.workflow.workflow import Dropped, Workflow, wrap_list

if TYPE_CHECKING:
    from comfy_cpu_core.registry import NodeRegistry

__all__ = [
    "CannotRun",
    "Change",
    "InputChange",
    "PluginProblem",
    "Report",
    "StuckNode",
    "UnknownNode",
    "gates_left_out",
    "looks_like_gate",
    "provider_to_cpu",
    "to_cpu",
]

# What node packs call the ways to run a model on a GPU, folded to lower case.
_GPU_PROVIDERS = frozenset(
    {"cuda", "gpu", "directml", "dml", "tensorrt", "rocm", "migraphx", "coreml", "mps", "xpu", "webgpu"}
)
_ONNX_SUFFIX = "ExecutionProvider"

# How classes that look for what must not be shown are called, here and in other packs, folded to lower case.
_GATES = ("safety", "nsfw", "nude", "censor", "moderat")


@dataclass(frozen=True)
class InputChange:
    """A plugin's wish to change one input of a node (hook ``comfy_cpu_convert_node``).

    Attributes:
        input: the input's name.
        new: its new value.
        reason: why, in words that the user understands.
    """

    input: str
    new: Any
    reason: str


@dataclass(frozen=True)
class CannotRun:
    """A plugin's word that a node cannot run on a CPU, and why."""

    reason: str


@dataclass(frozen=True)
class Change:
    """An input that was changed.

    Attributes:
        old: its value before; None if the node had none.
        plugin: the plugin that asked for it.
    """

    node_id: str
    class_type: str
    input: str
    old: Any
    new: Any
    reason: str
    plugin: str = ""


@dataclass(frozen=True)
class StuckNode:
    """A node that cannot run on a CPU."""

    node_id: str
    class_type: str
    reason: str


@dataclass(frozen=True)
class UnknownNode:
    """A node whose class nobody knows: neither a plugin nor a ComfyUI that was asked."""

    node_id: str
    class_type: str


@dataclass(frozen=True)
class PluginProblem:
    """A plugin that failed when it was asked about a node, so that the node may need changes that were not made."""

    node_id: str
    class_type: str
    plugin: str
    problem: str


@dataclass(frozen=True)
class Report:
    """What the conversion of a workflow changed, and what stands in the way of running it on a CPU.

    Attributes:
        dropped: what does not run anyway, as `Workflow.dropped`.
        guessed: ids of nodes whose inputs have their names from the file, as `Workflow.guessed`.
    """

    changes: tuple[Change, ...] = ()
    cannot_run: tuple[StuckNode, ...] = ()
    unknown: tuple[UnknownNode, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    guessed: tuple[str, ...] = ()
    problems: tuple[PluginProblem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every node is known, can run on a CPU, and could be asked about."""
        return not (self.cannot_run or self.unknown or self.problems)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON can hold it. Fields are only ever added.

        ``{"ok": bool,
        "changes": [{"node_id", "class_type", "input", "old", "new", "reason", "plugin"}],
        "cannot_run": [{"node_id", "class_type", "reason"}],
        "unknown": [{"node_id", "class_type"}],
        "dropped": [{"node_id", "class_type", "reason"}],
        "guessed": [node id],
        "problems": [{"node_id", "class_type", "plugin", "problem"}]}``
        """
        return {
            "ok": self.ok,
            "changes": [dict(vars(change)) for change in self.changes],
            "cannot_run": [dict(vars(node)) for node in self.cannot_run],
            "unknown": [dict(vars(node)) for node in self.unknown],
            "dropped": [dict(vars(node)) for node in self.dropped],
            "guessed": list(self.guessed),
            "problems": [dict(vars(problem)) for problem in self.problems],
        }


def to_cpu(workflow: Workflow, plugins: Plugins, known: NodeRegistry) -> tuple[Workflow, Report]:
    """Convert a workflow so that it runs on a CPU.

    Args:
        workflow: as loaded and edited; not changed.
        plugins: asked about every node, in the order of node ids.
        known: the node classes that can run.

    Returns:
        The converted workflow and the report. The workflow is whole even where the report is not ok.

    Raises:
        UsageError: two plugins set the same input to different values, or one sets an input that does not exist.
        WorkflowError: a plugin gives a value that is not JSON.
    """
    nodes = dict(workflow.nodes)
    changes: list[Change] = []
    cannot_run: list[StuckNode] = []
    unknown: list[UnknownNode] = []
    problems: list[PluginProblem] = []
    for node_id in sorted(nodes, key=_id_order):
        node = nodes[node_id]
        if node.class_type not in known.signatures:
            unknown.append(UnknownNode(node_id, node.class_type))

        def note(plugin: str, problem: str, node: PromptNode = node) -> None:
            problems.append(PluginProblem(node.id, node.class_type, plugin, problem))

        wishes: list[tuple[str, InputChange]] = []
        for plugin, answer in plugins.collect("comfy_cpu_convert_node", on_problem=note, node=node):
            if isinstance(answer, InputChange):
                wishes.append((plugin, answer))
            elif isinstance(answer, CannotRun):
                cannot_run.append(StuckNode(node_id, node.class_type, answer.reason))
            else:
                note(plugin, f"it answered {type(answer).__name__}, neither InputChange nor CannotRun")
        made = _apply(node, wishes, workflow.declared.get(node_id, frozenset()))
        if made:
            nodes[node_id] = replace(node, inputs={**node.inputs, **{change.input: change.new for change in made}})
            changes += made
    report = Report(
        changes=tuple(changes),
        cannot_run=tuple(cannot_run),
        unknown=tuple(unknown),
        dropped=workflow.dropped,
        guessed=workflow.guessed,
        problems=tuple(problems),
    )
    return replace(workflow, nodes=nodes), report


def gates_left_out(workflow: Workflow) -> tuple[str, ...]:
    """A warning for every muted or bypassed node that seems to be a safety gate.

    Judged by the class's name, since it may be a class that nobody here knows. The report has all nodes that were left
    out, whatever they are called.
    """
    return tuple(
        f"the safety check of node {node.node_id} ({node.class_type}) was left out: it is {node.reason} in the workflow"
        for node in workflow.dropped
        if node.reason in {"muted", "bypassed"} and looks_like_gate(node.class_type)
    )


def looks_like_gate(class_type: str) -> bool:
    """Whether a class is called like one that looks for what must not be shown; it may be a class of any pack."""
    return any(word in class_type.casefold() for word in _GATES)


def provider_to_cpu(node: PromptNode, input: str = "provider") -> Iterator[InputChange]:  # noqa: A002
    """The change of an execution provider to the CPU, for plugins whose nodes have such an input.

    Knows what node packs call GPU providers (``CUDA``, ``DirectML``, …, ``CUDAExecutionProvider``) and keeps to the
    way in which the value was written. Gives nothing for a node without that input, and for any other value.
    """
    value = node.widget(input)
    if not isinstance(value, str):
        return
    name = value.removesuffix(_ONNX_SUFFIX)
    if name.partition(":")[0].casefold() not in _GPU_PROVIDERS:
        return
    cpu = "cpu" if name.islower() else "CPU"
    new = cpu + _ONNX_SUFFIX if name != value else cpu
    yield InputChange(input, new, f"there is no {name} on a CPU machine: the model runs on the CPU")


def _apply(node: PromptNode, wishes: list[tuple[str, InputChange]], declared: frozenset[str]) -> list[Change]:
    """The changes that plugins' wishes come to; a wish for the value that is there already is none."""
    agreed: dict[str, Change] = {}
    for plugin, wish in wishes:
        if wish.input not in node.inputs and wish.input not in declared:
            raise UsageError(
                f"plugin {plugin!r} sets the input {wish.input!r} of node {node.id} ({node.class_type}), "
                "which has no such input",
                remedy=f"report it to the plugin's author, or leave the plugin out with {DISABLED_VARIABLE}",
            )
        check_json(wish.new, f"the value of plugin {plugin!r} for {node.id}.{wish.input}")
        old, new = node.inputs.get(wish.input), wrap_list(wish.new)
        earlier = agreed.setdefault(
            wish.input, Change(node.id, node.class_type, wish.input, old, new, wish.reason, plugin)
        )
        if not same_json(earlier.new, new):
            raise UsageError(
                f"plugins {earlier.plugin!r} and {plugin!r} set {node.id}.{wish.input} ({node.class_type}) "
                f"to different values: {earlier.new!r} and {new!r}",
                remedy=f"leave one of them out with {DISABLED_VARIABLE}",
            )
    return [change for change in agreed.values() if not same_json(change.old, change.new)]


def _id_order(node_id: str) -> list[tuple[bool, int, str]]:
    """``2`` before ``10``, ``1:2`` after ``1``, names after numbers."""
    numbers = [int(part) if part.isdecimal() and len(part) < 20 else None for part in node_id.split(":")]
    return [(n is None, n or 0, part) for n, part in zip(numbers, node_id.split(":"), strict=True)]
