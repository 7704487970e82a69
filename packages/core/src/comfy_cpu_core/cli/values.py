"""Parsing ``NODE.INPUT=…``, as several commands take it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from comfy_cpu_core.errors import UsageError

__all__ = ["parse_input_files", "parse_options", "parse_set"]


def parse_set(arguments: Sequence[str]) -> dict[str, Any]:
    """Parse the values of ``--set``: ``4.mask_blur=2`` → ``{"4.mask_blur": 2}``.

    What comes behind the equals sign is read as JSON; what is no JSON is a text, so that ``4.provider=CPU`` needs no
    quotes. A text that looks like JSON does: ``4.note='"2"'``.

    Raises:
        UsageError: an argument is not ``NODE.INPUT=VALUE``, or an input is set twice.
    """
    return {key: _json_or_text(text) for key, text in _split(arguments, "--set", "JSON", "4.sensitivity=0.8")}


def parse_input_files(arguments: Sequence[str]) -> dict[str, Path]:
    """Parse the values of ``--input``: ``1.image=photo.jpg`` → ``{"1.image": Path("photo.jpg")}``.

    ``~`` stands for the home directory: the shell leaves it alone in the middle of a word. Whether the files are
    there is not looked at.

    Raises:
        UsageError: an argument is not ``NODE.INPUT=FILE``, or an input is given twice.
    """
    files = {}
    for key, text in _split(arguments, "--input", "FILE", "1.image=photo.jpg"):
        if not text:
            raise UsageError(f"--input {key}= names no file", remedy="write NODE.INPUT=FILE, like 1.image=photo.jpg")
        try:
            files[key] = Path(text).expanduser()
        except RuntimeError:  # ~somebody who does not exist
            files[key] = Path(text)
    return files


def parse_options(arguments: Sequence[str]) -> dict[str, Any]:
    """Parse the values of ``--option``: ``sync=false`` → ``{"sync": False}``; see `parse_set` for the values.

    Raises:
        UsageError: an argument is not ``NAME=VALUE``, or an option is given twice.
    """
    options: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        name = name.strip().replace("-", "_")
        if not (equals and name.isidentifier()):
            # What is not repeated here may be a secret.
            raise UsageError("an --option is not NAME=VALUE", remedy="write it like --option price_per_second=0.00012")
        if name in options:
            raise UsageError(f"--option gives {name} twice", remedy="give each option once")
        options[name] = _json_or_text(text)
    return options


def _split(arguments: Sequence[str], option: str, what: str, example: str) -> Iterator[tuple[str, str]]:
    seen = set()
    for argument in arguments:
        key, equals, text = argument.partition("=")
        key = key.strip()
        node_id, dot, name = key.partition(".")
        if not (equals and node_id and dot and name):
            raise UsageError(
                f"{option} {argument!r} is not NODE.INPUT={what}", remedy=f"write it like {option} {example}"
            )
        if key in seen:
            raise UsageError(f"{option} gives {key} twice", remedy="give each input once")
        seen.add(key)
        yield key, text


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
