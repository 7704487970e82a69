"""`load`: from a file, bytes or a parsed document, in either format, to a `Workflow`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfy_cpu_core.errors import WorkflowError
from comfy_cpu_core.nodes import NodeSignature
from comfy_cpu_core.workflow.document import read_document
from comfy_cpu_core.workflow.graph import parse_ui
from comfy_cpu_core.workflow.prompt import PromptNode, is_link
from comfy_cpu_core.workflow.ui import flatten
from comfy_cpu_core.workflow.workflow import Workflow
from comfy_cpu_core.workflow.writeback import Source

__all__ = ["load"]

_HOW_TO_SAVE = "give a workflow as ComfyUI's editor saves it, or as it exports it in API format"


def load(
    source: str | Path | bytes | Mapping[str, Any],
    signatures: Mapping[str, NodeSignature],
    *,
    name: str | None = None,
) -> Workflow:
    """Read a workflow.

    Understood are API format, also inside ``{"prompt": …}`` as it is posted to a ComfyUI, UI format, and a PNG that a
    ComfyUI saved with its workflow in it.

    Args:
        source: a path, the file's bytes, or the parsed JSON (which is left as it is).
        signatures: class_type → signature of the node classes that are known; see `comfy_cpu_core.registry`. UI
            format names no inputs, so it needs them; of a class that is not known, the file's own names are taken.
        name: what messages call it; the file's name if None.

    Raises:
        WorkflowError: it cannot be read, or is no workflow; one line says what is wrong and where.
    """
    document, called = read_document(source, name)
    if not isinstance(document, dict):
        raise WorkflowError(f"{called}: neither a workflow in UI format nor in API format", remedy=_HOW_TO_SAVE)
    if isinstance(document.get("nodes"), list):
        return _load_ui(document, signatures, called)
    posted = document.get("prompt")
    if isinstance(posted, dict) and "class_type" not in posted:
        document = posted
    return _load_api(document, signatures, called)


def _load_ui(document: dict[str, Any], signatures: Mapping[str, NodeSignature], name: str) -> Workflow:
    if not document["nodes"]:
        raise WorkflowError(f"{name}: the workflow is empty", remedy=_HOW_TO_SAVE)
    flat = flatten(parse_ui(document, name), signatures, name)
    if not flat.nodes:
        raise WorkflowError(
            f"{name}: no node is left to run: {', '.join(sorted({item.reason for item in flat.dropped}))}",
            remedy="unmute the nodes that should run",
        )
    return Workflow(
        nodes=flat.nodes,
        source_format="ui",
        ui=document,
        name=name,
        dropped=flat.dropped,
        guessed=flat.guessed,
        declared=_declared(flat.nodes, signatures),
        source=Source(flat.nodes, flat.origins),
    )


def _load_api(document: dict[str, Any], signatures: Mapping[str, NodeSignature], name: str) -> Workflow:
    if not document:
        raise WorkflowError(f"{name}: the workflow is empty", remedy=_HOW_TO_SAVE)
    if not any(isinstance(node, dict) and {"class_type", "inputs"} & set(node) for node in document.values()):
        raise WorkflowError(f"{name}: neither a workflow in UI format nor in API format", remedy=_HOW_TO_SAVE)
    nodes = {node_id: _node(node_id, data, name) for node_id, data in document.items()}
    for node in nodes.values():
        for input_name, value in node.inputs.items():
            if is_link(value):
                _check_link(node, input_name, value, nodes, name)
    return Workflow(nodes=nodes, name=name, declared=_declared(nodes, signatures))


def _node(node_id: str, data: Any, name: str) -> PromptNode:
    if not isinstance(data, dict):
        raise WorkflowError(f"{name}: the entry {node_id[:40]!r} is no node", remedy=_HOW_TO_SAVE, node_id=node_id)
    class_type, inputs, meta = data.get("class_type"), data.get("inputs", {}), data.get("_meta")
    if not isinstance(class_type, str) or not class_type:
        raise WorkflowError(f"{name}: node {node_id} has no class_type", remedy=_HOW_TO_SAVE, node_id=node_id)
    if not isinstance(inputs, dict):
        raise WorkflowError(
            f"{name}: the inputs of node {node_id} ({class_type}) are no object", remedy=_HOW_TO_SAVE, node_id=node_id
        )
    title = meta.get("title") if isinstance(meta, dict) else None
    return PromptNode(node_id, class_type, inputs, title if isinstance(title, str) else "")


def _check_link(
    node: PromptNode, input_name: str, value: list[Any], nodes: Mapping[str, PromptNode], name: str
) -> None:
    origin, output = value
    if origin not in nodes:
        raise WorkflowError(
            f"{name}: input {input_name} of node {node.id} ({node.class_type}) is connected to node {origin[:40]!r}, "
            "which the workflow does not have",
            remedy="export the workflow from ComfyUI again, or connect the input to a node that is there",
            node_id=node.id,
        )
    if output != int(output) or output < 0:
        raise WorkflowError(
            f"{name}: input {input_name} of node {node.id} ({node.class_type}) is connected to output {output}, "
            "which no node has",
            remedy="outputs are counted 0, 1, 2, …",
            node_id=node.id,
        )


def _declared(nodes: Mapping[str, PromptNode], signatures: Mapping[str, NodeSignature]) -> dict[str, frozenset[str]]:
    declared: dict[str, frozenset[str]] = {}
    for node in nodes.values():
        signature = signatures.get(node.class_type)
        if signature is not None:
            declared[node.id] = frozenset(spec.name for spec in signature.inputs if spec.section != "hidden")
    return declared
