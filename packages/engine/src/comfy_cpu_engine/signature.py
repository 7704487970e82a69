"""What a node's result depends on, as one hash: two nodes with the same signature give the same result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from comfy_cpu_core.workflow import PromptNode, is_link
from comfy_cpu_engine.inputs import Hidden, gather
from comfy_cpu_engine.kinds import Kind
from comfy_cpu_engine.mapping import call_over_lists

__all__ = ["files_digest", "signatures"]


def files_digest(files: Mapping[str, bytes]) -> str:
    """One hash of all files of a request, with their names."""
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(hashlib.sha256(name.encode(errors="surrogatepass")).digest())
        digest.update(hashlib.sha256(data).digest())
    return digest.hexdigest()


def signatures(
    nodes: Mapping[str, PromptNode], kinds: Mapping[str, Kind], hidden: Hidden, base: str
) -> dict[str, str | None]:
    """The signature of every node; None where its result must not be used again.

    It is made of the class, what IS_CHANGED says, the values, the signatures of the nodes that it is connected to, and
    `base`. Any node may read any of the request's files, so a result is never carried over to one with other files.
    Output nodes have none: they run for their effect. A node that knows its own id (UNIQUE_ID) or is NOT_IDEMPOTENT
    shares its result with no other node.

    Args:
        nodes: each after what it depends on.
        base: what all results depend on besides: the request's files (`files_digest`), the models.
    """
    found: dict[str, str | None] = {}
    chain: dict[str, str | None] = {}  # as `found`, but output nodes have one, for what comes after them
    for node_id, node in nodes.items():
        kind = kinds[node.class_type]
        chain[node_id] = _signature(node, kind, hidden, base, chain)
        found[node_id] = None if kind.signature.output_node else chain[node_id]
    return found


def _signature(node: PromptNode, kind: Kind, hidden: Hidden, base: str, before: Mapping[str, str | None]) -> str | None:
    inputs: dict[str, Any] = {}
    for name, value in sorted(node.inputs.items()):
        if is_link(value):
            source = before[value[0]]
            if source is None:
                return None
            inputs[name] = ["link", source, int(value[1])]
        else:
            inputs[name] = ["value", value]
    whose = None if kind.idempotent else node.id
    try:
        text = json.dumps(
            [base, node.class_type, whose, _changed(node, kind, hidden), inputs], allow_nan=False, sort_keys=True
        )
    except (TypeError, ValueError):
        # IS_CHANGED failed, says NaN ("always run me"), or something that cannot be compared.
        return None
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _changed(node: PromptNode, kind: Kind, hidden: Hidden) -> Any:
    """What IS_CHANGED answers; it is asked with values alone and gets None for connected inputs."""
    method = kind.method("IS_CHANGED")
    if method is None:
        return None
    try:
        return call_over_lists(method, gather(node, kind, hidden).lists, as_lists=kind.signature.input_is_list)
    except Exception as error:
        raise ValueError("IS_CHANGED failed") from error
