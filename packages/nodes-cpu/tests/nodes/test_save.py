from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_cpu_core.context import RunContext
from comfy_cpu_core.errors import NodeError
from comfy_cpu_nodes.nodes import save as module
from comfy_cpu_nodes.nodes.save import SaveImageNoMetadata

STAMP = "20261123171500"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still: every save falls into the same second."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2026, 11, 23, 17, 15, 0)

    monkeypatch.setattr(module, "datetime", Clock)


@pytest.fixture
def output(run: RunContext) -> Path:
    return run.folders.output


def noise(batch: int = 1, channels: int = 3) -> np.ndarray:
    levels = np.random.default_rng(batch).integers(0, 256, (batch, 6, 9, channels))
    return levels.astype(np.float32) / np.float32(255)


def save(images: np.ndarray, prefix: str = "Untitled image") -> list[dict[str, str]]:
    answer = SaveImageNoMetadata().save_images(images, prefix)
    assert list(answer) == ["ui"]
    assert list(answer["ui"]) == ["images"]
    return answer["ui"]["images"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_pixels_are_kept_and_nothing_else_is_written(channels: int, mode: str, output: Path) -> None:
    images = noise(channels=channels)
    (saved,) = save(images)
    assert saved == {"filename": f"Untitled image_{STAMP}.png", "subfolder": "", "type": "output"}
    with Image.open(output / saved["filename"]) as file:
        assert (file.format, file.mode, file.info) == ("PNG", mode, {})
        pixels = np.asarray(file).reshape(6, 9, channels)
    assert np.array_equal(pixels.astype(np.float32) / np.float32(255), images[0])


def test_a_batch_is_numbered(output: Path) -> None:
    names = [saved["filename"] for saved in save(noise(3), "cut")]
    assert names == [f"cut_{STAMP}.png", f"cut_{STAMP}_1.png", f"cut_{STAMP}_2.png"]
    assert sorted(path.name for path in output.iterdir()) == sorted(names)


def test_two_saves_in_one_second_overwrite_nothing(output: Path) -> None:
    first = save(noise(2), "cut")
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    second = save(noise(5)[3:], "cut")
    assert [saved["filename"] for saved in second] == [f"cut_{STAMP}_2.png", f"cut_{STAMP}_3.png"]
    assert {name: (output / name).read_bytes() for name in before} == before
    assert len(first) == 2


def test_many_at_once_overwrite_nothing(output: Path) -> None:
    images = noise(4)
    contexts = [copy_context() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda context: context.run(save, images, "cut"), contexts))
    names = [saved["filename"] for answer in answers for saved in answer]
    assert len(set(names)) == 32
    assert {path.name for path in output.iterdir()} == set(names)


@pytest.mark.parametrize(
    ("prefix", "subfolder", "name"),
    [
        ("a/b", "a", "b"),
        ("a/b/c", "a/b", "c"),
        ("a\\b", "a", "b"),
        ("./a//b", "a", "b"),
        ("a/../b", "", "b"),
        ("a/", "", "a"),
        ("", "", ""),
        (".", "", ""),
        ("ünï 写真", "", "ünï 写真"),
        ("..a/b..", "..a", "b.."),
        ("%width%x%height%", "", "9x6"),
        ("%year%-%month%-%day%/%hour%%minute%%second%", "2026-11-23", "171500"),
        ("%date:yyyy% 100%", "", "%date:yyyy% 100%"),  # ComfyUI's front end fills that in, no node does
    ],
)
def test_prefixes(prefix: str, subfolder: str, name: str, output: Path) -> None:
    (saved,) = save(noise(), prefix)
    assert saved == {"filename": f"{name}_{STAMP}.png", "subfolder": subfolder, "type": "output"}
    assert (output / subfolder / saved["filename"]).is_file()


@pytest.mark.parametrize(
    "prefix", ["../a", "..", "a/../../b", "/etc/a", "//a/b", "..\\a", "\\a\\b", "a/b/../../../c/d", "/"]
)
def test_prefixes_that_lead_out(prefix: str, output: Path, tmp_path: Path) -> None:
    with pytest.raises(NodeError, match=re.escape(repr(prefix))) as caught:
        save(noise(), prefix)
    assert caught.value.remedy
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_link_that_leads_out(output: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    output.mkdir()
    (output / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NodeError, match="leads out"):
        save(noise(), "link/a")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_link_to_a_file_is_not_followed(output: Path, tmp_path: Path) -> None:
    output.mkdir()
    (output / f"a_{STAMP}.png").symlink_to(tmp_path / "elsewhere.png")
    (saved,) = save(noise(), "a")
    assert saved["filename"] == f"a_{STAMP}_1.png"
    assert not (tmp_path / "elsewhere.png").exists()


@pytest.mark.parametrize("prefix", ["x" * 300, "a\0b", "a\0b/c"])
def test_names_that_no_file_system_takes(prefix: str, output: Path) -> None:
    with pytest.raises(NodeError):
        save(noise(), prefix)


def test_a_file_in_the_way_of_a_folder(output: Path) -> None:
    output.mkdir()
    (output / "a").touch()
    with pytest.raises(NodeError, match="'a'"):
        save(noise(), "a/b")


def test_a_full_disk_leaves_nothing_behind(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            self.file.write(data[:10])
            raise OSError(28, "No space left on device")

    original = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode="r": Full(original(path, mode)))
    with pytest.raises(NodeError, match="No space left"):
        save(noise(), "a")
    assert list(output.iterdir()) == []


def test_nothing_to_save(output: Path) -> None:
    with pytest.raises(NodeError, match="images: the batch is empty"):
        save(np.zeros((0, 4, 4, 3), np.float32))
    assert not output.exists()
