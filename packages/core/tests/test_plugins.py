"""Finding plugins, and asking them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pluggy
import pytest

from comfy_cpu_core import hookspecs
from comfy_cpu_core import plugins as plugins_module
from comfy_cpu_core.errors import UsageError
from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.plugins import DISABLED_VARIABLE, PluginInfo, Plugins, get_plugins, load_plugins
from comfy_cpu_core.workflow import PromptNode

MakePlugins = Callable[..., Plugins]

GOOD = """
from comfy_cpu_core.hookspecs import hookimpl
@hookimpl
def comfy_cpu_models():
    return []
@hookimpl
def comfy_cpu_models_for_node():
    return []
"""
UNKNOWN_HOOK = """
from comfy_cpu_core.hookspecs import hookimpl
@hookimpl
def comfy_cpu_modles():
    return []
@hookimpl
def comfy_cpu_models():
    return []
"""
WRONG_ARGUMENT = """
from comfy_cpu_core.hookspecs import hookimpl
@hookimpl
def comfy_cpu_models(everything):
    return []
"""


class Installed:
    """Distributions in a directory of their own, in place of those that are really installed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, distribution: str, **modules: str) -> None:
        """A distribution that brings one plugin for each module, called as the module."""
        info = self.root / f"{distribution}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        lines = []
        for name, source in modules.items():
            module = f"{distribution}_{name}"
            (self.root / f"{module}.py").write_text(source)
            lines.append(f"{name} = {module}")
        (info / "entry_points.txt").write_text("[comfy_cpu]\n" + "\n".join(lines) + "\n")

    def entry_points(self, *, group: str) -> Iterable[metadata.EntryPoint]:
        for distribution in metadata.distributions(path=[str(self.root)]):
            yield from distribution.entry_points.select(group=group)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    found = Installed(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(metadata, "entry_points", found.entry_points)
    before = set(sys.modules)
    yield found
    for name in set(sys.modules) - before:
        del sys.modules[name]


def by_name(plugins: Plugins) -> dict[str, PluginInfo]:
    return {info.name: info for info in plugins.infos()}


class TestLoading:
    def test_plugins_are_found(self, installed: Installed) -> None:
        installed.add("dist", zebra=GOOD, ant=GOOD)
        plugins = load_plugins({})
        assert [info.name for info in plugins.infos()] == ["ant", "core", "zebra"]
        assert by_name(plugins)["ant"] == PluginInfo(
            "ant", "dist", "1.2", ("comfy_cpu_models", "comfy_cpu_models_for_node"), "active"
        )
        assert by_name(plugins)["core"].distribution == "comfy-cpu-core"
        assert "comfy_cpu_commands" in by_name(plugins)["core"].hooks
        assert plugins.manager.has_plugin("ant")

    @pytest.mark.parametrize(
        ("source", "problem"),
        [
            ("import no_such_library_of_tests", "ModuleNotFoundError: No module named 'no_such_library_of_tests'"),
            ("1/0", "ZeroDivisionError: division by zero"),
            ("def broken(:", "SyntaxError: "),
            (UNKNOWN_HOOK, "PluginValidationError: unknown hook 'comfy_cpu_modles'"),
            (WRONG_ARGUMENT, "PluginValidationError: "),
        ],
        ids=["library", "exception", "syntax", "unknown hook", "wrong argument"],
    )
    def test_a_broken_plugin_is_reported_and_left_out(self, installed: Installed, source: str, problem: str) -> None:
        installed.add("dist", bad=source, good=GOOD, worse=source)
        plugins = load_plugins({})
        infos = by_name(plugins)
        assert {name: info.state for name, info in infos.items()} == {
            "bad": "broken",
            "core": "active",
            "good": "active",
            "worse": "broken",
        }
        assert infos["bad"].problem.startswith(problem)
        assert infos["bad"].hooks == ()
        assert {name for name, _ in plugins.manager.list_name_plugin()} == {"core", "good"}
        assert plugins.collect("comfy_cpu_models") == []
        with pytest.raises((ImportError, ArithmeticError, SyntaxError, pluggy.PluginValidationError)) as caught:
            load_plugins({}, strict=True)
        assert f"{type(caught.value).__name__}: {caught.value}".startswith(problem)

    def test_disabled_plugins_are_not_even_imported(self, installed: Installed) -> None:
        installed.add("dist", bad="1/0", good=GOOD, last=GOOD)
        plugins = load_plugins({DISABLED_VARIABLE: " bad ,last,, no-such "}, strict=True)
        assert {name: info.state for name, info in by_name(plugins).items()} == {
            "bad": "disabled",
            "core": "active",
            "good": "active",
            "last": "disabled",
        }
        assert by_name(plugins)["bad"].distribution == "dist"
        assert "dist_last" not in sys.modules

    @pytest.mark.parametrize("name", ["mine", "core"])
    def test_two_distributions_with_one_plugin_name(self, installed: Installed, name: str) -> None:
        installed.add("first", **{name: GOOD})
        installed.add("second", **{name: GOOD})
        plugins = load_plugins({})
        infos = by_name(plugins)
        assert infos[name].state == "active"
        assert infos[name].distribution == ("comfy-cpu-core" if name == "core" else "first")
        assert infos[f"{name} of second"].state == "broken"
        assert infos[f"{name} of second"].problem == f"another distribution brings a plugin {name!r}, too"
        assert plugins.manager.has_plugin(name)
        with pytest.raises(UsageError, match="another distribution brings a plugin"):
            load_plugins({}, strict=True)

    def test_once_per_process(self, installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
        installed.add("dist", good=GOOD)
        monkeypatch.setenv(DISABLED_VARIABLE, "good")
        get_plugins.cache_clear()
        try:
            assert get_plugins() is get_plugins()
            assert by_name(get_plugins())["good"].state == "disabled"
        finally:
            get_plugins.cache_clear()

    def test_a_version_that_is_not_known(self, installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(name: str) -> str:
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(plugins_module.metadata, "version", unknown)
        assert by_name(load_plugins({}))["core"].version == ""


@dataclass
class Item:
    name: str


class Gives:
    def __init__(self, *items: Any) -> None:
        self.items = items

    @hookimpl
    def comfy_cpu_models(self) -> Any:
        return iter(self.items)


class GivesNothing:
    @hookimpl
    def comfy_cpu_models(self) -> None:
        return None


class Fails:
    @hookimpl
    def comfy_cpu_models(self) -> Iterable[Any]:
        yield Item("half")
        raise ValueError("too bad")


class TestAsking:
    def test_sorted_by_plugin_then_in_its_own_order(self, make_plugins: MakePlugins) -> None:
        plugins = make_plugins(zebra=Gives(3, 1), nothing=GivesNothing(), ant=Gives(2, 9), none=object())
        assert plugins.collect("comfy_cpu_models") == [("ant", 2), ("ant", 9), ("zebra", 3), ("zebra", 1)]

    def test_arguments_that_a_plugin_leaves_out(self, make_plugins: MakePlugins) -> None:
        class Takes:
            @hookimpl
            def comfy_cpu_models_for_node(self, node: PromptNode) -> Iterable[Any]:
                return [node.id]

        class LeavesOut:
            @hookimpl
            def comfy_cpu_models_for_node(self) -> Iterable[Any]:
                return ["always"]

        plugins = make_plugins(a=Takes(), b=LeavesOut())
        node = PromptNode("7", "A")
        assert plugins.collect("comfy_cpu_models_for_node", node=node) == [("a", "7"), ("b", "always")]

    def test_a_hook_that_raises(self, make_plugins: MakePlugins) -> None:
        plugins = make_plugins(bad=Fails(), good=Gives(1))
        told: list[tuple[str, str]] = []
        assert plugins.collect("comfy_cpu_models", on_problem=lambda *problem: told.append(problem)) == [("good", 1)]
        assert told == [("bad", "ValueError: too bad")]
        info = by_name(plugins)["bad"]
        assert (info.state, info.problem, info.distribution) == (
            "broken",
            "comfy_cpu_models: ValueError: too bad",
            "dist-bad",
        )
        with pytest.raises(ValueError, match="too bad"):
            plugins.collect("comfy_cpu_models", strict=True)

    def test_a_plugin_without_an_entry(self, make_plugins: MakePlugins) -> None:
        plugins = make_plugins()
        plugins.manager.register(Fails(), name="late")
        plugins.collect("comfy_cpu_models")
        assert by_name(plugins)["late"].state == "broken"

    def test_no_such_hook(self, make_plugins: MakePlugins) -> None:
        with pytest.raises(AttributeError, match="comfy_cpu_nothing"):
            make_plugins().collect("comfy_cpu_nothing")

    def test_unique(self, make_plugins: MakePlugins) -> None:
        a, b, c = Item("a"), Item("b"), Item("c")
        plugins = make_plugins(two=Gives(c), one=Gives(b, a))
        assert list(plugins.unique("comfy_cpu_models", "name", "model").items()) == [("a", a), ("b", b), ("c", c)]

    def test_the_same_key_twice_names_both(self, make_plugins: MakePlugins) -> None:
        with pytest.raises(UsageError, match="plugins 'one' and 'two' both bring the model 'a'") as caught:
            make_plugins(two=Gives(Item("a")), one=Gives(Item("a"))).unique("comfy_cpu_models", "name", "model")
        assert DISABLED_VARIABLE in (caught.value.remedy or "")

    def test_what_has_no_such_key(self, make_plugins: MakePlugins) -> None:
        plugins = make_plugins(bad=Gives("text"), good=Gives(Item("a")))
        assert list(plugins.unique("comfy_cpu_models", "name", "model")) == ["a"]
        assert by_name(plugins)["bad"].problem == "comfy_cpu_models: 'text' is no model"

    def test_note_problem(self, make_plugins: MakePlugins) -> None:
        plugins = make_plugins(p=object())
        plugins.note_problem("p", "first")
        plugins.note_problem("p", "second")
        plugins.note_problem("nobody", "third")
        assert [(info.name, info.state, info.problem) for info in plugins.infos()] == [("p", "active", "first")]


def test_every_hook_says_what_it_is_for() -> None:
    hooks = [getattr(hookspecs, name) for name in vars(hookspecs) if name.startswith("comfy_cpu_")]
    assert hooks
    for hook in hooks:
        documentation = hook.__doc__ or ""
        assert "Called" in documentation, hook.__name__
        assert "Example::" in documentation, hook.__name__
