"""The workflows of an image: read, converted for a CPU, in the form in which they are baked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_cpu_core.convert import Report, to_cpu
from comfy_cpu_core.errors import WorkflowError
from comfy_cpu_core.workflow import PromptNode, load

if TYPE_CHECKING:
    from comfy_cpu_builder.spec import SpecWorkflow
    from comfy_cpu_core.plugins import Plugins
    from comfy_cpu_core.registry import NodeRegistry

__all__ = ["PlannedWorkflow", "plan_workflow"]


@dataclass(frozen=True)
class PlannedWorkflow:
    """A workflow of an image.

    Attributes:
        name: what jobs call it.
        nodes: converted for a CPU, by id.
        report: what the conversion changed.
        inputs: ``NODE.INPUT`` → file, for the run that verifies the image.
        values: ``NODE.INPUT`` → value, for that run.
        uploads: the inputs that take a picture; a test picture is put where `inputs` has none.
    """

    name: str
    nodes: Mapping[str, PromptNode]
    report: Report = field(default_factory=Report)
    inputs: Mapping[str, Path] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    uploads: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The file that is baked: API format."""
        prompt = {node_id: node.to_json() for node_id, node in self.nodes.items()}
        return json.dumps(prompt, indent=1, ensure_ascii=False) + "\n"

    @property
    def sha256(self) -> str:
        """The hash of that file."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def class_types(self) -> frozenset[str]:
        """The node classes that it uses."""
        return frozenset(node.class_type for node in self.nodes.values())


def plan_workflow(wanted: SpecWorkflow, plugins: Plugins, registry: NodeRegistry) -> PlannedWorkflow:
    """Read a workflow and convert it for a CPU.

    Raises:
        WorkflowError: it cannot be read, a plugin failed on one of its nodes, or a node cannot run on a CPU; the error
            names the node and why. Whether every class is known is for the plan to say: it depends on the target.
    """
    workflow, report = to_cpu(load(wanted.path, registry.signatures), plugins, registry)
    for stuck in report.cannot_run:
        raise WorkflowError(
            f"{workflow.name}: node {stuck.node_id} ({stuck.class_type}) cannot run on a CPU: {stuck.reason}",
            remedy="take the node out of the workflow, or give it other values",
            node_id=stuck.node_id,
        )
    for problem in report.problems:
        raise WorkflowError(
            f"{workflow.name}: plugin {problem.plugin!r} failed at node {problem.node_id} ({problem.class_type}): "
            f"{problem.problem}",
            remedy="an image is not built with a broken plugin: see `comfy-cpu plugins list`",
            node_id=problem.node_id,
        )
    workflow.with_inputs(wanted.values)  # names a node or input that is not there
    for key in wanted.inputs:
        workflow.with_input(key, "")
    return PlannedWorkflow(
        name=wanted.name,
        nodes=workflow.nodes,
        report=report,
        inputs=wanted.inputs,
        values=wanted.values,
        uploads=tuple(_uploads(workflow.nodes, registry)),
    )


def _uploads(nodes: Mapping[str, PromptNode], registry: NodeRegistry) -> list[str]:
    found = []
    for node in nodes.values():
        signature = registry.signatures.get(node.class_type)
        for spec in signature.inputs if signature else ():
            if spec.options.get("image_upload") and node.widget(spec.name) is not None:
                found.append(f"{node.id}.{spec.name}")
    return found
