"""What nodes show becomes outputs; where a file's bytes come from is the caller's business."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import pytest

from comfy_cpu_core.results import OutputFolder
from comfy_cpu_core.shown import collect_outputs


def show(ui: dict[str, Any]) -> list[tuple[str, str, str, str, bytes]]:
    def read_file(folder: OutputFolder, path: PurePosixPath) -> bytes:
        return f"{folder}:{path}".encode()

    return [(o.kind, o.folder, o.subfolder, o.filename, o.data) for o in collect_outputs("3:1", "Show", ui, read_file)]


def test_a_file_is_read_from_the_folder_that_it_names() -> None:
    assert show({"images": [{"filename": "a.png", "subfolder": "/x/y/", "type": "temp"}]}) == [
        ("image", "temp", "x/y", "a.png", b"temp:x/y/a.png")
    ]
    assert show({"gifs": [{"filename": "b.webm"}]}) == [("video", "output", "", "b.webm", b"output:b.webm")]
    assert show({"images": [{"filename": "c.png", "type": "input"}], "animated": [True]}) == []


def test_text_and_anything_else() -> None:
    assert show({"text": ["é"]}) == [("text", "output", "", "3-1_text.txt", "é".encode())]
    assert [name for _, _, _, name, _ in show({"text": ["a", "b"]})] == ["3-1_text_1.txt", "3-1_text_2.txt"]
    ((kind, _, _, name, data),) = show({"boxes": [[1, 2], {"a": None}]})
    assert (kind, name, json.loads(data)) == ("json", "3-1_boxes.json", [[1, 2], {"a": None}])


@pytest.mark.parametrize("name", ["../a.png", "a\0.png", "/a.png", "", None])
def test_a_file_outside_its_folder_is_not_read(name: object) -> None:
    with pytest.raises(ValueError, match="the node shows a file"):
        show({"images": [{"filename": name, "type": "output"}]})
