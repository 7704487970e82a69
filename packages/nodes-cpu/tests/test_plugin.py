from __future__ import annotations

from comfy_cpu_core.plugins import load_plugins
from comfy_cpu_nodes.nodes import NODES


def test_the_entry_point_brings_every_node() -> None:
    plugins = load_plugins({})
    brought = [item for name, item in plugins.collect("comfy_cpu_node_classes", strict=True) if name == "nodes"]
    assert brought == list(NODES)
