"""Names of files: which are safe, and where they lead.

Names come from requests and workflows, so none may leave the folder that it is meant for.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath

from comfy_cpu_core.context import Folders
from comfy_cpu_core.names import check_name

__all__ = ["ANNOTATIONS", "check_name", "input_files", "locate", "output_prefix"]

#: ComfyUI's way to say in a file's name which folder it lies in: ``photo.png [temp]``.
ANNOTATIONS = ("input", "output", "temp")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"[A-Za-z]:")


def locate(name: object, folders: Folders) -> Path:
    """Where a file is that a workflow names: below the input folder, or below the one of its annotation.

    Raises:
        ValueError: the name is not safe (see `check_name`).
    """
    base = folders.input
    if isinstance(name, str):
        for annotation in ANNOTATIONS:
            if name.endswith(f"[{annotation}]"):
                base = getattr(folders, annotation)
                name = name[: -len(annotation) - 2].rstrip()
                break
    return base / check_name(name)


def input_files(folders: Folders) -> list[str]:
    """The files below the input folder, as a workflow names them, sorted."""
    found = (path for path in folders.input.rglob("*") if path.is_file())
    return sorted(path.relative_to(folders.input).as_posix() for path in found)


def output_prefix(prefix: str) -> PurePosixPath:
    """What SaveImage's filename_prefix stands for below the output folder: a subfolder and the start of a name.

    Raises:
        ValueError: it leads out of the output folder; the error ends a sentence that begins with the prefix.
    """
    if _CONTROL.search(prefix):
        raise ValueError("has a control character in it")
    path = PurePosixPath(posixpath.normpath(prefix.replace("\\", "/")))
    if path.is_absolute() or ".." in path.parts or _DRIVE.match(prefix):
        raise ValueError("leads out of the output folder")
    if any(len(part.encode(errors="replace")) > 200 for part in path.parts):
        raise ValueError("is too long")
    return path
