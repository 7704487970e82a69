"""Files written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path

import pytest

from comfy_cpu_core.files import copy_file, is_no_space, place_file, sha256_file, write_json

DATA = bytes(range(256)) * 40_000  # 10 MB: more than one read


def test_hash_with_progress(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(DATA)
    told: list[tuple[int, int]] = []
    assert sha256_file(tmp_path / "a", lambda *what: told.append(what)) == hashlib.sha256(DATA).hexdigest()
    assert len(told) > 1
    assert told == sorted(told)
    assert told[-1] == (len(DATA), len(DATA))


def test_hash_of_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"").hexdigest()


def test_copy_with_progress(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(DATA)
    told: list[tuple[int, int]] = []
    copy_file(tmp_path / "a", tmp_path / "b", lambda *what: told.append(what))
    assert (tmp_path / "b").read_bytes() == DATA
    assert told[-1] == (len(DATA), len(DATA))


def test_place_makes_folders_and_replaces(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        (tmp_path / "staged").write_bytes(content)
        place_file(tmp_path / "staged", tmp_path / "x" / "y" / "final")
        assert (tmp_path / "x" / "y" / "final").read_bytes() == content
        assert not (tmp_path / "staged").exists()


def test_place_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "users own").write_bytes(b"old")
    (tmp_path / "final").symlink_to(tmp_path / "users own")
    (tmp_path / "staged").write_bytes(b"new")
    place_file(tmp_path / "staged", tmp_path / "final")
    assert (tmp_path / "users own").read_bytes() == b"old"
    assert (tmp_path / "final").read_bytes() == b"new"


def test_place_in_a_folder_on_another_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.parent != target.parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    (tmp_path / "staged").write_bytes(b"new")
    place_file(tmp_path / "staged", tmp_path / "x" / "final")
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["final"]
    assert (tmp_path / "x" / "final").read_bytes() == b"new"
    assert not (tmp_path / "staged").exists()


def test_json_is_written_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "x" / "a.json", {"b": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "x" / "a.json", {"b": object()})
    assert json.loads((tmp_path / "x" / "a.json").read_text()) == {"b": 1}
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["a.json"]


def test_no_space() -> None:
    assert is_no_space(OSError(errno.ENOSPC, "No space left on device"))
    assert not is_no_space(OSError(errno.EACCES, "Permission denied"))
