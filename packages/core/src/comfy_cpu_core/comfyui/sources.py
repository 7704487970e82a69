"""Where our own distributions come from when they are installed into another Python.

Whoever installed us from an index gets the same version from there. Whoever works in a checkout gets what lies there.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["OURS", "requirements"]

#: What the names of our distributions begin with.
OURS = "comfy-cpu-"

_NODES = "comfy-cpu-nodes"


@dataclass(frozen=True)
class _Member:
    """A distribution of a checkout: where it lies, and its pyproject.toml's ``[project]``."""

    directory: Path
    project: Mapping[str, Any]

    def requires(self, extras: Iterable[str]) -> list[str]:
        optional = self.project.get("optional-dependencies", {})
        lines = [*self.project.get("dependencies", ()), *(line for extra in extras for line in optional.get(extra, ()))]
        return [canonicalize_name(Requirement(line).name) for line in lines]


def requirements(extras: Iterable[str]) -> list[str]:
    """What to tell pip so that it installs our nodes with these extras, in the version that runs here.

    From a checkout that is one directory for each distribution of ours: pip would look for those that the nodes require
    in an index.
    """
    wanted = tuple(dict.fromkeys(extras))
    suffix = f"[{','.join(wanted)}]" if wanted else ""
    members = _checkout()
    if _NODES not in members:
        return [f"{_NODES}{suffix}=={metadata.version('comfy-cpu-core')}"]
    found = [_NODES]
    for name in found:  # grows while it is walked over
        needed = members[name].requires(wanted if name == _NODES else ())
        found += [other for other in dict.fromkeys(needed) if other in members and other not in found]
    return [str(members[name].directory) + (suffix if name == _NODES else "") for name in found]


def _checkout() -> dict[str, _Member]:
    """The distributions that lie around the directory that core was installed from, by name; empty if it was not."""
    text = metadata.distribution("comfy-cpu-core").read_text("direct_url.json")
    origin = json.loads(text) if text else {}
    if "dir_info" not in origin:
        return {}
    core = Path(url2pathname(urlsplit(origin["url"]).path))
    members: dict[str, _Member] = {}
    for path in sorted(core.parent.parent.glob("*/*/pyproject.toml")):
        project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
        name = canonicalize_name(project.get("name", ""))
        if name.startswith(OURS):
            members[name] = _Member(path.parent, project)
    return members
