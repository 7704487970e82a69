"""From what an output node shows (``ui``) to `Output`s with their bytes, out of a run's folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from comfy_cpu_core.context import Folders
from comfy_cpu_core.results import Output, OutputFolder
from comfy_cpu_core.shown import collect_outputs

__all__ = ["collect"]


def collect(node_id: str, class_type: str, ui: Mapping[str, Sequence[Any]], folders: Folders) -> list[Output]:
    """Read what a node shows; see `collect_outputs`.

    Raises:
        ValueError: an item names a file that is not there, or is not below its folder.
    """

    def read_file(folder: OutputFolder, name: PurePosixPath) -> bytes:
        base = folders.output if folder == "output" else folders.temp
        path = base / name
        if not path.resolve().is_relative_to(base.resolve()) or not path.is_file():
            raise ValueError(f"the node shows a file {str(name)!r} that is not in its {folder} folder")
        return path.read_bytes()

    return collect_outputs(node_id, class_type, ui, read_file)
