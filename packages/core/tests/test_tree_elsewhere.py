"""A model tree with folders in other places than below its root."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_cpu_core.errors import ModelMissing
from comfy_cpu_core.tree import ModelTree


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.fixture
def tree(tmp_path: Path) -> ModelTree:
    """Looks for `llm` on two disks, for everything else below its root."""
    return ModelTree(tmp_path / "models", (("llm", (tmp_path / "fast", tmp_path / "models" / "llm")),))


def test_a_folder_is_below_the_root_unless_said_otherwise(tree: ModelTree, tmp_path: Path) -> None:
    assert tree.places("ben2_onnx") == (tmp_path / "models" / "ben2_onnx",)
    assert tree.places("llm") == (tmp_path / "fast", tmp_path / "models" / "llm")


def test_the_first_place_that_has_a_file_wins(tree: ModelTree, tmp_path: Path) -> None:
    slow = put(tmp_path / "models" / "llm" / "a.gguf")
    assert tree.require("llm/a.gguf") == slow
    fast = put(tmp_path / "fast" / "a.gguf")
    assert tree.require("llm/a.gguf") == fast


def test_a_file_that_is_nowhere(tree: ModelTree, tmp_path: Path) -> None:
    assert tree.path("llm/a.gguf") == tmp_path / "fast" / "a.gguf"
    assert not tree.has("llm/a.gguf")
    with pytest.raises(ModelMissing, match=r"llm/a\.gguf is not in the model tree"):
        tree.require("llm/a.gguf")


def test_directories_are_found_too(tree: ModelTree, tmp_path: Path) -> None:
    put(tmp_path / "models" / "llm" / "Florence-2-base" / "config.json")
    assert tree.path("llm/Florence-2-base") == tmp_path / "models" / "llm" / "Florence-2-base"


def test_listing_joins_all_places(tree: ModelTree, tmp_path: Path) -> None:
    put(tmp_path / "models" / "llm" / "a.gguf")
    put(tmp_path / "models" / "llm" / "sub" / "b.GGUF")
    put(tmp_path / "models" / "llm" / "notes.txt")
    put(tmp_path / "fast" / "a.gguf")
    put(tmp_path / "fast" / "sub" / "c.gguf")
    assert tree.files("llm", [".gguf"]) == ["a.gguf", "sub/b.GGUF", "sub/c.gguf"]
    assert tree.files("llm/sub", [".gguf"]) == ["b.GGUF", "c.gguf"]
    assert tree.files("LLM", [".gguf"]) == []


def test_a_name_from_another_machine(tree: ModelTree, tmp_path: Path) -> None:
    there = put(tmp_path / "models" / "llm" / "sub" / "b.gguf")
    assert tree.find_by_name("C:\\models\\b.gguf", ["LLM", "llm"]) == there


def test_a_path_leads_back_to_its_target(tree: ModelTree, tmp_path: Path) -> None:
    put(tmp_path / "fast" / "sub" / "b.gguf")
    put(tmp_path / "models" / "llm" / "a.gguf")
    for target in ("llm/sub/b.gguf", "llm/a.gguf", "ben2_onnx/BEN2_Base.onnx", "llm/nowhere.gguf"):
        assert tree.target_of(tree.path(target)) == target
    with pytest.raises(ValueError, match="is not in the subpath"):
        tree.target_of(tmp_path / "other.gguf")
