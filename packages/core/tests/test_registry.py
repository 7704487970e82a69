"""The node classes that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from comfy_cpu_core import registry as registry_module
from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.nodes import NodeClass
from comfy_cpu_core.plugins import Plugins
from comfy_cpu_core.registry import Conflict, NodeRegistry, get_registry

MakePlugins = Callable[..., Plugins]


class Node:
    read = 0
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        cls.read += 1
        return {"required": {"x": ("INT",)}}


class BadNode:
    read = 0

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        cls.read += 1
        raise KeyError("folder")


class Brings:
    def __init__(self, *items: Any) -> None:
        self.items = items
        self.asked = 0

    @hookimpl
    def comfy_cpu_node_classes(self) -> Iterable[Any]:
        self.asked += 1
        return self.items


class Fails:
    @hookimpl
    def comfy_cpu_node_classes(self) -> Iterable[Any]:
        raise RuntimeError("no licence")


def problem(plugins: Plugins, name: str) -> tuple[str, str]:
    return next((info.state, info.problem) for info in plugins.infos() if info.name == name)


def test_classes_of_plugins(make_plugins: MakePlugins) -> None:
    sharpen = NodeClass("Sharpen", Node, "Sharpen (mine)")
    plugin = Brings(sharpen, NodeClass("Blur", Node, "Blur"))
    registry = NodeRegistry(make_plugins(mine=plugin))
    assert registry.get("Sharpen") is sharpen
    assert registry.get("Unknown") is None
    assert registry.plugin_of("Sharpen") == "mine"
    assert registry.plugin_of("Unknown") is None
    assert sorted(registry) == sorted(registry.classes) == ["Blur", "Sharpen"]
    assert "Sharpen" in registry
    assert "Unknown" not in registry
    assert len(registry) == 2
    assert registry.conflicts == ()
    assert plugin.asked == 1


def test_signatures_are_read_when_needed_and_once(make_plugins: MakePlugins) -> None:
    class Counted(Node):
        read = 0

    registry = NodeRegistry(make_plugins(mine=Brings(NodeClass("A", Counted, "A"))))
    assert Counted.read == 0
    assert registry.signatures["A"].class_type == "A"
    assert registry.signatures.get("A") is registry.signatures["A"]
    assert Counted.read == 1
    with pytest.raises(KeyError, match="B"):
        registry.signatures["B"]


def test_the_first_plugin_by_name_wins_and_everybody_hears_of_it(make_plugins: MakePlugins) -> None:
    first, second, third = (NodeClass("A", Node, name) for name in "123")
    plugins = make_plugins(zebra=Brings(third), bee=Brings(second), ant=Brings(first))
    registry = NodeRegistry(plugins)
    assert registry.get("A") is first
    assert registry.conflicts == (Conflict("A", "ant", ("bee", "zebra")),)
    assert problem(plugins, "ant") == ("active", "")
    assert problem(plugins, "zebra") == ("active", "the node class 'A' is taken from plugin 'ant'")


def test_broken_plugins_and_classes_do_no_harm(make_plugins: MakePlugins) -> None:
    plugins = make_plugins(
        bad=Brings(NodeClass("Bad", BadNode, "Bad"), NodeClass("Good", Node, "Good")),
        wrong=Brings("Sharpen"),
        worse=Fails(),
    )
    registry = NodeRegistry(plugins)
    assert problem(plugins, "worse") == ("broken", "comfy_cpu_node_classes: RuntimeError: no licence")
    assert problem(plugins, "wrong") == ("active", "comfy_cpu_node_classes gave str, not NodeClass")
    assert list(registry) == ["Good"]
    assert registry.signatures.get("Bad") is None
    assert registry.problems == {"Bad": "its inputs cannot be read (KeyError: 'folder')"}
    assert problem(plugins, "bad") == ("active", "node class 'Bad': its inputs cannot be read (KeyError: 'folder')")
    assert BadNode.read == 1
    assert registry.get("Bad") is not None  # it is there, but nobody can use it


def test_what_a_comfyui_has(make_plugins: MakePlugins) -> None:
    info = {
        "A": {"input": {"required": {"theirs": ["INT"]}}, "output": ["MASK"]},
        "KSampler": {"input": {"required": {"seed": ["INT"]}}, "output": ["LATENT"]},
        "Broken": {"input": 7},
    }
    registry = NodeRegistry(make_plugins(mine=Brings(NodeClass("A", Node, "A"))), object_info=info)
    assert sorted(registry) == ["A", "KSampler"]
    assert registry.get("KSampler") is None
    assert registry.signatures["KSampler"].outputs == ("LATENT",)
    assert registry.signatures["A"].input("theirs") is not None  # the ComfyUI's word counts
    assert list(registry.problems) == ["Broken"]


def test_no_plugins() -> None:
    assert list(NodeRegistry()) == []


def test_once_per_process(make_plugins: MakePlugins, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = Brings(NodeClass("A", Node, "A"))
    monkeypatch.setattr(registry_module, "get_plugins", lambda: make_plugins(mine=plugin))
    get_registry.cache_clear()
    try:
        assert get_registry() is get_registry()
        assert plugin.asked == 1
    finally:
        get_registry.cache_clear()
