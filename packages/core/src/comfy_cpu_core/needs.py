"""Which models a workflow needs, and whether they are there."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_cpu_core.errors import ModelError, ModelMissing
from comfy_cpu_core.models import ModelFile, ModelNeed, ModelSpec
from comfy_cpu_core.tree import ModelTree

if TYPE_CHECKING:
    from comfy_cpu_core.plugins import Plugins
    from comfy_cpu_core.workflow import PromptNode

__all__ = [
    "MissingModel",
    "NodeNeed",
    "find_model_file",
    "known_models",
    "missing_models",
    "models_for_prompt",
    "require_models",
]


@dataclass(frozen=True)
class NodeNeed:
    """A model that a node of a workflow needs.

    Attributes:
        node_id, class_type: the node.
        need: what its plugin said.
        spec: the model, or None where no known model fits (`need.reason` says why).
    """

    node_id: str
    class_type: str
    need: ModelNeed
    spec: ModelSpec | None


@dataclass(frozen=True)
class MissingModel:
    """A need that is not met.

    Attributes:
        need: whose need it is.
        files: the files of the model that are not there; empty if no known model fits.
    """

    need: NodeNeed
    files: tuple[ModelFile, ...]


def known_models(plugins: Plugins) -> dict[str, ModelSpec]:
    """Every model that a plugin knows, by id, sorted.

    Raises:
        UsageError: two plugins bring the same id.
    """
    return plugins.unique("comfy_cpu_models", "id", "model")


def models_for_prompt(nodes: Iterable[PromptNode], plugins: Plugins) -> list[NodeNeed]:
    """What the nodes of a workflow need, in the order of the nodes; a node names each model once.

    Raises:
        ModelError: a plugin names a model that no plugin knows.
        UsageError: two plugins bring the same model id.
    """
    known = known_models(plugins)
    found: list[NodeNeed] = []
    for node in nodes:
        seen: set[str] = set()
        for plugin, need in plugins.collect("comfy_cpu_models_for_node", node=node):
            if need.model_id is None:
                found.append(NodeNeed(node.id, node.class_type, need, None))
                continue
            if need.model_id in seen:
                continue
            seen.add(need.model_id)
            if need.model_id not in known:
                raise ModelError(
                    f"node {node.id} ({node.class_type}) needs the model {need.model_id!r}, as plugin {plugin!r} "
                    "says, but no plugin knows that model",
                    remedy="see `comfy-cpu plugins list` for a plugin that is disabled or broken",
                )
            found.append(NodeNeed(node.id, node.class_type, need, known[need.model_id]))
    return found


def find_model_file(spec: ModelSpec, file: ModelFile, tree: ModelTree) -> Path | None:
    """Where a file of a model is: in the tree, else in the installed package that it is part of; else None.

    Only looks whether it exists; `comfy_cpu_core.verify` says whether it is the right one.
    """
    for place in file.places:
        if tree.has(place):
            return tree.path(place)
    if spec.scheme == "package":
        from comfy_cpu_core.fetchers.package import package_file

        return package_file(spec.source.partition(":")[2], file.path)
    return None


def missing_models(needs: Iterable[NodeNeed], tree: ModelTree) -> list[MissingModel]:
    """The needs that the tree does not meet, in their order."""
    missing = []
    for need in needs:
        if need.spec is None:
            if need.need.target is None or not tree.has(need.need.target):
                missing.append(MissingModel(need, ()))
            continue
        files = tuple(f for f in need.spec.files if find_model_file(need.spec, f, tree) is None)
        if files:
            missing.append(MissingModel(need, files))
    return missing


def require_models(nodes: Iterable[PromptNode], plugins: Plugins, tree: ModelTree) -> list[NodeNeed]:
    """Make sure that every model is there before a run begins; give back the needs.

    A model that its node fetches may be missing.

    Raises:
        ModelMissing: one is not; the error names node, class and file, and the command that fetches it.
        ModelError: a plugin names a model that no plugin knows.
    """
    needs = models_for_prompt(nodes, plugins)
    missing = missing_models((need for need in needs if not need.need.fetched_by_node), tree)
    if not missing:
        return needs
    first = missing[0]
    who = f"node {first.need.node_id} ({first.need.class_type})"
    if first.need.spec is None and first.need.need.target is not None:
        raise ModelMissing(
            f"{who}: model file {first.need.need.target} is not in the model tree {tree.root}",
            remedy=first.need.need.reason or None,
        )
    if first.need.spec is None:
        asked = f" {first.need.need.input}={first.need.need.value!r}" if first.need.need.input else ""
        raise ModelMissing(f"{who}: no known model fits{asked}", remedy=first.need.need.reason or None)
    ids = sorted({m.need.spec.id for m in missing if m.need.spec is not None})
    names = ", ".join(f.target for f in first.files)
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    raise ModelMissing(
        f"{who} needs model {first.need.spec.id}: {names} not in the model tree {tree.root}{more}",
        remedy=f"fetch it: `comfy-cpu models fetch {' '.join(ids)} --models {shlex.quote(str(tree.root))}`",
    )
