"""Names of files that come from elsewhere: requests, workflows, servers. None may leave the folder that it is for."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

__all__ = ["check_name"]

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
