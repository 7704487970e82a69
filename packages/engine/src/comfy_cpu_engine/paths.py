"""Names of files: which are safe, and where they lead.

Names come from requests and workflows, so none may leave the folder that it is meant for.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath

from comfy_cpu_core.context import Folders

__all__ = ["ANNOTATIONS", "check_name", "input_files", "locate", "output_prefix"]

#: ComfyUI's way to say in a file's name which folder it lies in: ``photo.png [temp]``.
ANNOTATIONS = ("input", "output", "temp")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Names that Windows reserves for devices, with any suffix. Outputs and inputs travel between systems.
_DEVICE = re.compile(r"(?:CON|PRN|AUX|NUL|COM[0-9]|LPT[0-9])(?:\..*)?", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:")


def check_name(name: object) -> PurePosixPath:
    """A file's name, subfolders allowed (``faces/photo.png``), as a path that stays below its folder.

    Raises:
        ValueError: it does not; the error says why, and is the end of a sentence that begins with the name.
    """
    if not isinstance(name, str) or not name:
        raise ValueError("is not a file name")
    if _CONTROL.search(name):
        raise ValueError("has a control character in it")
    if "\\" in name:
        raise ValueError("has a backslash in it; folders are separated by /")
    if name.startswith("/") or _DRIVE.match(name):
        raise ValueError("is an absolute path; only names below the input folder are allowed")
    parts = name.split("/")
    if ".." in parts:
        raise ValueError("leads out of its folder")
    if any(part in {"", "."} for part in parts):
        raise ValueError("is not a file name")
    if any(_DEVICE.fullmatch(part) for part in parts):
        raise ValueError("is a name that Windows reserves for a device")
    if any(len(part.encode(errors="replace")) > 255 for part in parts) or len(name) > 1024:
        raise ValueError("is too long")
    return PurePosixPath(name)


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
