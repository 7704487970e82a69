"""From what an output node shows (``ui``) to `Output`s with their bytes."""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from comfy_cpu_core.context import Folders
from comfy_cpu_core.results import Output
from comfy_cpu_engine.paths import check_name

__all__ = ["collect"]

_KINDS = {"image": "image", "audio": "audio", "video": "video", "text": "text"}
# Says of other items that they move; not an output of its own.
_NO_OUTPUT = frozenset({"animated"})


def collect(node_id: str, class_type: str, ui: Mapping[str, Sequence[Any]], folders: Folders) -> list[Output]:
    """Read what a node shows.

    Items that name a file (``{"filename", "subfolder", "type"}``) become that file, under whichever key they stand;
    files in the input folder are left out. Text under ``text`` becomes one output per item, anything else one JSON
    output per key.

    Raises:
        ValueError: an item names a file that is not there, or is not below its folder.
    """
    outputs: list[Output] = []
    for key, items in ui.items():
        if key in _NO_OUTPUT or not items:
            continue
        if all(isinstance(item, Mapping) and "filename" in item for item in items):
            outputs.extend(_files(node_id, class_type, items, folders))
        elif key == "text" and all(isinstance(item, str) for item in items):
            names = (
                [_name(node_id, "text", "txt")]
                if len(items) == 1
                else [_name(node_id, f"text_{index}", "txt") for index in range(1, len(items) + 1)]
            )
            outputs.extend(
                Output(node_id, class_type, "text", name, "text/plain", text.encode(errors="replace"))
                for name, text in zip(names, items, strict=True)
            )
        else:
            data = json.dumps(list(items), ensure_ascii=False, default=str).encode(errors="replace")
            outputs.append(Output(node_id, class_type, "json", _name(node_id, key, "json"), "application/json", data))
    return outputs


def _files(node_id: str, class_type: str, items: Sequence[Mapping[str, Any]], folders: Folders) -> Iterator[Output]:
    for item in items:
        kind = item.get("type", "output")
        if kind not in {"output", "temp"}:
            continue
        subfolder = str(item.get("subfolder") or "").strip("/")
        name = f"{subfolder}/{item['filename']}" if subfolder else item["filename"]
        try:
            relative = check_name(name)
        except ValueError as error:
            raise ValueError(f"the node shows a file {name!r} that {error}") from None
        base = folders.output if kind == "output" else folders.temp
        path = base / relative
        if not path.resolve().is_relative_to(base.resolve()) or not path.is_file():
            raise ValueError(f"the node shows a file {name!r} that is not in its {kind} folder")
        media_type = mimetypes.guess_type(relative.name)[0] or "application/octet-stream"
        yield Output(
            node_id,
            class_type,
            _KINDS.get(media_type.partition("/")[0], "file"),  # type: ignore[arg-type]
            relative.name,
            media_type,
            path.read_bytes(),
            subfolder=subfolder,
            folder=kind,
        )


def _name(node_id: str, what: str, suffix: str) -> str:
    """A file name for what has none: ``9_text.txt``."""
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', f'{node_id}_{what}')}.{suffix}"
