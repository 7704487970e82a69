"""The model tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_cpu_core.errors import ModelMissing
from comfy_cpu_core.tree import ModelTree, default_models_dir


@pytest.fixture
def tree(tmp_path: Path) -> ModelTree:
    for name in (
        "llm/b.gguf",
        "llm/a.GGUF",
        "llm/sub/c.gguf",
        "llm/notes.txt",
        "LLM/d.gguf",
        "llm/same.gguf",
        "LLM/same.gguf",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "llm" / "folder.gguf").mkdir()
    return ModelTree(tmp_path)


def test_where_the_tree_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert default_models_dir({"COMFY_CPU_MODELS": "/models", "XDG_DATA_HOME": "/data"}) == Path("/models")
    assert default_models_dir({"XDG_DATA_HOME": "/data"}) == Path("/data/comfy-cpu/models")
    assert default_models_dir({"COMFY_CPU_MODELS": ""}) == Path("/home/me/.local/share/comfy-cpu/models")


def test_files_by_their_path_in_the_tree(tree: ModelTree) -> None:
    assert tree.path("llm/b.gguf") == tree.root / "llm" / "b.gguf"
    assert tree.has("llm/b.gguf")
    assert not tree.has("llm")
    assert not tree.has("llm/gone.gguf")
    assert tree.require("llm/b.gguf").read_bytes() == b"x"


def test_a_file_that_must_be_there(tree: ModelTree) -> None:
    with pytest.raises(ModelMissing, match=r"model file llm/gone\.gguf is not in the model tree") as caught:
        tree.require("llm/gone.gguf")
    assert str(tree.root) in str(caught.value)
    assert "models fetch" in (caught.value.remedy or "")
    with pytest.raises(ModelMissing) as caught:
        tree.require("llm/gone.gguf", remedy="buy it")
    assert caught.value.remedy == "buy it"


def test_files_below_a_folder(tree: ModelTree) -> None:
    assert tree.files("llm", [".gguf"]) == ["a.GGUF", "b.gguf", "same.gguf", "sub/c.gguf"]
    assert tree.files("llm", [".TXT"]) == ["notes.txt"]
    assert tree.files("nothing", [".gguf"]) == []


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("b.gguf", "llm/b.gguf"),
        ("C:/Users/me/models/llm/b.gguf", "llm/b.gguf"),
        (r"D:\ComfyUI\models\llm\d.gguf", "LLM/d.gguf"),
        ("/srv/models/c.gguf", "llm/sub/c.gguf"),
        ("same.gguf", "llm/same.gguf"),  # the folder that was named first
        ("gone.gguf", None),
        ("folder.gguf", None),
        ("", None),
        ("/", None),
        ("llm/", None),
    ],
)
def test_a_model_named_on_another_machine(tree: ModelTree, named: str, found: str | None) -> None:
    assert tree.find_by_name(named, ["llm", "LLM"]) == (tree.path(found) if found else None)
