"""In which order a prompt's nodes run, as far as that follows from the prompt. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from comfy_cpu_core.workflow import is_link

__all__ = ["by_execution"]


def by_execution(prompt: Mapping[str, Mapping[str, Any]], outputs: Collection[str]) -> list[str]:
    """Those of the nodes that showed something, each after those that it needs, else in the prompt's order.

    Nodes that are not in the prompt are left out: another node put them into its place.
    """
    done: dict[str, None] = {}
    for first in prompt:
        stack = [first] if first in outputs else []
        open_: set[str] = set()
        while stack:
            node_id = stack[-1]
            needed = [] if node_id in open_ else [other for other in _needs(prompt, node_id) if other not in done]
            open_.add(node_id)
            if needed:
                stack.extend(reversed(needed))
            else:
                done[stack.pop()] = None
    return [node_id for node_id in done if node_id in outputs]


def _needs(prompt: Mapping[str, Mapping[str, Any]], node_id: str) -> list[str]:
    values = prompt[node_id].get("inputs", {}).values()
    return [value[0] for value in values if is_link(value) and value[0] in prompt]
