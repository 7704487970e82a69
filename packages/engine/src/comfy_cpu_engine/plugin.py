"""What the engine adds to comfy-cpu: its node classes, and the target ``embedded``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.nodes import NodeClass
from comfy_cpu_core.results import Target, TargetType


@hookimpl
def comfy_cpu_node_classes() -> Iterable[NodeClass]:
    """ComfyUI's nodes for image files, images and masks."""
    from comfy_cpu_engine.nodes import NODE_CLASSES

    return NODE_CLASSES


@hookimpl
def comfy_cpu_targets() -> Iterable[TargetType]:
    """The target ``embedded``."""
    return [TargetType("embedded", open=_open, summary="in this process, without ComfyUI")]


def _open(name: str, options: Mapping[str, Any]) -> Target:
    from comfy_cpu_engine.target import open_embedded

    return open_embedded(name, options)
