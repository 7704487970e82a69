"""Reading single values of a job's document: an error names the field's path, and repeats no text that may be secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_cpu_worker.errors import JobRejected

__all__ = [
    "is_number",
    "is_url",
    "read_flag",
    "read_milliseconds",
    "read_object",
    "read_optional_object",
    "read_text",
    "read_whole",
    "read_word",
    "shown",
]


def read_object(value: Any, path: str) -> Mapping[str, Any]:
    """An object."""
    if not isinstance(value, Mapping):
        raise JobRejected(f"{path} is {_kind(value)}, not an object")
    return value


def read_optional_object(value: Any, path: str) -> Mapping[str, Any]:
    """An object; an empty one for nothing."""
    return {} if value is None else read_object(value, path)


def read_text(value: Any, path: str) -> str | None:
    """Text, or None for nothing; the value is not repeated in the error: it may be a secret."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise JobRejected(f"{path} is {_kind(value)}, not text")
    return value


def read_flag(value: Any, path: str, *, default: bool) -> bool:
    """True or false; `default` for nothing."""
    if value is None:
        return default
    if not isinstance(value, bool):
        raise JobRejected(f"{path} is {shown(value)}, neither true nor false")
    return value


def read_word(value: Any, path: str, words: tuple[str, ...]) -> Any:
    """One of some words, or None for nothing."""
    if value is not None and value not in words:
        raise JobRejected(f"{path} is {shown(value)}, not one of {', '.join(words)}")
    return value


def read_whole(value: Any, path: str, least: int, most: int) -> int | None:
    """A whole number, or None for nothing."""
    if value is None:
        return None
    if not is_number(value) or value != int(value) or not least <= value <= most:
        raise JobRejected(f"{path} is {shown(value)}, not a whole number from {least} to {most}")
    return int(value)


def read_milliseconds(value: Any, path: str) -> float | None:
    """A number of milliseconds, as seconds."""
    if value is None:
        return None
    if not is_number(value) or not value > 0:
        raise JobRejected(f"{path} is {shown(value)}, not a number of milliseconds above 0")
    return float(value) / 1000


def is_number(value: Any) -> bool:
    """Whether a value is a number that can be reckoned with: finite, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e18 < value < 1e18


def is_url(text: str) -> bool:
    """Whether a text stands for a file on the web."""
    return text[:8].lower().startswith(("http://", "https://"))


def shown(value: Any) -> str:
    """A value as a message shows it, cut short."""
    return f"{value!r:.80}" if isinstance(value, str | int | float | None) else _kind(value)


def _kind(value: Any) -> str:
    names = {str: "text", list: "a list", dict: "an object", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), "another thing")
