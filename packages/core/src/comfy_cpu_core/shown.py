"""From what an output node shows (ComfyUI's ``ui``) to `Output`s, whoever ran the node. Reads no file itself."""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from comfy_cpu_core.names import check_name
from comfy_cpu_core.results import Output, OutputFolder

__all__ = ["ReadFile", "collect_outputs"]

#: Gives the bytes of a file below one of ComfyUI's folders; the path stays below it. Raises ValueError if there is none.
ReadFile = Callable[[OutputFolder, PurePosixPath], bytes]

_KINDS = {"image": "image", "audio": "audio", "video": "video", "text": "text"}
# Says of other items that they move; not an output of its own.
_NO_OUTPUT = frozenset({"animated"})


def collect_outputs(
    node_id: str, class_type: str, ui: Mapping[str, Sequence[Any]], read_file: ReadFile
) -> list[Output]:
    """Read what a node shows.

    Items that name a file (``{"filename", "subfolder", "type"}``) become that file, under whichever key they stand;
    files in the input folder are left out. Text under ``text`` becomes one output per item, anything else one JSON
    output per key.

    Raises:
        ValueError: an item names a file that is not below its folder; and what `read_file` raises.
    """
    outputs: list[Output] = []
    for key, items in ui.items():
        if key in _NO_OUTPUT or not items:
            continue
        if all(isinstance(item, Mapping) and "filename" in item for item in items):
            outputs.extend(_files(node_id, class_type, items, read_file))
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


def _files(node_id: str, class_type: str, items: Sequence[Mapping[str, Any]], read_file: ReadFile) -> Iterator[Output]:
    for item in items:
        folder = item.get("type", "output")
        if folder not in {"output", "temp"}:
            continue
        subfolder = str(item.get("subfolder") or "").strip("/")
        name = f"{subfolder}/{item['filename']}" if subfolder else item["filename"]
        try:
            path = check_name(name)
        except ValueError as error:
            raise ValueError(f"the node shows a file {name!r} that {error}") from None
        media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        yield Output(
            node_id,
            class_type,
            _KINDS.get(media_type.partition("/")[0], "file"),  # type: ignore[arg-type]
            path.name,
            media_type,
            read_file(folder, path),
            subfolder=subfolder,
            folder=folder,
        )


def _name(node_id: str, what: str, suffix: str) -> str:
    """A file name for what has none: ``9_text.txt``."""
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', f'{node_id}_{what}')}.{suffix}"
