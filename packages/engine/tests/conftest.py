"""Toy node classes, and engines that know them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pluggy
import pytest
from PIL import Image

from comfy_cpu_core import hookspecs
from comfy_cpu_core.nodes import NodeClass
from comfy_cpu_core.plugins import Plugins
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_engine.engine import Engine
from comfy_cpu_engine.nodes import NODE_CLASSES


def make_toy(
    class_type: str,
    function: Callable[..., Any],
    *,
    required: dict[str, Any] | None = None,
    optional: dict[str, Any] | None = None,
    hidden: dict[str, Any] | None = None,
    returns: tuple[Any, ...] = ("INT",),
    **attributes: Any,
) -> NodeClass:
    """A node class around a function that takes its inputs by keyword."""

    def work(self: object, **inputs: Any) -> Any:
        return function(**inputs)

    sections = {"required": required or {}, "optional": optional or {}, "hidden": hidden or {}}
    body = {
        "INPUT_TYPES": classmethod(lambda cls: sections),
        "RETURN_TYPES": returns,
        "FUNCTION": "work",
        "work": work,
        **attributes,
    }
    return NodeClass(class_type, type(class_type, (), body), class_type)


@pytest.fixture
def toy() -> Callable[..., NodeClass]:
    return make_toy


@pytest.fixture
def no_plugins() -> Plugins:
    """Plugins, of which there are none."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return Plugins(manager)


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """Where runs make their directories: empty whenever none is under way."""
    path = tmp_path / "runs"
    path.mkdir()
    return path


@pytest.fixture
def make_engine(no_plugins: Plugins, workdir: Path, tmp_path: Path) -> Callable[..., Engine]:
    """Make an engine that knows ComfyUI's image nodes and the given toys."""

    def make(*toys: NodeClass, **options: Any) -> Engine:
        registry = {node.class_type: node for node in (*NODE_CLASSES, *toys)}
        return Engine(registry, no_plugins, ModelTree(tmp_path / "models"), workdir=workdir, **options)

    return make


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine()


@pytest.fixture
def node() -> Callable[..., dict[str, Any]]:
    """A node in API format."""

    def make(class_type: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": class_type, "inputs": inputs}

    return make


@pytest.fixture
def png() -> bytes:
    """A small picture."""
    pixels = np.random.default_rng(3).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
