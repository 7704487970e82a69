"""Checking one input of a node, as ComfyUI does before it runs a prompt.

Values are converted as ComfyUI converts them, with three differences, each where ComfyUI lets a mistake through:

- NaN and infinity are refused (``invalid_input_type``): they would pass every check of a range.
- A BOOLEAN takes true, false, null and numbers, but no text: in ComfyUI the text "false" is true.
- A value for an input that only a connection can feed (IMAGE, MASK, MODEL, …) is refused; in ComfyUI the node fails.

INT takes what Python's ``int`` takes: 3.7 becomes 3, true becomes 1, "5" becomes 5, "3.7" is refused. FLOAT and STRING
likewise. ``{"__value__": [...]}`` is unwrapped: it is how a list is written that is no connection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_cpu_core.nodes import InputSpec

__all__ = ["Problem", "check_value", "convert_value", "fits", "shown"]

#: Types of ComfyUI that no widget edits: their inputs are fed by connections alone.
_CONNECTION_ONLY = frozenset(
    {
        "AUDIO", "CLIP", "CLIP_VISION", "CLIP_VISION_OUTPUT", "CONDITIONING", "CONTROL_NET", "GUIDER", "IMAGE", "LATENT",
        "MASK", "MODEL", "NOISE", "SAMPLER", "SIGMAS", "STYLE_MODEL", "UPSCALE_MODEL", "VAE", "VIDEO",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """Something wrong with a node.

    Attributes:
        type, message, details, extra: as ComfyUI reports it.
        says: the same for a person: what follows "node 4 (ImageScale): ".
        remedy: what to do, or None.
    """

    type: str
    message: str
    details: str
    says: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    remedy: str | None = None

    def to_json(self) -> dict[str, Any]:
        """In ComfyUI's shape."""
        return {"type": self.type, "message": self.message, "details": self.details, "extra_info": dict(self.extra)}


def shown(value: Any) -> str:
    """A value for an error's one line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _extra(spec: InputSpec, value: Any) -> dict[str, Any]:
    config = None if spec.choices is not None and len(spec.choices) > 20 else [_declared(spec), dict(spec.options)]
    return {"input_name": spec.name, "input_config": config, "received_value": value}


def _declared(spec: InputSpec) -> Any:
    return list(spec.choices) if spec.choices is not None else spec.type


def convert_value(spec: InputSpec, value: Any) -> Any | Problem:
    """Bring a value to the type of its input; a `Problem` if that cannot be done."""
    if isinstance(value, Mapping) and "__value__" in value:
        value = value["__value__"]
    if spec.type in _CONNECTION_ONLY:
        return _not_convertible(spec, value, "it takes a connection from another node, not a value")
    try:
        converted = _converted(spec.type, value)
    except (TypeError, ValueError, OverflowError) as error:
        return _not_convertible(spec, value, str(error))
    if isinstance(converted, float) and not math.isfinite(converted):
        return _not_convertible(spec, value, "it is not a finite number")
    return converted


def _converted(kind: str, value: Any) -> Any:
    match kind:
        case "INT":
            return int(value)
        case "FLOAT":
            return float(value)
        case "STRING":
            return str(value)
        case "BOOLEAN":
            if value is not None and not isinstance(value, int | float):
                raise TypeError("write true or false, without quotes")
            return bool(value)
        case _:
            return value


def _not_convertible(spec: InputSpec, value: Any, why: str) -> Problem:
    return Problem(
        "invalid_input_type",
        f"Failed to convert an input value to a {spec.type} value",
        f"{spec.name}, {value}, {why}",
        f"input {spec.name!r} is {shown(value)}, which is no {spec.type}: {why}",
        {**_extra(spec, value), "exception_message": why},
    )


def check_value(spec: InputSpec, value: Any) -> Problem | None:
    """Check a converted value against the input's range and options."""
    name = spec.name
    low, high = spec.options.get("min"), spec.options.get("max")
    try:
        if low is not None and value < low:
            says = f"input {name!r} is {shown(value)}, smaller than its minimum {low}"
            message = f"Value {value} smaller than min of {low}"
            return Problem("value_smaller_than_min", message, name, says, _extra(spec, value))
        if high is not None and value > high:
            says = f"input {name!r} is {shown(value)}, bigger than its maximum {high}"
            message = f"Value {value} bigger than max of {high}"
            return Problem("value_bigger_than_max", message, name, says, _extra(spec, value))
    except TypeError:
        return _not_convertible(spec, value, "it cannot be compared with the ends of its range")
    if spec.choices is None or value in spec.choices or (not spec.choices and "remote" in spec.options):
        return None
    count = len(spec.choices)
    listed = f"(list of length {count})" if count > 20 else str(list(spec.choices))
    options = ", ".join(map(str, spec.choices[:20])) + (f" and {count - 20} more" if count > 20 else "")
    return Problem(
        "value_not_in_list",
        "Value not in list",
        f"{name}: '{value}' not in {listed}",
        f"input {name!r} is {shown(value)}, which is none of its options ({options or 'there are none'})",
        _extra(spec, value),
    )


def fits(received: Any, spec: InputSpec) -> bool:
    """Whether an output of a type (RETURN_TYPES' item) may feed an input.

    Types are equal, or have a name in common where several are joined by commas; ``*`` on either side is any type. A
    list of options fits an input with the same options; so does one that is only called COMBO. Text (STRING) does not
    fit a COMBO, as in ComfyUI.
    """
    if isinstance(received, list | tuple):
        return spec.type == "COMBO" and (not spec.choices or tuple(received) == spec.choices)
    names = {name.strip() for name in str(received).split(",")}
    wanted = {name.strip() for name in spec.type.split(",")}
    return "*" in names or "*" in wanted or bool(names & wanted)
