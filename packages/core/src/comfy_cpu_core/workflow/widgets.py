"""Which of a node's ``widgets_values`` belongs to which input.

The editor saves the values of a node's widgets as a list, in the order in which it drew them, without names. That
order follows the class's inputs, but the list also holds what is no input: the choice "fixed, randomize, …" behind a
seed, the button below a file name, and in old files a place for inputs that are connections only. Whether those are
there depends on the editor's version, and the file does not tell. So of all layouts that are possible, the one is
taken in which the values fit best.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from comfy_cpu_core.nodes import WIDGET_TYPES, InputSpec, NodeSignature
from comfy_cpu_core.workflow.graph import Place, UiNode

__all__ = ["CONTROL_WORDS", "WidgetValue", "default_value", "read_widgets", "unnamed_values"]

#: What the editor offers for a value that changes after each run.
CONTROL_WORDS = frozenset({"fixed", "increment", "decrement", "randomize", "increment-wrap"})

_SEEDS = frozenset({"seed", "noise_seed"})
_UPLOAD_TYPES = frozenset({"IMAGEUPLOAD", "AUDIOUPLOAD", "FILEUPLOAD"})
_UPLOAD_OPTIONS = ("image_upload", "video_upload", "animated_image_upload", "audio_upload")
_NOT_AN_INPUT = frozenset({"control_after_generate", "control_filter_list", "upload", "videopreview"})

_Kind = Literal["value", "control", "filter", "upload", "connection"]

# What it costs a layout if values are left over, or if a widget gets none.
_COST_SURPLUS = _COST_MISSING = 0.3


@dataclass(frozen=True)
class WidgetValue:
    """The value of one widget.

    Attributes:
        name: the input's name.
        value: as the file has it, or the class's default where the file has none.
        places: where it stands in the document; empty for a default.
    """

    name: str
    value: Any
    places: tuple[Place, ...] = ()


class _Item(NamedTuple):
    """One place that the list of values has, or may have: all but those of kind ``value`` are in doubt."""

    kind: _Kind
    spec: InputSpec


def read_widgets(node: UiNode, signature: NodeSignature | None) -> list[WidgetValue]:
    """The values of a node's widgets, in the order of the class's inputs.

    Args:
        node: the node; its connections are not looked at.
        signature: of its class; None if nobody knows it: then the names are those that the file itself has for the
            inputs that are widgets.
    """
    if isinstance(node.values, dict):
        found = _from_dict(node, node.values, signature)
    else:
        found = _from_list(node, node.values, signature)
    if signature is not None:
        for spec in signature.widgets:
            if spec.name not in found:
                default = default_value(spec)
                if default is not None:
                    found[spec.name] = WidgetValue(spec.name, default)
        order = {spec.name: index for index, spec in enumerate(signature.inputs)}
        return sorted(found.values(), key=lambda widget: order.get(widget.name, len(order)))
    return list(found.values())


def unnamed_values(node: UiNode, widgets: Iterable[WidgetValue]) -> int:
    """How many of the values of a node of an unknown class could be given no name."""
    if node.named_values or isinstance(node.values, dict):
        return 0
    named = any(widget.places for widget in widgets)
    return 0 if named else sum(value is not None for value in node.values)


def default_value(spec: InputSpec) -> Any:
    """The value that the editor gives a new widget; None if it has none to give."""
    if spec.has_default:
        return spec.default
    return {"INT": 0, "FLOAT": 0.0, "BOOLEAN": False, "STRING": ""}.get(spec.type)


def _from_dict(node: UiNode, values: dict[str, Any], signature: NodeSignature | None) -> dict[str, WidgetValue]:
    # Packs that save a dict also put the state of their previews there, as objects; those are no inputs.
    declared = {spec.name for spec in signature.inputs} if signature else set()
    found = {}
    for name, value in values.items():
        if name in declared or (name not in _NOT_AN_INPUT and not isinstance(value, dict)):
            found[name] = WidgetValue(name, value, ((*node.place, "widgets_values", name),))
    return found


def _from_list(node: UiNode, values: Sequence[Any], signature: NodeSignature | None) -> dict[str, WidgetValue]:
    items = list(_declared(signature) if signature else _drawn(node))
    layout = _best_layout(items, values)
    if signature is None and not _is_trustworthy(node, layout, values):
        layout = []
    found: dict[str, WidgetValue] = {}
    for index, (item, value) in enumerate(zip(layout, values, strict=False)):
        if item.kind == "value":
            name = item.spec.name
            found[name] = WidgetValue(name, value, ((*node.place, "widgets_values", index),))
    names = [item.spec.name for item in items if item.kind == "value"]
    if signature is None and not names:
        names = [name for name in node.named_values if name not in _NOT_AN_INPUT]
    for name in names:
        if name in node.named_values:
            found[name] = _with_named(node, name, found.get(name))
    return found


def _with_named(node: UiNode, name: str, positional: WidgetValue | None) -> WidgetValue:
    value = node.named_values[name]
    places: tuple[Place, ...] = ((*node.place, "widgets_values_named", name),)
    if positional is not None and positional.value == value:
        places += positional.places
    return WidgetValue(name, value, places)


def _declared(signature: NodeSignature) -> Iterator[_Item]:
    """Every place that the list may have for a class that is known."""
    uploads = any(spec.options.get(option) for spec in signature.inputs for option in _UPLOAD_OPTIONS)
    for section in ("required", "optional"):
        specs = [spec for spec in signature.inputs if spec.section == section]
        for spec in specs:
            if spec.is_widget:
                yield _Item("value", spec)
                yield from _controls(spec)
            elif spec.type in _UPLOAD_TYPES:
                yield _Item("upload", spec)
            elif spec.type in WIDGET_TYPES:  # forceInput: old editors kept a place for it
                yield _Item("connection", spec)
        # Editors put the button behind the required inputs, or behind all of them.
        if uploads and specs:
            yield _Item("upload", specs[-1])


def _controls(spec: InputSpec) -> Iterator[_Item]:
    # A class that turns the choice off may have had it when the file was saved: seeds are always in doubt.
    controlled = spec.options.get("control_after_generate") or spec.name in _SEEDS
    if controlled and spec.type in {"INT", "COMBO"}:
        yield _Item("control", spec)
        if spec.type == "COMBO":
            yield _Item("filter", spec)


def _drawn(node: UiNode) -> Iterator[_Item]:
    """Every place that the list may have, by what the file says of the node's inputs."""
    for slot in node.inputs:
        if slot.widget is None:
            continue
        spec = InputSpec(slot.widget, slot.type, "required")
        if slot.type in _UPLOAD_TYPES:
            yield _Item("upload", spec)
            continue
        yield _Item("value", spec)
        if slot.type == "INT":  # any number may be controlled: the file does not tell
            yield _Item("control", spec)


def _is_trustworthy(node: UiNode, layout: Sequence[_Item], values: Sequence[Any]) -> bool:
    # Editors before 1.16, and the workflow inside a picture, name only the widgets that are connected. A layout made
    # of those alone would give values to the wrong names, unless it accounts for every value.
    every_widget_is_named = any(slot.widget is not None and slot.link is None for slot in node.inputs)
    return every_widget_is_named or len(layout) == len(values)


# A layout that is being put together from behind: its first place, and the rest.
_Chain = tuple[_Item, "_Chain"] | None


def _best_layout(items: Sequence[_Item], values: Sequence[Any]) -> list[_Item]:
    """The places that are really there: those that make the values fit best."""
    values = values[: 2 * len(items) + 1]  # what is far behind the last place decides nothing
    cost, layout = _fit([item for item in items if item.kind != "connection"], values)
    if any(item.kind == "connection" for item in items):
        # Old editors kept a place for every input that is a connection only: all of them, or the file is newer.
        old_cost, old_layout = _fit(items, values)
        if old_cost < cost and len(old_layout) == len(values):
            return old_layout
    return layout


def _fit(items: Sequence[_Item], values: Sequence[Any]) -> tuple[float, list[_Item]]:
    """The cheapest layout and its cost. Of two that cost the same, the one with more places: editors draw them all."""
    # best[j]: cost and layout of the items from the current one on, against the values from j on.
    best: list[tuple[float, _Chain]] = [(_COST_SURPLUS * rest, None) for rest in range(len(values), -1, -1)]
    for item in reversed(items):
        in_doubt = item.kind not in {"value", "connection"}
        row: list[tuple[float, _Chain]] = []
        for index, value in enumerate(values):
            cost, rest = best[index + 1]
            taken = (cost + _misfit(item, value), (item, rest))
            row.append(min(taken, best[index], key=lambda fitted: fitted[0]) if in_doubt else taken)
        cost, rest = best[-1]
        row.append((cost, rest) if in_doubt else (cost + _COST_MISSING, (item, rest)))
        best = row
    total, chain = best[0]
    layout = []
    while chain is not None:
        place, chain = chain
        layout.append(place)
    return total, layout


def _misfit(item: _Item, value: Any) -> float:
    """0 if a value may stand in a place, 1 if it cannot, between where it is unlikely."""
    match item.kind:
        case "control" if isinstance(value, bool):  # the oldest editors wrote true and false behind a seed
            return 0.2 if item.spec.name in _SEEDS else 1.0
        case "control":
            return 0.0 if isinstance(value, str) and value in CONTROL_WORDS else 1.0
        case "filter":  # a text that narrows the options; mostly empty
            return 0.0 if value == "" else 1.0
        case "upload":
            return 0.0 if value is None or value in ("image", "video", "audio", "") else 1.0
        case "connection":
            return 0.0
    return 0.0 if value is None else _misfit_value(item.spec, value)


def _misfit_value(spec: InputSpec, value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match spec.type:
        case "INT":
            return 0.0 if number and value == int(value) else 1.0
        case "FLOAT":
            return 0.0 if number else 1.0
        case "BOOLEAN":
            return 0.0 if isinstance(value, bool) else 1.0
        case "STRING":
            return 0.0 if isinstance(value, str) else 1.0
        case "COMBO" if spec.choices:
            # The name of a file that is not here is no option either, but it is of the options' type.
            if value in spec.choices:
                return 0.0
            return 0.5 if type(value) in {type(choice) for choice in spec.choices} else 1.0
        case "COMBO":
            return 1.0 if isinstance(value, list | dict) else 0.0
    return 0.0
