"""What a node is called with: its values, the outputs that it is connected to, and what the engine adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfy_cpu_core.workflow import PromptNode, is_link
from comfy_cpu_engine.kinds import Kind

__all__ = ["DynamicPrompt", "Gathered", "Hidden", "gather"]


class DynamicPrompt:
    """The hidden input DYNPROMPT: the prompt, to be asked by node id. Here it never grows while it runs."""

    def __init__(self, prompt: Mapping[str, Mapping[str, Any]]) -> None:
        self.original_prompt = prompt

    def get_original_prompt(self) -> Mapping[str, Mapping[str, Any]]:
        """The prompt as the run was given it."""
        return self.original_prompt

    def get_node(self, node_id: str) -> Mapping[str, Any]:
        """A node; KeyError if there is none of that id."""
        return self.original_prompt[node_id]

    def has_node(self, node_id: str) -> bool:
        """Whether there is a node of that id."""
        return node_id in self.original_prompt

    def all_node_ids(self) -> set[str]:
        """The ids of all nodes."""
        return set(self.original_prompt)


@dataclass(frozen=True)
class Hidden:
    """What a run has for hidden inputs.

    Attributes:
        prompt: the prompt in API format.
        extra_pnginfo: what the caller wants in the pictures' metadata beside the prompt; None for no metadata.
    """

    prompt: Mapping[str, Mapping[str, Any]]
    extra_pnginfo: Mapping[str, Any] | None = None

    def value(self, kind: str, node_id: str) -> tuple[Any] | None:
        """The value of a hidden input of that type, in a tuple; None if ComfyUI has no such hidden input.

        Keys for ComfyUI's paid API nodes (AUTH_TOKEN_COMFY_ORG, API_KEY_COMFY_ORG) are always None here.
        """
        match kind:
            case "UNIQUE_ID":
                return (node_id,)
            case "PROMPT":
                return (self.prompt,)
            case "DYNPROMPT":
                return (DynamicPrompt(self.prompt),)
            case "EXTRA_PNGINFO":
                return (self.extra_pnginfo,)
            case "AUTH_TOKEN_COMFY_ORG" | "API_KEY_COMFY_ORG":
                return (None,)
            case _:
                return None


@dataclass(frozen=True)
class Gathered:
    """A node's inputs.

    Attributes:
        lists: name → its list of values.
        missing: connected inputs without values so far (lazy ones); they stand in `lists` as ``[None]``.
    """

    lists: dict[str, Sequence[Any]]
    missing: set[str] = field(default_factory=set)


def gather(
    node: PromptNode, kind: Kind, hidden: Hidden, results: Mapping[str, Sequence[Sequence[Any]]] | None = None
) -> Gathered:
    """Collect a node's inputs.

    Values of inputs that the class does not declare are left out, as in ComfyUI; connections of such inputs are not.

    Args:
        results: node id → its outputs; None where only values count (VALIDATE_INPUTS, IS_CHANGED).

    Raises:
        ValueError: a node that ran did not give the output that this one is connected to.
    """
    gathered = Gathered({})
    for name, value in node.inputs.items():
        spec = kind.specs.get(name)
        if not is_link(value) or (spec is not None and spec.options.get("rawLink")):
            if spec is not None:
                gathered.lists[name] = [value]
            continue
        source, output = value[0], int(value[1])
        if results is None or source not in results:
            gathered.lists[name] = [None]
            gathered.missing.add(name)
        elif output < len(results[source]):
            gathered.lists[name] = results[source][output]
        else:
            raise ValueError(f"input {name!r}: node {source} gave no output {output}")
    for spec in kind.signature.inputs:
        if spec.section == "hidden" and (found := hidden.value(spec.type, node.id)) is not None:
            gathered.lists[spec.name] = list(found)
    return gathered
