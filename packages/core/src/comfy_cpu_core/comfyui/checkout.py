"""Finding a ComfyUI and the Python that runs it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from comfy_cpu_core.errors import InputError, UsageError

__all__ = ["ComfyUI", "find_comfyui", "find_python"]

#: Where the Python of a ComfyUI is as a rule, seen from the directory that has main.py: a virtual environment inside
#: or beside it, or the one that portable packages bring.
_PYTHONS = (
    "venv/bin/python",
    ".venv/bin/python",
    "../venv/bin/python",
    "../.venv/bin/python",
    "venv/Scripts/python.exe",
    ".venv/Scripts/python.exe",
    "../python_embeded/python.exe",
    "../python_embedded/python.exe",
)


@dataclass(frozen=True)
class ComfyUI:
    """A ComfyUI.

    Attributes:
        root: the directory that has main.py.
        version: as it calls itself; None if it does not say.
    """

    root: Path
    version: str | None

    @property
    def custom_nodes(self) -> Path:
        """Where node packs go."""
        return self.root / "custom_nodes"

    @property
    def models(self) -> Path:
        """Where models are, unless it is told otherwise."""
        return self.root / "models"


def find_comfyui(directory: Path) -> ComfyUI:
    """Look at a directory: a checkout, or the one above it that portable packages have.

    Raises:
        InputError: there is no ComfyUI, or nowhere to put node packs.
    """
    for root in (directory, directory / "ComfyUI"):
        if (root / "main.py").is_file() and (root / "folder_paths.py").is_file():
            comfyui = ComfyUI(root.absolute(), _version(root))
            if not comfyui.custom_nodes.is_dir():
                raise InputError(f"{root} has no directory custom_nodes", remedy="start that ComfyUI once")
            return comfyui
    raise InputError(
        f"{directory} is no ComfyUI: it has no main.py and folder_paths.py",
        remedy="name the directory that has main.py and custom_nodes",
    )


def find_python(comfyui: ComfyUI) -> Path:
    """The Python that lies where a ComfyUI's usually does.

    Raises:
        UsageError: there is none in any of those places.
    """
    for place in _PYTHONS:
        python = comfyui.root / place
        if python.is_file():
            # Not resolved: a virtual environment's python is a link, and what it belongs to hangs on its own path.
            return python
    raise UsageError(
        f"cannot tell which Python runs the ComfyUI in {comfyui.root}: it has no venv, .venv or python_embeded",
        remedy="name it: --python PATH",
    )


def _version(root: Path) -> str | None:
    try:
        text = (root / "comfyui_version.py").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    return found[1] if found else None
