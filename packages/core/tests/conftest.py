"""What several tests need: UI documents and node signatures in a few words, and plugins that are not installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pluggy
import pytest
from hypothesis import settings

from comfy_cpu_core import hookspecs
from comfy_cpu_core.nodes import NodeSignature
from comfy_cpu_core.plugins import PluginInfo, Plugins

settings.register_profile("quiet", deadline=None, max_examples=50, database=None)
settings.load_profile("quiet")

EXAMPLES = Path(__file__).parents[3] / "examples" / "workflows"


class UiBuilder:
    """Writes a UI document, or the inside of a subgraph."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.links: list[Any] = []

    def node(
        self,
        node_id: int | str,
        kind: str,
        inputs: str = "",
        outputs: str = "",
        values: Any = None,
        **fields: Any,
    ) -> UiBuilder:
        """Add a node. `inputs` is like ``image:IMAGE width*:INT``: a star marks an input that is a widget."""
        slots = []
        for word in inputs.split():
            name, _, type_ = word.partition(":")
            slot: dict[str, Any] = {"name": name.rstrip("*"), "type": type_ or "*", "link": None}
            if name.endswith("*"):
                slot["widget"] = {"name": name.rstrip("*")}
            slots.append(slot)
        node = {
            "id": node_id,
            "type": kind,
            "mode": 0,
            "inputs": slots,
            "outputs": [{"name": type_, "type": type_, "links": []} for type_ in outputs.split()],
            **fields,
        }
        if values is not None:
            node["widgets_values"] = values
        self.nodes.append(node)
        return self

    def link(self, origin: int | str, slot: int, target: int | str, name: str, *, as_object: bool = False) -> UiBuilder:
        """Connect an output to a node's input; -10 and -20 are the inside of a subgraph's inputs and outputs."""
        number = len(self.links) + 1
        index = 0
        if target == -20:
            index = int(name)
        else:
            node = next(n for n in self.nodes if n["id"] == target)
            index = next(i for i, s in enumerate(node["inputs"]) if s["name"] == name)
            node["inputs"][index]["link"] = number
        if as_object:
            keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
            self.links.append(dict(zip(keys, (number, origin, slot, target, index, "*"), strict=True)))
        else:
            self.links.append([number, origin, slot, target, index, "*"])
        return self

    def document(self, *subgraphs: dict[str, Any]) -> dict[str, Any]:
        """The whole document."""
        document: dict[str, Any] = {"nodes": self.nodes, "links": self.links, "version": 0.4}
        if subgraphs:
            document["definitions"] = {"subgraphs": list(subgraphs)}
        return document

    def subgraph(self, graph_id: str, inputs: str = "", outputs: str = "") -> dict[str, Any]:
        """The definition of a subgraph; its inputs and outputs are like ``name:TYPE``."""
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        links = [link if isinstance(link, dict) else dict(zip(keys, link, strict=True)) for link in self.links]

        def ports(words: str, end: str, pseudo_node: int) -> list[dict[str, Any]]:
            return [
                {
                    "name": word.partition(":")[0],
                    "type": word.partition(":")[2] or "*",
                    "linkIds": [x["id"] for x in links if (x[f"{end}_id"], x[f"{end}_slot"]) == (pseudo_node, index)],
                }
                for index, word in enumerate(words.split())
            ]

        return {
            "id": graph_id,
            "name": f"subgraph {graph_id}",
            "nodes": self.nodes,
            "links": links,
            "inputNode": {"id": -10},
            "outputNode": {"id": -20},
            "inputs": ports(inputs, "origin", -10),
            "outputs": ports(outputs, "target", -20),
        }


@pytest.fixture
def ui() -> type[UiBuilder]:
    return UiBuilder


def make_signature(
    class_type: str,
    required: Mapping[str, Any] | None = None,
    optional: Mapping[str, Any] | None = None,
    outputs: tuple[str, ...] = ("IMAGE",),
) -> NodeSignature:
    info = {"input": {"required": required or {}, "optional": optional or {}}, "output": list(outputs)}
    return NodeSignature.from_object_info(class_type, info)


@pytest.fixture
def signature() -> Callable[..., NodeSignature]:
    return make_signature


@pytest.fixture
def make_plugins() -> Callable[..., Plugins]:
    """``make_plugins(name=object, …)``: plugins that are these objects."""

    def make(**objects: object) -> Plugins:
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        infos = []
        for name, plugin in objects.items():
            manager.register(plugin, name=name)
            infos.append(PluginInfo(name, f"dist-{name}", "1.0", (), "active"))
        return Plugins(manager, infos)

    return make


@pytest.fixture
def examples() -> Path:
    return EXAMPLES


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on how the machine's user has configured comfy-cpu."""
    for name in list(os.environ):
        if name.startswith("COMFY_CPU_"):
            monkeypatch.delenv(name)
