"""The help that ComfyUI shows for a node, made from the node's class: so it cannot say what is not so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comfy_cpu_core.context import Folders, RunContext, use_run
from comfy_cpu_core.nodes import InputSpec, NodeClass, NodeSignature
from comfy_cpu_core.tree import ModelTree

__all__ = ["help_page"]

_NOWHERE = Path("nowhere")


def help_page(node: NodeClass) -> str:
    """What a node does, takes, gives and needs, as Markdown."""
    cls: Any = node.cls
    parts = [f"# {node.display_name}", cls.DESCRIPTION]
    signature = _signature(node)
    inputs = [spec for spec in signature.inputs if spec.section != "hidden"]
    if inputs:
        rows = [(_name(s), _type(s), _default(s), s.options.get("tooltip", "")) for s in inputs]
        parts.append(_table(("input", "type", "default", "meaning"), rows))
    if signature.outputs:
        outputs = zip(signature.output_names, signature.outputs, strict=True)
        parts.append(_table(("output", "type"), [(f"`{name}`", kind) for name, kind in outputs]))
    parts += _needs(node)
    return "\n\n".join(parts) + "\n"


def _signature(node: NodeClass) -> NodeSignature:
    """Read as on a machine without models: options that are files would differ from one to the next."""
    with use_run(RunContext(Folders(_NOWHERE, _NOWHERE, _NOWHERE), ModelTree(_NOWHERE))):
        return node.signature


def _name(spec: InputSpec) -> str:
    return f"`{spec.name}`" if spec.section == "required" else f"`{spec.name}` (optional)"


def _type(spec: InputSpec) -> str:
    if spec.choices:
        return ", ".join(f"`{choice}`" for choice in spec.choices)
    if spec.choices is not None:
        return "what is found among the models"
    if "min" in spec.options and "max" in spec.options:
        return f"{spec.type} {spec.options['min']} to {spec.options['max']}"
    return spec.type


def _default(spec: InputSpec) -> str:
    if not spec.is_widget or not spec.has_default or spec.default == "":
        return ""
    return f"`{spec.default}`"


def _needs(node: NodeClass) -> list[str]:
    if not node.requires:
        return []
    parts = [f"Needs {node.requires}."]
    if models := re.findall(r"the model ([\w.-]*\w)", node.requires):
        parts.append(
            f"`comfy-cpu models fetch {' '.join(models)} --models DIR` brings the model; DIR is the `models` directory "
            "of this ComfyUI."
        )
    return parts


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
