"""Reading settings from environment variables: an error names the variable."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path

from comfy_cpu_core.errors import UsageError

__all__ = ["Environment"]

_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})


class Environment:
    """Environment variables, each read as what it is to be. An empty one counts as not set."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str | None:
        """A variable as it is, without white space around it; None if it is not set."""
        return self._environ.get(name, "").strip() or None

    def path(self, name: str) -> Path | None:
        """A path; ``~`` is the home directory."""
        text = self.text(name)
        return Path(text).expanduser() if text else None

    def names(self, name: str) -> tuple[str, ...]:
        """Names separated by commas."""
        return tuple(part.strip() for part in self._environ.get(name, "").split(",") if part.strip())

    def flag(self, name: str, default: bool) -> bool:
        """``1``, ``true``, ``yes``, ``on`` or their opposites, in any case of letters.

        Raises:
            UsageError: it is something else.
        """
        text = self.text(name)
        if text is None:
            return default
        if text.lower() not in _YES | _NO:
            raise UsageError(f"{name} is {text!r}", remedy=f"set {name} to true or false")
        return text.lower() in _YES

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        """One of some words, in any case of letters.

        Raises:
            UsageError: it is something else.
        """
        text = self.text(name)
        if text is None:
            return default
        found = next((choice for choice in choices if choice.lower() == text.lower()), None)
        if found is None:
            raise UsageError(f"{name} is {text!r}", remedy=f"set {name} to one of: {', '.join(choices)}")
        return found

    def integer(self, name: str, default: int, *, least: int, most: int) -> int:
        """A whole number.

        Raises:
            UsageError: it is something else, or out of bounds.
        """
        text = self.text(name)
        if text is None:
            return default
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise UsageError(f"{name} is {text!r}", remedy=f"set {name} to a whole number from {least} to {most}")
        return value

    def seconds(self, name: str, default: float, *, least: float = 0.0) -> float:
        """A number of seconds.

        Raises:
            UsageError: it is something else, or out of bounds.
        """
        text = self.text(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= least):
            raise UsageError(f"{name} is {text!r}", remedy=f"set {name} to a number of seconds, {least:g} or more")
        return value
