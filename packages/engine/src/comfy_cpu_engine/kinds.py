"""A node class as one run sees it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from comfy_cpu_core.nodes import InputSpec, NodeClass, NodeSignature

__all__ = ["Kind", "NodeSource"]


class NodeSource(Protocol):
    """What the engine needs of `comfy_cpu_core.registry.NodeRegistry`."""

    def get(self, class_type: str) -> NodeClass | None:
        """The class of that name, or None."""


@dataclass(frozen=True)
class Kind:
    """A node class with its signature, which is read once per run: options may depend on the run's files."""

    class_type: str
    cls: type
    signature: NodeSignature

    @classmethod
    def read(cls, node_class: NodeClass) -> Kind:
        """Call ``INPUT_TYPES``; whatever that raises is passed on."""
        return cls(node_class.class_type, node_class.cls, node_class.signature)

    @cached_property
    def specs(self) -> Mapping[str, InputSpec]:
        """The inputs that the class declares, hidden ones too, by name."""
        return {spec.name: spec for spec in self.signature.inputs}

    @cached_property
    def return_types(self) -> tuple[Any, ...]:
        """RETURN_TYPES as the class has them: names of types, or lists of options."""
        return tuple(getattr(self.cls, "RETURN_TYPES", ()))

    @property
    def function(self) -> str:
        """The name of the method that does the work (FUNCTION)."""
        return str(self.cls.FUNCTION)  # type: ignore[attr-defined]

    @property
    def idempotent(self) -> bool:
        """Whether two nodes of this class with the same inputs may share their result."""
        tied = any(spec.section == "hidden" and spec.type == "UNIQUE_ID" for spec in self.signature.inputs)
        return not tied and not getattr(self.cls, "NOT_IDEMPOTENT", False)

    def method(self, name: str) -> Callable[..., Any] | None:
        """A method of the class that it may have or not (``VALIDATE_INPUTS``, ``IS_CHANGED``)."""
        found: Callable[..., Any] | None = getattr(self.cls, name, None)
        return found

    @cached_property
    def validated(self) -> Validated:
        """What VALIDATE_INPUTS takes upon itself."""
        method = self.method("VALIDATE_INPUTS")
        if method is None:
            return Validated(frozenset(), everything=False)
        spec = inspect.getfullargspec(method)
        return Validated(frozenset((*spec.args, *spec.kwonlyargs)), everything=spec.varkw is not None)


@dataclass(frozen=True)
class Validated:
    """Which inputs a class checks itself, so that the engine leaves out its own check of options and range.

    Attributes:
        names: the arguments of VALIDATE_INPUTS; ``input_types`` among them means that it checks the types of
            connections, too.
        everything: whether it takes ``**kwargs``: all inputs.
    """

    names: frozenset[str]
    everything: bool

    def __bool__(self) -> bool:
        return self.everything or bool(self.names)

    def covers(self, name: str) -> bool:
        """Whether the class checks that input's value."""
        return self.everything or name in self.names

    @property
    def types(self) -> bool:
        """Whether the class checks the types of its connections."""
        return "input_types" in self.names
