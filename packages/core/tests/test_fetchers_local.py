"""Models out of installed packages and out of directories."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from comfy_cpu_core.errors import ModelCorrupt, ModelError
from comfy_cpu_core.fetch import Fetchers, fetch_model
from comfy_cpu_core.fetchers import FetcherType
from comfy_cpu_core.fetchers.file import FileFetcher
from comfy_cpu_core.fetchers.package import PackageFetcher, package_file
from comfy_cpu_core.models import ModelFile, ModelSpec
from comfy_cpu_core.records import read_record
from comfy_cpu_core.tree import ModelTree

FETCHERS = Fetchers(
    {
        "package": FetcherType("package", PackageFetcher, online=False),
        "file": FetcherType("file", FileFetcher, online=False),
    }
)
PACKAGED = ModelSpec("p", "package:weights_for_fetch", (ModelFile("data/a.onnx", "x/a.onnx"),), "MIT")


@pytest.fixture
def tree(tmp_path: Path) -> ModelTree:
    return ModelTree(tmp_path / "models")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that must not be imported, of the distribution Fetch-Weights 1.2."""
    folder = tmp_path / "site" / "weights_for_fetch"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('must not be imported')")
    (folder / "data" / "a.onnx").write_bytes(b"weights")
    release(tmp_path, "1.2")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder


def release(tmp_path: Path, version: str) -> None:
    installed = tmp_path / "site" / "fetch_weights-1.2.dist-info"
    installed.mkdir(exist_ok=True)
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: Fetch-Weights\nVersion: {version}\n")
    (installed / "top_level.txt").write_text("weights_for_fetch\n")
    (installed / "RECORD").write_text("weights_for_fetch/__init__.py,,\n")


def test_package_file(package: Path) -> None:
    assert package_file("weights_for_fetch", "data/a.onnx") == package / "data" / "a.onnx"
    assert package_file("weights_for_fetch", "data/b.onnx") is None
    assert package_file("weights_for_fetch", "data") is None
    assert package_file("no_such_package", "a") is None
    assert package_file("json.decoder", "a") is None
    assert package_file("this", "a") is None  # a module is no package
    assert "weights_for_fetch" not in sys.modules


def test_package_into_the_tree(package: Path, tree: ModelTree) -> None:
    report = fetch_model(PACKAGED, tree, FETCHERS)
    assert report.revision == "1.2"
    assert tree.path("x/a.onnx").read_bytes() == b"weights"
    assert (package / "data" / "a.onnx").read_bytes() == b"weights"
    assert "weights_for_fetch" not in sys.modules


def test_package_that_is_not_installed(tree: ModelTree) -> None:
    with pytest.raises(ModelError, match="part of the Python package 'no_such_package', which is not") as raised:
        fetch_model(replace(PACKAGED, source="package:no_such_package"), tree, FETCHERS)
    assert raised.value.remedy == "install it: `pip install no_such_package`"


def test_package_that_lacks_the_file(package: Path, tree: ModelTree) -> None:
    (package / "data" / "a.onnx").unlink()
    with pytest.raises(ModelError, match=r"model p: Fetch-Weights 1\.2 has no file data/a\.onnx") as raised:
        fetch_model(PACKAGED, tree, FETCHERS)
    assert "--force-reinstall Fetch-Weights" in str(raised.value.remedy)


def test_package_of_another_version(package: Path, tree: ModelTree) -> None:
    with pytest.raises(ModelError, match=r"is from Fetch-Weights 1\.1, but 1\.2 is installed") as raised:
        fetch_model(replace(PACKAGED, revision="1.1"), tree, FETCHERS)
    assert "install Fetch-Weights==1.1" in str(raised.value.remedy)


def test_package_of_a_new_version_with_the_same_data(package: Path, tree: ModelTree, tmp_path: Path) -> None:
    fetch_model(PACKAGED, tree, FETCHERS)
    tree.path("x/a.onnx").unlink()
    release(tmp_path, "1.3")
    assert fetch_model(PACKAGED, tree, FETCHERS).revision == "1.3"


def test_package_of_a_new_version_with_other_data(package: Path, tree: ModelTree, tmp_path: Path) -> None:
    fetch_model(PACKAGED, tree, FETCHERS)
    tree.path("x/a.onnx").unlink()
    release(tmp_path, "1.3")
    (package / "data" / "a.onnx").write_bytes(b"WEIGHTS")
    with pytest.raises(ModelCorrupt, match=r"copied from .*/data/a\.onnx\) has sha256"):
        fetch_model(PACKAGED, tree, FETCHERS)
    assert (package / "data" / "a.onnx").read_bytes() == b"WEIGHTS"


def test_directory_into_the_tree(tree: ModelTree, tmp_path: Path) -> None:
    mirror = tmp_path / "my mirror"
    (mirror / "data").mkdir(parents=True)
    (mirror / "data" / "a.onnx").write_bytes(b"weights")
    spec = replace(PACKAGED, source=mirror.as_uri())
    report = fetch_model(spec, tree, FETCHERS)
    assert report.revision is None
    assert report.recorded == ("x/a.onnx",)
    assert tree.path("x/a.onnx").read_bytes() == b"weights"
    assert (mirror / "data" / "a.onnx").is_file()
    record = read_record(tree, "p")
    assert record is not None
    assert record.revision is None

    tree.path("x/a.onnx").unlink()
    (mirror / "data" / "a.onnx").write_bytes(b"WEIGHTS")
    with pytest.raises(ModelCorrupt, match="has sha256"):
        fetch_model(spec, tree, FETCHERS)


def test_directory_without_the_file(tree: ModelTree, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"there is no file data/a\.onnx in {tmp_path}") as raised:
        fetch_model(replace(PACKAGED, source=tmp_path.as_uri()), tree, FETCHERS)
    assert raised.value.remedy is None
    with pytest.raises(ModelError) as raised:
        fetch_model(replace(PACKAGED, source=(tmp_path / "volume").as_uri()), tree, FETCHERS)
    assert raised.value.remedy == "is the volume mounted?"


@pytest.mark.parametrize("source", ["file:models", "file://server/models", "file:"])
def test_source_that_is_no_local_directory(tree: ModelTree, source: str) -> None:
    with pytest.raises(ModelError, match="is not a directory of this machine"):
        fetch_model(replace(PACKAGED, source=source), tree, FETCHERS)
