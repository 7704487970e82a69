"""Our distributions, and pip, for tests that install them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["MEMBERS", "ROOT", "pip"]

ROOT = Path(__file__).parents[2]
MEMBERS = sorted(path.parent for base in ("packages", "plugins") for path in (ROOT / base).glob("*/pyproject.toml"))


def pip(*arguments: str) -> None:
    """Run this Python's pip to its end."""
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
