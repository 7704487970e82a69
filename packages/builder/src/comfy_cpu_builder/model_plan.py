"""Which models an image must have: what every node of its workflows names, each accounted for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from comfy_cpu_core.errors import ModelError
from comfy_cpu_core.models import ModelNeed, ModelSpec

if TYPE_CHECKING:
    from comfy_cpu_builder.workflows import PlannedWorkflow
    from comfy_cpu_core.workflow import PromptNode

__all__ = ["NodeAnswer", "PlannedModel", "plan_models"]

#: What files of weights end in; an input with such a value is a loader's.
_SUFFIXES = frozenset({".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx"})

_HOW = "add a [[models]] with id, source, target and licence to the spec, or install the plugin that knows it"


@dataclass(frozen=True)
class NodeAnswer:
    """What a plugin said a node of a workflow needs."""

    workflow: str
    node_id: str
    plugin: str
    need: ModelNeed


@dataclass(frozen=True)
class PlannedModel:
    """A model that goes into the image.

    Attributes:
        spec: where it comes from and where it goes.
        needed_by: the nodes that need it, as ``workflow: node 4 (Class)``.
    """

    spec: ModelSpec
    needed_by: tuple[str, ...]


def plan_models(
    workflows: Iterable[PlannedWorkflow],
    answers: Iterable[NodeAnswer],
    known: Mapping[str, ModelSpec],
    overrides: Iterable[ModelSpec],
) -> tuple[PlannedModel, ...]:
    """The models of an image, by id.

    Args:
        answers: what the plugins said.
        known: the models of all plugins, by id.
        overrides: the spec's own models: they go before a plugin's of the same id, and stand for files that no plugin
            knows.

    Raises:
        ModelError: a model cannot be resolved; the error names workflow, node, input and value.
    """
    own = {spec.id: spec for spec in overrides}
    specs = {**known, **own}
    by_node: dict[tuple[str, str], list[ModelNeed]] = {}
    for answer in answers:
        by_node.setdefault((answer.workflow, answer.node_id), []).append(answer.need)
    used: dict[str, list[str]] = {}
    for workflow in workflows:
        for node in workflow.nodes.values():
            who = f"{workflow.name}: node {node.id} ({node.class_type})"
            for model_id in _models_of_node(who, node, by_node.get((workflow.name, node.id), []), specs, own):
                users = used.setdefault(model_id, [])
                if who not in users:
                    users.append(who)
    return tuple(PlannedModel(specs[model_id], tuple(users)) for model_id, users in sorted(used.items()))


def _models_of_node(
    who: str, node: PromptNode, needs: list[ModelNeed], specs: Mapping[str, ModelSpec], own: Mapping[str, ModelSpec]
) -> list[str]:
    found: list[str] = []
    accounted: set[str] = set()
    for need in needs:
        if need.input is not None:
            accounted.add(need.input)
        if need.model_id is None:
            found.append(_own_model(who, need, own))
        elif need.model_id in specs:
            found.append(need.model_id)
        else:
            raise ModelError(f"{who} needs the model {need.model_id!r}, which no plugin knows", remedy=_HOW)
    named = {PureWindowsPath(file.path).name for model in found for file in specs[model].files}
    for name, value in node.inputs.items():
        if name in accounted or not isinstance(value, str) or not _names_weights(value):
            continue
        if PureWindowsPath(value).name in named:  # the model that the class implies
            continue
        found.append(_own_model(who, ModelNeed(None, name, value), own))
    return found


def _names_weights(value: str) -> bool:
    return "\n" not in value and PureWindowsPath(value).suffix.lower() in _SUFFIXES


def _own_model(who: str, need: ModelNeed, own: Mapping[str, ModelSpec]) -> str:
    """The model of the spec that meets a need which no plugin meets."""
    wanted = need.target if need.target is not None else PureWindowsPath(str(need.value)).name
    for spec in own.values():
        for file in spec.files:
            for place in file.places:
                if wanted == (place if need.target is not None else PurePosixPath(place).name):
                    return spec.id
    asked = f" {need.input}={need.value!r}" if need.input else ""
    where = f" ({need.target} in the model tree)" if need.target else ""
    reason = f": {need.reason}" if need.reason else ""
    raise ModelError(f"{who}: no known model fits{asked}{where}{reason}", remedy=_HOW)
