"""Validating a prompt before it runs, with ComfyUI's error shape.

Differences from ComfyUI 0.3.64, apart from those in `comfy_cpu_engine.checks`:

- ComfyUI runs the outputs that are valid and leaves out the others. Here one invalid node stops the run: what is left
  out may be the branch with the safety check. Only an output node that is connected to nothing and lacks an input is
  left out, with a warning: nothing is lost with it, and workflows often have one standing about.
- Connections to a node or an output that does not exist are ``bad_linked_input``, and nodes in a cycle
  ``dependency_cycle`` (ComfyUI: ``exception_during_validation``). An unknown class is ``missing_node_type``, as in
  newer versions (0.3.64: ``invalid_prompt``).
- ``*`` in a plain class is any type on either side of a connection; ComfyUI needs a trick for that.
"""

from __future__ import annotations

import traceback
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from comfy_cpu_core.errors import UsageError, WorkflowInvalid
from comfy_cpu_core.nodes import InputSpec
from comfy_cpu_core.workflow import PromptNode, is_link
from comfy_cpu_engine.checks import Problem, check_value, convert_value, fits, shown
from comfy_cpu_engine.graph import Cycle, order
from comfy_cpu_engine.inputs import Hidden, gather
from comfy_cpu_engine.kinds import Kind, NodeSource
from comfy_cpu_engine.mapping import call_over_lists

__all__ = ["ValidPrompt", "validate"]

_FAILED = "prompt_outputs_failed_validation"


@dataclass(frozen=True)
class ValidPrompt:
    """A prompt that may run.

    Attributes:
        nodes: what is to be run or read from the cache, each after what it depends on; values are converted.
        outputs: the output nodes among them, in the prompt's order.
        kinds: class_type → the class, for these nodes.
        warnings: what was left out.
    """

    nodes: Mapping[str, PromptNode]
    outputs: tuple[str, ...]
    kinds: Mapping[str, Kind]
    warnings: tuple[str, ...] = ()

    def kind(self, node_id: str) -> Kind:
        """The class of a node."""
        return self.kinds[self.nodes[node_id].class_type]


def validate(
    prompt: Mapping[str, Mapping[str, Any]],
    registry: NodeSource,
    *,
    hidden: Hidden | None = None,
    only: Collection[str] | None = None,
) -> ValidPrompt:
    """Check a prompt against its node classes, and convert its values.

    Args:
        prompt: in API format; not changed.
        hidden: what VALIDATE_INPUTS may ask for.
        only: run these output nodes alone.

    Raises:
        WorkflowInvalid: its message names the first node and input that is wrong, `node_errors` has all.
        UsageError: `only` names no output node.
    """
    nodes = _read(prompt)
    kinds = _kinds(nodes, registry)
    outputs = [node_id for node_id, node in nodes.items() if kinds[node.class_type].signature.output_node]
    if only is not None:
        if strange := set(only) - set(outputs):
            raise UsageError(f"node {min(strange)} is no output node of this workflow")
        outputs = [node_id for node_id in outputs if node_id in only]
    if not outputs:
        _refuse_all("prompt_no_outputs", "Prompt has no outputs", "the workflow has no output node, such as SaveImage")
    outputs, warnings = _without_loose_ends(outputs, nodes, kinds)
    try:
        ordered = order(outputs, nodes)
    except Cycle as cycle:
        node = nodes[cycle.path[0]]
        path = " -> ".join(cycle.path)
        found = Problem("dependency_cycle", "Dependency cycle detected", path, f"it depends on itself: {path}")
        _refuse({node.id: [found]}, nodes, outputs=())
    check = _Validation(nodes, kinds, hidden or Hidden(prompt))
    problems: dict[str, list[Problem]] = {}
    checked: dict[str, PromptNode] = {}
    for node_id in ordered:
        checked[node_id], found_here = check.node(nodes[node_id])
        if found_here:
            problems[node_id] = found_here
    if problems:
        _refuse(problems, nodes, outputs)
    used = {node.class_type for node in checked.values()}
    return ValidPrompt(checked, tuple(outputs), {name: kinds[name] for name in used}, tuple(warnings))


def _read(prompt: Any) -> dict[str, PromptNode]:
    if not isinstance(prompt, Mapping):
        _refuse_all("invalid_prompt", "The prompt is no object", "the workflow is not an object of nodes by their ids")
    if not prompt:
        _refuse_all("prompt_no_outputs", "Prompt has no outputs", "the workflow is empty: it has no nodes")
    nodes = {}
    for node_id, node in prompt.items():
        wrong = None
        if not isinstance(node_id, str):
            wrong = f"node id {node_id!r} is not a text"
        elif not isinstance(node, Mapping):
            wrong = f"node {node_id} is {shown(node)}, not an object with class_type and inputs"
        elif not isinstance(node.get("class_type"), str):
            wrong = f"node {node_id} has no class_type"
        elif not isinstance(node.get("inputs", {}), Mapping):
            wrong = f"node {node_id} ({node['class_type']}) has inputs that are not an object"
        if wrong is not None:
            _refuse_all("invalid_prompt", f"Cannot execute because {wrong}.", wrong, f"Node ID '#{node_id}'")
        title = (node.get("_meta") or {}).get("title") or ""
        nodes[node_id] = PromptNode(node_id, node["class_type"], dict(node.get("inputs", {})), str(title))
    return nodes


def _kinds(nodes: Mapping[str, PromptNode], registry: NodeSource) -> dict[str, Kind]:
    """The class of every node, also of those that do not run: ComfyUI, too, wants to know them all."""
    kinds: dict[str, Kind] = {}
    problems: dict[str, list[Problem]] = {}
    for node in nodes.values():
        if node.class_type in kinds:
            continue
        found = registry.get(node.class_type)
        if found is None:
            problems[node.id] = [_unknown(node)]
            continue
        try:
            kinds[node.class_type] = Kind.read(found)
        except Exception as error:
            problems[node.id] = [_exception(error, "INPUT_TYPES of its class failed")]
    if problems:
        _refuse(problems, nodes, outputs=())
    return kinds


def _unknown(node: PromptNode) -> Problem:
    return Problem(
        "missing_node_type",
        f"Cannot execute because node {node.class_type} does not exist.",
        f"Node ID '#{node.id}'",
        f"nothing here knows the class {node.class_type!r}, so this workflow needs ComfyUI",
        {"node_id": node.id, "class_type": node.class_type},
        "run it on a ComfyUI that has the class, or install a plugin that brings it; "
        "`comfy-cpu nodes list` shows what is known here",
    )


def _without_loose_ends(
    outputs: list[str], nodes: Mapping[str, PromptNode], kinds: Mapping[str, Kind]
) -> tuple[list[str], list[str]]:
    """Leave out output nodes that are connected to nothing and lack an input, if any others are left."""
    kept, warnings = [], []
    for node_id in outputs:
        node = nodes[node_id]
        missing = [
            spec.name
            for spec in kinds[node.class_type].signature.inputs
            if spec.section == "required" and spec.name not in node.inputs
        ]
        if missing and not any(is_link(value) for value in node.inputs.values()):
            warnings.append(
                f"node {node_id} ({node.class_type}) was left out: its input {missing[0]!r} is not connected"
            )
        else:
            kept.append(node_id)
    return (kept, warnings) if kept else (outputs, [])


@dataclass
class _Validation:
    nodes: Mapping[str, PromptNode]
    kinds: Mapping[str, Kind]
    hidden: Hidden

    def node(self, node: PromptNode) -> tuple[PromptNode, list[Problem]]:
        """Check one node; give it back with its values converted."""
        kind = self.kinds[node.class_type]
        inputs = dict(node.inputs)
        problems: list[Problem] = []
        received: dict[str, Any] = {}
        for spec in kind.signature.inputs:
            if spec.section == "hidden":
                continue
            if spec.name not in inputs:
                if spec.section == "required":
                    problems.append(_missing(spec))
                continue
            value = inputs[spec.name]
            if isinstance(value, list):
                problem, received[spec.name] = self._connection(spec, value, kind)
            else:
                inputs[spec.name], problem = _value(spec, value, kind)
            if problem is not None:
                problems.append(problem)
        problems.extend(self._undeclared(inputs, kind))
        checked = replace(node, inputs=inputs)
        if not problems:
            problems.extend(self._by_class(checked, kind, received))
        return checked, problems

    def _connection(self, spec: InputSpec, link: list[Any], kind: Kind) -> tuple[Problem | None, Any]:
        """Check a connection; give the type that comes in, too."""
        if wrong := self._broken(link):
            return _bad_link(spec.name, link, wrong), None
        source = self.nodes[link[0]]
        received = self.kinds[source.class_type].return_types[int(link[1])]
        if kind.validated.types or fits(received, spec):
            return None, received
        says = (
            f"input {spec.name!r} takes {spec.type}, but output {int(link[1])} of node {source.id} "
            f"({source.class_type}) is {'COMBO' if isinstance(received, list | tuple) else received}"
        )
        problem = Problem(
            "return_type_mismatch",
            "Return type mismatch between linked nodes",
            f"{spec.name}, received_type({received}) mismatch input_type({spec.type})",
            says,
            {
                "input_name": spec.name,
                "input_config": [spec.type, dict(spec.options)],
                "received_type": received,
                "linked_node": link,
            },
        )
        return problem, received

    def _broken(self, link: list[Any]) -> str | None:
        """Why a connection leads nowhere, or None."""
        if not is_link(link) or link[1] != int(link[1]):
            return "is a list, which stands for a connection, but not of a node id and an output's number"
        if link[0] not in self.nodes:
            return f"is connected to node {link[0]}, which does not exist"
        class_type = self.nodes[link[0]].class_type
        count = len(self.kinds[class_type].return_types)
        if not 0 <= link[1] < count:
            return f"is connected to output {link[1]} of node {link[0]} ({class_type}), which has {count} outputs"
        return None

    def _undeclared(self, inputs: Mapping[str, Any], kind: Kind) -> Iterator[Problem]:
        """Connections of inputs that the class does not declare: they are followed, so they must lead somewhere."""
        visible = {spec.name for spec in kind.signature.inputs if spec.section != "hidden"}
        for name, value in inputs.items():
            if name not in visible and is_link(value) and (wrong := self._broken(value)):
                yield _bad_link(name, value, wrong)

    def _by_class(self, node: PromptNode, kind: Kind, received: Mapping[str, Any]) -> Iterator[Problem]:
        """Ask the class itself (VALIDATE_INPUTS); connected inputs have no value yet, it gets None for them."""
        if not kind.validated:
            return
        method = kind.method("VALIDATE_INPUTS")
        assert method is not None  # noqa: S101  # `validated` comes from it
        try:
            gathered = gather(node, kind, self.hidden).lists
            inputs = {name: values for name, values in gathered.items() if kind.validated.covers(name)}
            if kind.validated.types:
                inputs["input_types"] = [dict(received)]
            answers = call_over_lists(method, inputs, as_lists=kind.signature.input_is_list)
        except Exception as error:
            yield _exception(error, "VALIDATE_INPUTS of its class failed")
            return
        for name in inputs:
            for answer in answers:
                if answer is not True:
                    yield _custom(node, kind.specs.get(name), name, answer)


def _value(spec: InputSpec, value: Any, kind: Kind) -> tuple[Any, Problem | None]:
    converted = convert_value(spec, value)
    if isinstance(converted, Problem):
        return value, converted
    return converted, None if kind.validated.covers(spec.name) else check_value(spec, converted)


def _missing(spec: InputSpec) -> Problem:
    says = f"required input {spec.name!r} is missing"
    return Problem("required_input_missing", "Required input is missing", spec.name, says, {"input_name": spec.name})


def _bad_link(name: str, link: Any, wrong: str) -> Problem:
    return Problem(
        "bad_linked_input",
        "Bad linked input, must be a length-2 list of [node_id, slot_index]",
        f"{name}: {wrong}",
        f"input {name!r} is {shown(link)}: it {wrong}",
        {"input_name": name, "received_value": link},
    )


def _custom(node: PromptNode, spec: InputSpec | None, name: str, answer: Any) -> Problem:
    remedy = None
    if spec is not None and spec.options.get("image_upload"):
        remedy = f"give the file with --input {node.id}.{name}=FILE"
    why = f" - {answer}" if answer is not False else ""
    return Problem(
        "custom_validation_failed",
        "Custom validation failed for node",
        f"{name}{why}",
        f"input {name!r}: {answer}" if why else f"input {name!r}: its class refuses {shown(node.inputs.get(name))}",
        {"input_name": name},
        remedy,
    )


def _exception(error: Exception, what: str) -> Problem:
    kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    return Problem(
        "exception_during_validation",
        "Exception when validating node",
        str(error),
        f"{what}: {kind}: {error}",
        {"exception_type": kind, "traceback": traceback.format_tb(error.__traceback__)},
    )


def _refuse(
    problems: Mapping[str, list[Problem]], nodes: Mapping[str, PromptNode], outputs: Collection[str]
) -> NoReturn:
    """Raise for nodes that are wrong; the first is the one that is named."""
    behind = {output: set(order([output], nodes)) for output in outputs}
    node_errors = {
        node_id: {
            "class_type": nodes[node_id].class_type,
            "dependent_outputs": [output for output, needed in behind.items() if node_id in needed],
            "errors": [problem.to_json() for problem in found],
        }
        for node_id, found in problems.items()
    }
    everything = [(node_id, problem) for node_id, found in problems.items() for problem in found]
    node_id, first = everything[0]
    more = f" (and {len(everything) - 1} more)" if len(everything) > 1 else ""
    message = " ".join(f"node {node_id} ({nodes[node_id].class_type}): {first.says}{more}".split())
    error = (
        first.to_json()
        if first.type == "missing_node_type"
        else _error(
            _FAILED, "Prompt outputs failed validation", "\n".join(f"{p.message}: {p.details}" for _, p in everything)
        )
    )
    raise WorkflowInvalid(message, node_errors=node_errors, error=error, remedy=first.remedy)


def _refuse_all(kind: str, message: str, says: str, details: str = "") -> NoReturn:
    """Raise for a prompt that is wrong as a whole."""
    raise WorkflowInvalid(says, error=_error(kind, message, details))


def _error(kind: str, message: str, details: str) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": {}}
