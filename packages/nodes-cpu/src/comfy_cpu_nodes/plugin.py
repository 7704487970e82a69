"""What this distribution adds to comfy-cpu: its node classes."""

from __future__ import annotations

from collections.abc import Iterable

from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.nodes import NodeClass


@hookimpl
def comfy_cpu_node_classes() -> Iterable[NodeClass]:
    """Every node class of `comfy_cpu_nodes.nodes`."""
    from comfy_cpu_nodes.nodes import NODES

    return NODES
