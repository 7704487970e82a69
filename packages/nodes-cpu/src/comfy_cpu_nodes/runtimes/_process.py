"""The memory of this process: how much there is, and giving freed memory back."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

__all__ = ["resident_bytes", "return_freed_memory"]


def resident_bytes() -> int:
    """How much memory this process occupies now; 0 where the system does not say (only Linux does, this way)."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def return_freed_memory() -> None:
    """Have the C library give freed memory back to the system.

    Loading a model frees hundreds of megabytes in small pieces, which glibc would keep for itself: 170 MB for BEN2.
    Other C libraries have no such call.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
