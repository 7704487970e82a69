"""What a node class looks like from outside: its signature, and where its Python class comes from.

A signature is read from a class's ``INPUT_TYPES`` or from a ComfyUI's ``/object_info``; conversion, validation and
``nodes list`` need nothing else of a node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["WIDGET_TYPES", "InputSpec", "NodeClass", "NodeSignature"]

Section = Literal["required", "optional", "hidden"]

#: The input types that ComfyUI's front end draws as a widget. Every other type is a connection only.
WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})


@dataclass(frozen=True)
class InputSpec:
    """One input of a node class.

    Attributes:
        name: the input's name.
        type: ComfyUI's type name (``IMAGE``, ``INT``, …); ``COMBO`` for a list of options.
        section: ``required``, ``optional`` or ``hidden``.
        choices: the options of a COMBO, in order; None for other types.
        options: the rest of the definition (``default``, ``min``, ``max``, ``step``, ``multiline``, ``forceInput``,
            ``control_after_generate``, ``image_upload``, ``tooltip``, …), as the class gives it.
    """

    name: str
    type: str
    section: Section
    choices: tuple[Any, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_widget(self) -> bool:
        """Whether the front end keeps a value for this input in ``widgets_values``."""
        if self.section == "hidden" or self.options.get("forceInput"):
            return False
        if self.section == "optional" and self.options.get("defaultInput"):  # an older way to write forceInput
            return False
        return self.options.get("widgetType", self.type) in WIDGET_TYPES

    @property
    def has_default(self) -> bool:
        """Whether the front end would fill in a value by itself."""
        return "default" in self.options or bool(self.choices)

    @property
    def default(self) -> Any:
        """The value that the front end fills in: the declared default, else a COMBO's first option, else None."""
        if "default" in self.options:
            return self.options["default"]
        return self.choices[0] if self.choices else None


@dataclass(frozen=True)
class NodeSignature:
    """What a node class takes and gives.

    Attributes:
        inputs: in the order in which the class declares them: required, optional, hidden.
        outputs: ComfyUI's type name of each output.
        output_names: the name of each output.
        output_node: whether the node is run for its effect (OUTPUT_NODE).
        input_is_list, output_is_list: ComfyUI's INPUT_IS_LIST and OUTPUT_IS_LIST.
    """

    class_type: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    output_node: bool = False
    input_is_list: bool = False
    output_is_list: tuple[bool, ...] = ()

    def input(self, name: str) -> InputSpec | None:
        """The input of that name, or None."""
        return next((spec for spec in self.inputs if spec.name == name), None)

    @property
    def widgets(self) -> tuple[InputSpec, ...]:
        """The inputs that the front end draws as widgets, in the order of ``widgets_values``."""
        return tuple(spec for spec in self.inputs if spec.is_widget)

    @classmethod
    def from_class(cls, class_type: str, node: type) -> NodeSignature:
        """Read the signature of a ComfyUI V1 class."""
        outputs = tuple("COMBO" if isinstance(t, list | tuple) else str(t) for t in getattr(node, "RETURN_TYPES", ()))
        return cls(
            class_type=class_type,
            inputs=_inputs(node.INPUT_TYPES()),  # type: ignore[attr-defined]
            outputs=outputs,
            output_names=tuple(getattr(node, "RETURN_NAMES", None) or outputs),
            output_node=bool(getattr(node, "OUTPUT_NODE", False)),
            input_is_list=bool(getattr(node, "INPUT_IS_LIST", False)),
            output_is_list=tuple(bool(x) for x in getattr(node, "OUTPUT_IS_LIST", ())) or (False,) * len(outputs),
        )

    @classmethod
    def from_object_info(cls, class_type: str, info: Mapping[str, Any]) -> NodeSignature:
        """Read the signature that a ComfyUI answers under ``/object_info``."""
        outputs = tuple("COMBO" if isinstance(t, list) else str(t) for t in info.get("output", ()))
        return cls(
            class_type=class_type,
            inputs=_inputs(_in_order(info.get("input") or {}, info.get("input_order") or {})),
            outputs=outputs,
            output_names=tuple(info.get("output_name") or outputs),
            output_node=bool(info.get("output_node", False)),
            input_is_list=bool(info.get("is_input_list", False)),
            output_is_list=tuple(bool(x) for x in info.get("output_is_list", ())) or (False,) * len(outputs),
        )


def _in_order(declared: Mapping[str, Any], order: Mapping[str, Any]) -> dict[str, Any]:
    # A saved /object_info may have been written with sorted keys; ``input_order`` tells the real order.
    ordered = {}
    for section, inputs in declared.items():
        names = [name for name in order.get(section) or () if name in (inputs or {})]
        ordered[section] = {name: inputs[name] for name in dict.fromkeys([*names, *(inputs or {})])}
    return ordered


def _inputs(declared: Mapping[str, Any]) -> tuple[InputSpec, ...]:
    specs: list[InputSpec] = []
    sections: tuple[Section, ...] = ("required", "optional", "hidden")
    for section in sections:
        for name, definition in (declared.get(section) or {}).items():
            specs.append(_input(name, definition, section))
    return tuple(specs)


def _input(name: str, definition: Any, section: Section) -> InputSpec:
    # Hidden inputs are declared as a bare string ("UNIQUE_ID"), all others as (type,) or (type, options).
    parts = (definition,) if isinstance(definition, str) else tuple(definition)
    kind = parts[0]
    options = dict(parts[1]) if len(parts) > 1 and isinstance(parts[1], Mapping) else {}
    if isinstance(kind, list | tuple):
        return InputSpec(name, "COMBO", section, tuple(kind), options)
    if kind == "COMBO":  # ComfyUI's newer way to write a list of options
        return InputSpec(name, "COMBO", section, tuple(options.get("options") or ()), options)
    return InputSpec(name, str(kind), section, None, options)


@dataclass(frozen=True)
class NodeClass:
    """A node class that a plugin contributes (hook ``comfy_cpu_node_classes``).

    Attributes:
        class_type: the name under which workflows know it.
        cls: the ComfyUI V1 class.
        display_name: what a person reads.
        summary: one line for ``nodes list``.
        requires: what the class needs beyond the distribution that brings it, for ``nodes list`` (may be empty).
        extras: extras of that distribution; with any one of them the class can run. Empty if it needs none.
    """

    class_type: str
    cls: type
    display_name: str
    summary: str = ""
    requires: str = ""
    extras: tuple[str, ...] = ()

    @property
    def signature(self) -> NodeSignature:
        """The signature, read now: the options of a COMBO may depend on files."""
        return NodeSignature.from_class(self.class_type, self.cls)
