"""Reading the small files of /proc and /sys, where anything may be missing, unreadable or malformed."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["parse_cpu_list", "parse_size", "read_text"]

#: More than any kernel is built for; a list that names a higher CPU is malformed.
_HIGHEST_CPU = 65_535

_NUMBER = re.compile(r"[0-9]{1,20}")
_SPAN = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")


def read_text(path: Path) -> str | None:
    """A file's text without surrounding white space, or None if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError):  # ValueError: a NUL byte in a path that came out of another malformed file
        return None


def parse_size(text: str | None) -> int | None:
    """A positive whole number, or None for anything else (``max``, ``-1``, ``0``, nonsense)."""
    if text is None or not _NUMBER.fullmatch(text):
        return None
    return int(text) or None


def parse_cpu_list(text: str | None) -> frozenset[int] | None:
    """The kernel's way to write a set of CPUs: ``0-3,8`` → {0, 1, 2, 3, 8}. None if empty or malformed."""
    if not text:
        return None
    cpus: set[int] = set()
    for part in text.split(","):
        span = _SPAN.fullmatch(part.strip())
        if span is None:
            return None
        first = int(span[1])
        last = int(span[2]) if span[2] else first
        if not first <= last <= _HIGHEST_CPU:
            return None
        cpus.update(range(first, last + 1))
    return frozenset(cpus)
