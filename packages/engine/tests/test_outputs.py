"""What nodes show becomes outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_core.context import Folders
from comfy_cpu_core.results import Output
from comfy_cpu_engine.outputs import collect


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    folders = Folders(tmp_path / "input", tmp_path / "output", tmp_path / "temp")
    for folder in (folders.input, folders.output / "sub", folders.temp):
        folder.mkdir(parents=True)
    (folders.output / "a.png").write_bytes(b"a")
    (folders.output / "sub" / "b.webm").write_bytes(b"b")
    (folders.output / "c.unknown").write_bytes(b"c")
    (folders.temp / "d.flac").write_bytes(b"d")
    (folders.input / "e.png").write_bytes(b"e")
    (tmp_path / "secret.png").write_bytes(b"secret")
    return folders


def shown(ui: dict[str, Any], folders: Folders) -> list[Output]:
    return collect("5:1", "Show", ui, folders)


def test_files(folders: Folders) -> None:
    ui = {
        "images": [{"filename": "a.png", "subfolder": "", "type": "output"}],
        "gifs": [{"filename": "b.webm", "subfolder": "sub", "type": "output", "format": "video/webm"}],
        "audio": [{"filename": "d.flac", "type": "temp"}],
        "files": ({"filename": "c.unknown"},),
    }
    assert [(o.kind, o.filename, o.subfolder, o.folder, o.media_type, o.data) for o in shown(ui, folders)] == [
        ("image", "a.png", "", "output", "image/png", b"a"),
        ("video", "b.webm", "sub", "output", "video/webm", b"b"),
        ("audio", "d.flac", "", "temp", "audio/flac", b"d"),
        ("file", "c.unknown", "", "output", "application/octet-stream", b"c"),
    ]


def test_files_of_the_request_are_no_outputs(folders: Folders) -> None:
    assert shown({"images": [{"filename": "e.png", "type": "input"}]}, folders) == []


@pytest.mark.parametrize(
    "item",
    [
        {"filename": "../secret.png"},
        {"filename": "secret.png", "subfolder": ".."},
        {"filename": "/etc/hostname"},
        {"filename": "missing.png"},
        {"filename": "sub"},
        {"filename": "link.png"},
        {"filename": 5},
    ],
)
def test_files_that_are_not_in_the_folder(item: dict[str, Any], folders: Folders) -> None:
    (folders.output / "link.png").symlink_to(folders.output.parent / "secret.png")
    with pytest.raises(ValueError, match="the node shows a file"):
        shown({"images": [item]}, folders)


def test_text(folders: Folders) -> None:
    (one,) = shown({"text": ["für"]}, folders)
    assert (one.kind, one.filename, one.text) == ("text", "5-1_text.txt", "für")
    two = shown({"text": ("a", "b")}, folders)
    assert [(o.filename, o.text) for o in two] == [("5-1_text_1.txt", "a"), ("5-1_text_2.txt", "b")]


def test_anything_else_is_json(folders: Folders) -> None:
    ui = {"a_images": [], "animated": (True,), "boxes": [[1, 2], {"x": None}], "odd/key": [1], "text": [5]}
    outputs = shown(ui, folders)
    assert [(o.kind, o.filename, json.loads(o.data)) for o in outputs] == [
        ("json", "5-1_boxes.json", [[1, 2], {"x": None}]),
        ("json", "5-1_odd-key.json", [1]),
        ("json", "5-1_text.json", [5]),
    ]
