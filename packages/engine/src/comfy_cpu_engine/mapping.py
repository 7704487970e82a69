"""ComfyUI's lists: every input and output of a node is a list of values, usually of one.

A node is called once per position of its longest input list; shorter lists repeat their last value. With
INPUT_IS_LIST it is called once, with the lists themselves. An output that the class marks in OUTPUT_IS_LIST is a list
of values, all others are one value per call.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfy_cpu_core.nodes import NodeSignature

__all__ = ["Returned", "call_over_lists", "merge_returns"]


@dataclass(frozen=True)
class Returned:
    """What a node gave in all its calls together.

    Attributes:
        outputs: per output a list of values.
        ui: what it has to show: key → items.
    """

    outputs: list[list[Any]]
    ui: dict[str, list[Any]] = field(default_factory=dict)


def call_over_lists(
    function: Callable[..., Any],
    inputs: Mapping[str, Sequence[Any]],
    *,
    as_lists: bool,
    check: Callable[[], None] = lambda: None,
) -> list[Any]:
    """Call a node's method for its input lists; give what it returned, call by call.

    Args:
        as_lists: the class's INPUT_IS_LIST.
        check: called before every call; raises if the run is to end.

    Raises:
        ValueError: an input is a list without values; and whatever the method raises.
    """
    if as_lists:
        check()
        return [_call(function, {name: list(values) for name, values in inputs.items()})]
    for name, values in inputs.items():
        if not values:
            raise ValueError(f"input {name!r} is a list without values")
    results = []
    for index in range(max((len(values) for values in inputs.values()), default=1)):
        check()
        arguments = {name: values[min(index, len(values) - 1)] for name, values in inputs.items()}
        results.append(_call(function, arguments))
    return results


def _call(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    result = function(**arguments)
    return asyncio.run(result) if inspect.iscoroutine(result) else result


def merge_returns(returns: Sequence[Any], signature: NodeSignature) -> Returned:
    """Put together what a node's calls returned.

    A call returns a tuple, or a dict with ``result`` (a tuple) and ``ui`` (key → list); a class without outputs may
    return None.

    Raises:
        ValueError: it returned something else, or a graph to run in its place (``expand``).
    """
    results: list[Sequence[Any]] = []
    ui: dict[str, list[Any]] = {}
    for returned in returns:
        result = returned
        if isinstance(returned, Mapping):
            if "expand" in returned:
                raise ValueError("the node puts a graph of other nodes in its place, which needs ComfyUI")
            for key, items in (returned.get("ui") or {}).items():
                ui.setdefault(key, []).extend(items)
            result = returned.get("result")
        if result is None and (isinstance(returned, Mapping) or not signature.outputs):
            continue
        if not isinstance(result, tuple | list):
            raise ValueError(f"the node returned a {type(result).__name__}, not a tuple of its outputs")
        results.append(result)
    count = min((len(result) for result in results), default=0)
    outputs = []
    for index in range(min(count, len(signature.outputs))):
        if signature.output_is_list[index : index + 1] == (True,):
            outputs.append([value for result in results for value in result[index]])
        else:
            outputs.append([result[index] for result in results])
    return Returned(outputs, ui)
