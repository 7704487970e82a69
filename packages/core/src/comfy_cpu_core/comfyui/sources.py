"""Where our own distributions come from when they are installed into another Python.

Whoever installed us from an index gets the same version from there. Whoever works in a checkout gets what lies there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["NODES", "OURS", "requirements"]

#: The distribution that brings the nodes.
NODES = "comfy-cpu-nodes"

#: What the names of our distributions begin with.
OURS = "comfy-cpu-"


def requirements(extras: Iterable[str]) -> list[str]:
    """What to tell pip so that it installs our nodes with these extras, in the version that runs here."""
    wanted = tuple(dict.fromkeys(extras))
    suffix = f"[{','.join(wanted)}]" if wanted else ""
    if _directory("comfy-cpu-core") is None:
        return [f"{NODES}{suffix}=={metadata.version('comfy-cpu-core')}"]
    found: dict[str, str] = {}
    _add(NODES, wanted, found)
    return [f"{where}{suffix}" if name == NODES else where for name, where in found.items()]


def _add(name: str, extras: tuple[str, ...], found: dict[str, str]) -> None:
    """Add a distribution, and those of ours that it requires, each from its directory."""
    directory = _directory(name)
    found[name] = name if directory is None else str(directory)
    for requirement in _required(name, extras):
        other = canonicalize_name(requirement.name)
        if other.startswith(OURS) and other not in found:
            _add(other, tuple(requirement.extras), found)


def _required(name: str, extras: tuple[str, ...]) -> list[Requirement]:
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []
    every = [Requirement(line) for line in lines]
    return [r for r in every if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in extras or ("",))]


def _directory(name: str) -> Path | None:
    """The directory that a distribution was installed from, or None if it was not (or is not installed)."""
    try:
        text = metadata.distribution(name).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    origin = json.loads(text) if text else {}
    if "dir_info" not in origin:
        return None
    directory = Path(url2pathname(urlsplit(origin["url"]).path))
    return directory if directory.is_dir() else None
