"""Model data: what a plugin may say, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_cpu_core.models import ModelFile, ModelSpec

FILE = ModelFile("a.onnx", "x/a.onnx", size=3)


def spec(**changes: Any) -> ModelSpec:
    return ModelSpec(**{"id": "x", "source": "hf:a/b", "files": (FILE,), "licence": "MIT", **changes})


@pytest.mark.parametrize(
    "target", ["", "/etc/passwd", "../a", "x/../../a", "x\\a", ".comfy-cpu/records/x.json", "a\0b"]
)
def test_targets_stay_in_the_tree(target: str) -> None:
    with pytest.raises(ValueError, match="is not a path inside the model tree"):
        ModelFile("a", target)
    with pytest.raises(ValueError, match="is not a path inside the model tree"):
        ModelFile("a", "x/a", also=("y/a", target))


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../a", "x/../../a"])
def test_paths_stay_in_the_source(path: str) -> None:
    with pytest.raises(ValueError, match="is not a path inside the source"):
        ModelFile(path, "x/a")


@pytest.mark.parametrize("sha256", ["", "abc", "A" * 64, "g" * 64])
def test_hashes_are_hashes(sha256: str) -> None:
    with pytest.raises(ValueError, match="is not 64 hexadecimal digits"):
        ModelFile("a", "x/a", sha256=sha256)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "a b", "x\n", "x" * 101])
def test_ids_are_file_names(name: str) -> None:
    with pytest.raises(ValueError, match="has other characters"):
        spec(id=name)


def test_files_are_there_and_differ() -> None:
    with pytest.raises(ValueError, match="has no files"):
        spec(files=())
    with pytest.raises(ValueError, match="two files with the same target"):
        spec(files=(FILE, ModelFile("b.onnx", FILE.target)))


def test_resolved_means_that_everything_is_known() -> None:
    whole = ModelFile("a", "x/a", 3, "0" * 64)
    assert not spec().resolved
    assert not spec(files=(whole,)).resolved
    assert spec(files=(whole,), revision="c").resolved
    assert spec(files=(whole, FILE)).size is not None
    assert spec(files=(whole, ModelFile("b", "x/b"))).size is None
    assert spec().scheme == "hf"
