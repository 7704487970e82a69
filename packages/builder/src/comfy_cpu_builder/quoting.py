"""How values are written into a Dockerfile and a shell script, so that they mean nothing there but themselves."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable

from comfy_cpu_core.errors import BuildError

__all__ = ["argv", "quoted", "shell"]


def argv(command: Iterable[str], more: Iterable[str] = ()) -> str:
    """An argument list in Dockerfile's exec form: JSON, which no shell sees and in which no variable is replaced."""
    text = json.dumps([str(argument) for argument in (*command, *more)])
    # BuildKit looks for here-documents (<<) before it looks for JSON.
    return text.replace("<", "\\u003c")


def quoted(value: str) -> str:
    r"""A value of ENV or LABEL: in double quotes, with what Docker would replace there escaped.

    Raises:
        BuildError: it has characters that cannot be printed: a line break would begin another instruction.
    """
    if not value.isprintable():
        raise BuildError(f"{value!r} cannot stand in a Dockerfile: it has characters that cannot be printed")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'


def shell(value: str) -> str:
    """A word of a shell script."""
    if not value.isprintable():
        raise BuildError(f"{value!r} cannot stand in a start script: it has characters that cannot be printed")
    return shlex.quote(value)
