"""Records of fetches, and the cache of hashes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from comfy_cpu_core.errors import ModelCorrupt
from comfy_cpu_core.models import ModelFile, ModelSpec
from comfy_cpu_core.records import HashCache, Record, RecordedFile, pin, read_record, record_path, write_record
from comfy_cpu_core.tree import ModelTree

SPEC = ModelSpec("x", "hf:a/b", (ModelFile("a", "x/a"), ModelFile("b", "x/b", size=2)), "MIT")
A, B = "a" * 64, "b" * 64
RECORD = Record("x", "hf:a/b", None, "c0ffee", "2026-01-02T03:04:05+00:00", {"x/a": RecordedFile("a", 1, A)})


@pytest.fixture
def tree(tmp_path: Path) -> ModelTree:
    return ModelTree(tmp_path / "models")


def test_written_and_read(tree: ModelTree) -> None:
    assert read_record(tree, "x") is None
    path = write_record(tree, RECORD)
    assert path == record_path(tree, "x") == tree.root / ".comfy-cpu" / "records" / "x.json"
    assert read_record(tree, "x") == RECORD


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"format": 2}', '{"format": 1, "model": "x"}', '{"format": 1, "files": []}']
)
def test_a_damaged_record_is_an_error(tree: ModelTree, text: str) -> None:
    write_record(tree, RECORD).write_text(text)
    with pytest.raises(ModelCorrupt, match=r"the record .*x\.json of model x cannot be read") as raised:
        read_record(tree, "x")
    assert "delete that file" in str(raised.value.remedy)


def test_pin_fills_in_what_is_open() -> None:
    pinned = pin(SPEC, RECORD)
    assert pinned.revision == "c0ffee"
    assert pinned.files == (ModelFile("a", "x/a", 1, A), ModelFile("b", "x/b", size=2))
    assert pin(SPEC, None) == SPEC


def test_the_spec_goes_before_the_record() -> None:
    named = replace(SPEC, files=(ModelFile("a", "x/a", 7, B),))
    assert pin(named, RECORD).files == named.files


@pytest.mark.parametrize(
    "moved_on",
    [
        replace(SPEC, source="hf:a/c"),
        replace(SPEC, revision="decaf"),
        replace(SPEC, files=(ModelFile("other", "x/a"),)),
    ],
)
def test_a_record_of_something_else_pins_no_hash(moved_on: ModelSpec) -> None:
    assert all(file.sha256 is None for file in pin(moved_on, RECORD).files)


@pytest.mark.parametrize(("asked", "revision"), [("main", "main"), ("main", "c0ffee"), (None, "c0ffee")])
def test_a_record_of_the_same_revision_applies(asked: str | None, revision: str) -> None:
    record = replace(RECORD, asked=asked)
    assert pin(replace(SPEC, revision=revision), record).files[0].sha256 == A


def test_with_file_adds_and_dates() -> None:
    more = RECORD.with_file(SPEC.files[1], size=2, sha256=B)
    assert more.files == {"x/a": RecordedFile("a", 1, A), "x/b": RecordedFile("b", 2, B)}
    assert more.fetched_at > RECORD.fetched_at
    assert "x/b" not in RECORD.files


def test_hashes_are_remembered_until_the_file_changes(tree: ModelTree) -> None:
    path = tree.path("x/a")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"1")
    HashCache(tree, "x").put(path, A)
    assert HashCache(tree, "x").get(path) == A
    assert HashCache(tree, "y").get(path) is None

    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert HashCache(tree, "x").get(path) is None
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert HashCache(tree, "x").get(path) == A
    path.write_bytes(b"12")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert HashCache(tree, "x").get(path) is None


@pytest.mark.parametrize("text", ["", "[]", '{"x/a": 1}', '{"x/a": [1, "2", "3"]}'])
def test_a_damaged_cache_is_an_empty_one(tree: ModelTree, text: str) -> None:
    path = tree.path("x/a")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"1")
    folder = tree.root / ".comfy-cpu" / "hashes"
    folder.mkdir(parents=True)
    (folder / "x.json").write_text(text)
    assert HashCache(tree, "x").get(path) is None


def test_a_tree_that_cannot_be_written_goes_without_a_cache(tree: ModelTree) -> None:
    path = tree.path("x/a")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"1")
    (tree.root / ".comfy-cpu").write_text("in the way")
    cache = HashCache(tree, "x")
    cache.put(path, A)
    assert cache.get(path) == A
    assert HashCache(tree, "x").get(path) is None
