"""A directory that looks like a ComfyUI and starts the fake one."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["make_comfyui"]

_MAIN = """
import sys
sys.path.insert(0, {support!r})
from fake_comfyui import main
main()
"""


def make_comfyui(folder: Path) -> Path:
    """Make the directory; its Python is this one."""
    for name in ("custom_nodes", "input", "models", "venv/bin"):
        (folder / name).mkdir(parents=True)
    (folder / "main.py").write_text(_MAIN.format(support=str(Path(__file__).parent)))
    (folder / "folder_paths.py").touch()
    (folder / "venv" / "bin" / "python").symlink_to(sys.executable)
    return folder
