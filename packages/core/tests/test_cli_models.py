"""``comfy-cpu models`` on models that come out of a directory; with the Hub it is run in tests/contract."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pluggy
import pytest

from comfy_cpu_core import builtin, hookspecs
from comfy_cpu_core.cli import main
from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.models import ModelFile, ModelNeed, ModelSpec
from comfy_cpu_core.plugins import Plugins
from comfy_cpu_core.registry import NodeRegistry
from comfy_cpu_core.workflow import PromptNode

DATA = b"weights"
SHA256 = hashlib.sha256(DATA).hexdigest()


class Answer(SimpleNamespace):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error:")]


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """The directory that the models come from."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "a").write_bytes(DATA)
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def models(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mirror: Path, tree: Path
) -> Callable[..., Answer]:
    """Call ``comfy-cpu models`` with a plugin that knows two models: ``known`` is pinned, ``open`` is not."""
    opened = ModelSpec("open", mirror.as_uri(), (ModelFile("a", "y/a"),), "who knows", notice="use it kindly")
    known = replace(opened, id="known", files=(ModelFile("a", "x/a", 7, SHA256),), licence="MIT", notice="")

    class Plugin:
        @hookimpl
        def comfy_cpu_models(self) -> Iterable[ModelSpec]:
            return [opened, known]

        @hookimpl
        def comfy_cpu_models_for_node(self, node: PromptNode) -> Iterable[ModelNeed]:
            if node.class_type == "Known":
                return [ModelNeed("known")]
            if node.class_type == "Other":
                return [ModelNeed(None, "variant", "HR", "choose another variant")]
            return []

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(builtin, name="core")
    manager.register(Plugin(), name="test")
    plugins = Plugins(manager)
    monkeypatch.setattr("comfy_cpu_core.plugins.get_plugins", lambda: plugins)
    monkeypatch.setattr("comfy_cpu_core.cli.main.get_plugins", lambda: plugins, raising=False)
    monkeypatch.setattr("comfy_cpu_core.registry.get_registry", lambda: NodeRegistry(plugins))
    monkeypatch.setenv("COMFY_CPU_MODELS", str(tree))

    def call(*arguments: str | Path) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(["models", *map(str, arguments)])
        captured = capsys.readouterr()
        return Answer(code=stopped.value.code, out=captured.out, err=captured.err)

    return call


def workflow(tmp_path: Path, *class_types: str) -> Path:
    path = tmp_path / "workflow.json"
    nodes = {str(i): {"class_type": name, "inputs": {}} for i, name in enumerate(class_types, start=1)}
    path.write_text(json.dumps(nodes))
    return path


def test_list(models: Callable[..., Answer], mirror: Path, tree: Path) -> None:
    listed = models("list")
    assert listed.code == 0
    assert f"model tree: {tree}" in listed.err
    assert [line.split("\t") for line in listed.out.splitlines()] == [
        ["model", "state", "size", "licence", "source", "revision"],
        ["known", "missing", "7 B", "MIT", mirror.as_uri(), "unresolved"],
        ["open", "missing", "unresolved", "who knows", mirror.as_uri(), "unresolved"],
    ]


def test_list_after_a_fetch(models: Callable[..., Answer], tree: Path) -> None:
    models("fetch", "open")
    row = models("list", "--json").json["list"][1]
    assert (row["id"], row["state"], row["size"], row["recorded"]) == ("open", "verified", 7, True)
    assert row["files"] == [{"target": "y/a", "path": str(tree / "y/a"), "size": 7, "sha256": SHA256}]
    assert "(recorded)" in models("list").out


def test_list_for_a_workflow(models: Callable[..., Answer], tmp_path: Path) -> None:
    rows = models("list", "--json", "--workflow", workflow(tmp_path, "Known", "LoadImage", "Known")).json["list"]
    assert [row["id"] for row in rows] == ["known"]
    assert models("list", "--workflow", workflow(tmp_path, "LoadImage")).out == "no models\n"


def test_a_workflow_that_is_none(models: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "workflow.json").write_text("[]")
    answer = models("list", "--workflow", tmp_path / "workflow.json")
    assert answer.code == 3
    assert len(answer.errors) == 1


def test_fetch_says_licence_notice_and_what_was_recorded(models: Callable[..., Answer], tree: Path) -> None:
    fetched = models("fetch", "open")
    assert fetched.code == 0
    assert fetched.out == ""
    assert "open: ? from file://" in fetched.err
    assert "licence: who knows" in fetched.err
    assert "warning: open: use it kindly" in fetched.err
    assert f"unresolved so far, now recorded in {tree}/.comfy-cpu/records/open.json: y/a" in fetched.err
    assert (tree / "y/a").read_bytes() == DATA
    assert "is there and right" in models("fetch", "open").err


def test_fetch_json(models: Callable[..., Answer], tree: Path) -> None:
    answer = models("fetch", "known", "open", "--json").json
    assert answer["models"] == str(tree)
    assert [report["model"] for report in answer["fetched"]] == ["known", "open"]
    assert answer["fetched"][0]["files"] == [
        {"target": "x/a", "path": str(tree / "x/a"), "size": 7, "sha256": SHA256, "action": "fetched"}
    ]
    assert answer["fetched"][0]["recorded"] == []
    assert answer["errors"] == []


def test_fetch_for_a_workflow(models: Callable[..., Answer], tree: Path, tmp_path: Path) -> None:
    answer = models("fetch", "--workflow", workflow(tmp_path, "Known", "Other"))
    assert answer.code == 0
    assert "warning: node 2 (Other): no known model fits; choose another variant" in answer.err
    assert (tree / "x/a").is_file()
    assert not (tree / "y/a").exists()


def test_fetch_into_another_tree(models: Callable[..., Answer], tree: Path, tmp_path: Path) -> None:
    models("fetch", "known", "--models", tmp_path / "other")
    assert (tmp_path / "other" / "x/a").is_file()
    assert not tree.exists()


def test_fetch_all_goes_on_after_an_error(models: Callable[..., Answer], tree: Path, mirror: Path) -> None:
    (mirror / "a").write_bytes(b"WEIGHTS")
    answer = models("fetch", "--all")
    assert answer.code == 4
    assert len(answer.errors) == 1
    assert "model known: a from" in answer.errors[0]
    assert not (tree / "x/a").exists()
    assert (tree / "y/a").read_bytes() == b"WEIGHTS"


def test_every_error_is_told(models: Callable[..., Answer], mirror: Path) -> None:
    (mirror / "a").unlink()
    answer = models("fetch", "--all", "--json")
    assert answer.code == 4
    assert len(answer.errors) == len(answer.json["errors"]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("fetch",), "which models?"), (("fetch", "nobody"), "knows a model 'nobody'"), (("verify", "x"), "model 'x'")],
)
def test_usage(models: Callable[..., Answer], arguments: tuple[str, ...], said: str) -> None:
    answer = models(*arguments)
    assert answer.code == 2
    assert said in answer.errors[0]


def test_verify_nothing(models: Callable[..., Answer]) -> None:
    answer = models("verify")
    assert (answer.code, answer.out) == (0, "no model is there\n")


def test_verify_what_is_there(models: Callable[..., Answer], tree: Path) -> None:
    models("fetch", "open")
    assert models("verify").out.splitlines() == ["model\tfile\tstate", "open\ty/a\tok"]
    missing = models("verify", "known")
    assert missing.code == 4
    assert missing.errors == ["error: model known: x/a is missing"]
    assert "hint: fetch again: `comfy-cpu models fetch known`" in missing.err


def test_verify_says_what_is_wrong(models: Callable[..., Answer], tree: Path) -> None:
    models("fetch", "open", "known")
    stat = (tree / "y/a").stat()
    (tree / "y/a").write_bytes(b"WEIGHTS")
    os.utime(tree / "y/a", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert models("verify").code == 0

    answer = models("verify", "--full", "--json")

    assert answer.code == 4
    assert answer.json["ok"] is False
    assert [(file["model"], file["state"]) for file in answer.json["files"]] == [
        ("known", "ok"),
        ("open", "wrong hash"),
    ]
    assert answer.json["files"][1]["expected_sha256"] == SHA256
    assert len(answer.errors) == 1
    assert "`comfy-cpu models fetch open --force`" in answer.err


def test_verify_what_nobody_recorded(models: Callable[..., Answer], tree: Path) -> None:
    (tree / "y").mkdir(parents=True)
    (tree / "y/a").write_bytes(DATA)
    answer = models("verify")
    assert answer.code == 0
    assert "open\ty/a\tunrecorded" in answer.out
