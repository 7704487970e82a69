"""Checking what lies in the tree, and where a model stands."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from comfy_cpu_core.errors import ModelCorrupt
from comfy_cpu_core.models import ModelFile, ModelNeed, ModelSpec
from comfy_cpu_core.needs import NodeNeed
from comfy_cpu_core.records import Record, write_record
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_core.verify import FileCheck, model_state, require_right_files, staging_folder, verify_model

DATA = b"weights"
SHA256 = hashlib.sha256(DATA).hexdigest()
SPEC = ModelSpec("x", "hf:a/b", (ModelFile("a", "x/a", len(DATA), SHA256),), "MIT")
OPEN = replace(SPEC, files=(ModelFile("a", "x/a"),))


@pytest.fixture
def tree(tmp_path: Path) -> ModelTree:
    return ModelTree(tmp_path / "models")


def put(tree: ModelTree, target: str, data: bytes = DATA) -> Path:
    path = tree.path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def check(spec: ModelSpec, tree: ModelTree, **options: bool) -> FileCheck:
    (only,) = verify_model(spec, tree, **options)
    return only


def test_ok(tree: ModelTree) -> None:
    path = put(tree, "x/a")
    assert check(SPEC, tree) == FileCheck("x/a", "ok", path, len(DATA), SHA256, len(DATA), SHA256)
    assert not check(SPEC, tree).wrong


def test_missing(tree: ModelTree) -> None:
    assert check(SPEC, tree) == FileCheck("x/a", "missing", expected_size=len(DATA), expected_sha256=SHA256)


def test_wrong_size(tree: ModelTree) -> None:
    put(tree, "x/a", b"weight")
    found = check(SPEC, tree)
    assert (found.state, found.wrong, found.describe()) == ("wrong size", True, "has 6 bytes instead of 7")
    assert found.sha256 is None


def test_wrong_hash(tree: ModelTree) -> None:
    put(tree, "x/a", b"WEIGHTS")
    found = check(SPEC, tree)
    assert (found.state, found.wrong) == ("wrong hash", True)
    assert found.describe() == f"has sha256 {hashlib.sha256(b'WEIGHTS').hexdigest()} instead of {SHA256}"


def test_unrecorded(tree: ModelTree) -> None:
    put(tree, "x/a")
    found = check(OPEN, tree)
    assert (found.state, found.wrong) == ("unrecorded", False)


def test_the_record_stands_in_for_what_is_open(tree: ModelTree) -> None:
    record = Record("x", "hf:a/b", None, "c", "").with_file(SPEC.files[0], size=len(DATA), sha256=SHA256)
    write_record(tree, record)
    put(tree, "x/a")
    assert check(OPEN, tree).state == "ok"
    put(tree, "x/a", b"WEIGHTS")
    assert check(OPEN, tree).state == "wrong hash"


def test_unreadable(tree: ModelTree, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tree, "x/a")

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("comfy_cpu_core.verify.sha256_file", refuse)
    found = check(SPEC, tree)
    assert (found.state, found.wrong, found.describe()) == ("unreadable", True, "cannot be read (Permission denied)")


def test_a_second_check_is_quick_and_a_full_one_is_not_fooled(tree: ModelTree) -> None:
    path = put(tree, "x/a")
    told: list[str] = []
    verify_model(SPEC, tree, progress=lambda target, done, total: told.append(target))
    verify_model(SPEC, tree, progress=lambda target, done, total: told.append(target))
    assert told == ["x/a"]

    stat = path.stat()
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert check(SPEC, tree).state == "ok"
    assert check(SPEC, tree, full=True).state == "wrong hash"
    assert check(SPEC, tree).state == "wrong hash"


def test_states(tree: ModelTree) -> None:
    two = replace(SPEC, files=(*SPEC.files, ModelFile("b", "x/b")))
    assert model_state(two, tree) == "missing"
    staging_folder(tree, "x").mkdir(parents=True)
    assert model_state(two, tree) == "missing"
    (staging_folder(tree, "x") / "part").write_bytes(b"w")
    assert model_state(two, tree) == "partial"
    (staging_folder(tree, "x") / "part").unlink()
    put(tree, "x/a")
    assert model_state(two, tree) == "partial"
    put(tree, "x/b")
    assert model_state(two, tree) == "present"
    assert model_state(SPEC, tree) == "present"
    verify_model(SPEC, tree)
    assert model_state(SPEC, tree) == "verified"
    put(tree, "x/a", b"weight")
    assert model_state(SPEC, tree) == "wrong"
    put(tree, "x/a", b"WEIGHTS")
    verify_model(SPEC, tree)
    assert model_state(SPEC, tree) == "wrong"


def test_the_state_reads_no_file(tree: ModelTree, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tree, "x/a")
    monkeypatch.setattr("comfy_cpu_core.verify.sha256_file", None)
    assert model_state(SPEC, tree) == "present"


def test_a_model_in_an_installed_package(tree: ModelTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site" / "weights_for_verify"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('must not be imported')")
    (folder / "a").write_bytes(DATA)
    monkeypatch.syspath_prepend(tmp_path / "site")
    packaged = replace(SPEC, source="package:weights_for_verify")

    assert model_state(packaged, tree) == "installed"
    assert check(packaged, tree).path == folder / "a"
    assert check(packaged, tree).state == "ok"
    assert check(packaged, tree, installed=False).state == "missing"
    assert not tree.root.exists()
    (folder / "a").write_bytes(b"WEIGHTS")
    assert check(packaged, tree, full=True).state == "wrong hash"


def needed(spec: ModelSpec | None) -> NodeNeed:
    return NodeNeed("4", "Cut", ModelNeed("x"), spec)


def test_a_run_wants_the_right_hash(tree: ModelTree) -> None:
    put(tree, "x/a")
    require_right_files([needed(SPEC), needed(None)], tree)
    put(tree, "x/a", b"WEIGHTS")
    with pytest.raises(ModelCorrupt, match=r"node 4 \(Cut\): model file .*x/a has sha256") as caught:
        require_right_files([needed(SPEC)], tree)
    assert "models fetch x --force" in str(caught.value.remedy)


def test_a_run_takes_what_nobody_knows_and_what_is_missing(tree: ModelTree) -> None:
    require_right_files([needed(SPEC)], tree)
    put(tree, "x/a", b"anything")
    require_right_files([needed(OPEN), needed(replace(SPEC, files=(ModelFile("a", "x/a", 7),)))], tree)


def test_a_run_hashes_a_file_once_even_where_nothing_can_be_noted(
    tree: ModelTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tree, "x/a")
    monkeypatch.setattr("comfy_cpu_core.verify.HashCache.put", lambda *_: None)
    require_right_files([needed(SPEC)], tree)
    monkeypatch.setattr("comfy_cpu_core.verify.sha256_file", lambda _: pytest.fail("hashed again"))
    require_right_files([needed(SPEC)], tree)
    os.utime(path, ns=(1, 1))
    with pytest.raises(pytest.fail.Exception):
        require_right_files([needed(SPEC)], tree)
