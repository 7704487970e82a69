from __future__ import annotations

from pathlib import Path

import pytest

from comfy_cpu_nodes.runtimes.llama.prefix import PrefixFile

STATE = bytes(range(256)) * 40


def file(folder: Path, *, fingerprint: str = "ab", runtime: str = "llama.cpp 1", tokens: tuple[int, ...] = (1, 2, 3)):
    return PrefixFile.of(folder, "Model 8B-safety", fingerprint=fingerprint, runtime=runtime, tokens=tokens)


def test_a_state_comes_back(tmp_path: Path) -> None:
    kept = file(tmp_path / "new" / "folder")
    assert kept.load() is None
    assert kept.store(STATE)
    assert kept.load() == STATE
    assert kept.path.name.startswith("Model_8B-safety-")
    assert list(kept.path.parent.iterdir()) == [kept.path], "nothing else is left behind"


@pytest.mark.parametrize("change", [{"fingerprint": "cd"}, {"runtime": "llama.cpp 2"}, {"tokens": (1, 2)}])
def test_a_state_of_another_model_text_or_library_is_not_used(tmp_path: Path, change: dict[str, object]) -> None:
    mine, other = file(tmp_path), file(tmp_path, **change)  # type: ignore[arg-type]
    assert mine.store(STATE)
    assert other.load() is None, "it has another name"
    mine.path.rename(other.path)
    assert other.load() is None, "and if somebody renames it, another key"


@pytest.mark.parametrize("damage", [0, 10, 24, 40, 60, 90, 1000, -1])
def test_a_damaged_file_is_not_used(tmp_path: Path, damage: int) -> None:
    kept = file(tmp_path)
    kept.store(STATE)
    data = bytearray(kept.path.read_bytes())
    data[damage] ^= 1
    kept.path.write_bytes(data)
    assert kept.load() is None


@pytest.mark.parametrize("length", [0, 1, 24, 56, 88, 89, 5000])
def test_a_truncated_file_is_not_used(tmp_path: Path, length: int) -> None:
    kept = file(tmp_path)
    kept.store(STATE)
    kept.path.write_bytes(kept.path.read_bytes()[:length])
    assert kept.load() is None


def test_a_longer_file_is_not_used(tmp_path: Path) -> None:
    kept = file(tmp_path)
    kept.store(STATE)
    with kept.path.open("ab") as stream:
        stream.write(b"more")
    assert kept.load() is None


def test_a_folder_that_cannot_be_written_to_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    kept = file(tmp_path / "file" / "folder")
    assert not kept.store(STATE)
    assert kept.load() is None


def test_a_folder_in_the_place_of_the_file_is_no_error(tmp_path: Path) -> None:
    kept = file(tmp_path)
    kept.path.mkdir()
    assert kept.load() is None
    assert not kept.store(STATE)
    assert list(tmp_path.iterdir()) == [kept.path]
