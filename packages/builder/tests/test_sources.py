"""Sources at a commit, out of a real repository on this machine."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from comfy_cpu_builder.layout import SOURCE_DATE_EPOCH
from comfy_cpu_builder.sources import SourceCache, find_commit
from comfy_cpu_core.errors import BuildError

PLACE = "/comfyui/custom_nodes/pack"


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "init.defaultBranch=main")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "nodes.py").write_text("NODES = {}\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link.py").symlink_to("nodes.py")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    git(folder, "tag", "-a", "v1", "-m", "v1")
    return folder


def test_a_tag_a_branch_and_a_commit_stand_for_a_commit(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    for reference in ("v1", "main", "HEAD", commit):
        assert find_commit(str(repository), reference) == commit


def test_a_commit_is_not_looked_up() -> None:
    assert find_commit("/nowhere", "0" * 40) == "0" * 40


def test_what_the_repository_does_not_have(repository: Path) -> None:
    with pytest.raises(BuildError, match="has no 'v2'"):
        find_commit(str(repository), "v2")


def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="nowhere") as caught:
        find_commit(str(tmp_path / "nowhere"), "v1")
    assert "can this machine reach it?" in str(caught.value.remedy)


def test_git_that_is_not_installed(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildError, match="git is not installed"):
        find_commit(str(repository), "v1")


def test_an_archive_has_the_files_at_their_place_and_nothing_of_git(repository: Path, tmp_path: Path) -> None:
    cache = SourceCache(tmp_path / "cache")
    locked = cache.get("pack", str(repository), git(repository, "rev-parse", "HEAD"), PLACE, licence="MIT")
    with tarfile.open(cache.require(locked)) as archive:
        members = {member.name: member for member in archive.getmembers()}
    root = PLACE.lstrip("/")
    assert sorted(members) == [root, *(f"{root}/{name}" for name in ("link.py", "nodes.py", "run.sh"))]
    assert members[f"{root}/link.py"].linkname == "nodes.py"
    assert [members[f"{root}/{name}"].mode for name in ("nodes.py", "run.sh")] == [0o644, 0o755]
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members.values()} == {(SOURCE_DATE_EPOCH, 0, 0, "")}


def test_the_same_commit_gives_the_same_bytes(repository: Path, tmp_path: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    mask = os.umask(0o077)
    try:
        first = SourceCache(tmp_path / "a").get("pack", str(repository), commit, PLACE)
    finally:
        os.umask(mask)
    assert SourceCache(tmp_path / "b").get("pack", str(repository), commit, PLACE) == first


def test_what_is_there_is_not_fetched(repository: Path, tmp_path: Path) -> None:
    cache = SourceCache(tmp_path / "cache")
    commit = git(repository, "rev-parse", "HEAD")
    locked = cache.get("pack", str(repository), commit, PLACE)
    repository.rename(tmp_path / "gone")
    assert cache.get("pack", str(repository), commit, PLACE) == locked


def test_an_archive_that_changed_is_thrown_away(repository: Path, tmp_path: Path) -> None:
    cache = SourceCache(tmp_path / "cache")
    locked = cache.get("pack", str(repository), git(repository, "rev-parse", "HEAD"), PLACE)
    cache.require(locked).write_bytes(b"evil")
    with pytest.raises(BuildError, match="is not what the lock says, and is thrown away"):
        cache.require(locked)
    with pytest.raises(BuildError, match="the source of pack is not in the cache"):
        cache.require(locked)


def test_a_commit_that_the_repository_does_not_have_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    cache = SourceCache(tmp_path / "cache")
    with pytest.raises(BuildError):
        cache.get("pack", str(repository), "0" * 40, PLACE)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
