"""What the pages in docs/ are generated with (by cog: ``hatch run tests:docs``)."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from comfy_cpu_core import hookspecs
from comfy_cpu_core.cli import build_cli

ROOT = Path(__file__).parent.parent


def cli_pages() -> str:
    """The help of every command, as a reader of a 100-column terminal sees it."""
    parts = []
    for path, command in _commands("comfy-cpu", build_cli()):
        context = click.Context(command, info_name=path, terminal_width=100, max_content_width=100)
        parts.append(f"\n## `{path}`\n\n```text\n{command.get_help(context).rstrip()}\n```\n")
    return "".join(parts)


def _commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from _commands(f"{path} {name}", child)


def hook_signature(name: str) -> str:
    """A hook's signature exactly as hookspecs.py has it."""
    signature = inspect.signature(getattr(hookspecs, name))
    return f"{name}{signature}".replace("'", "")


def hook_names() -> list[str]:
    """Every hook, in the order of hookspecs.py."""
    return [name for name in vars(hookspecs) if name.startswith("comfy_cpu_")]


def hook_pages() -> str:
    """Signature and docstring of every hook."""
    parts = []
    for name in hook_names():
        text = inspect.getdoc(getattr(hookspecs, name)) or ""
        body, _, example = text.partition("Example::")
        parts.append(f"\n## {name}\n\n`{hook_signature(name)}`\n\n{_markdown(body).strip()}\n")
        if example:
            parts.append(f"\n```python\n{textwrap.dedent(example).strip()}\n```\n")
    return "".join(parts)


def _markdown(text: str) -> str:
    return text.replace("``", "`")


def quote(path: str, language: str = "python") -> str:
    """A file of the repository, as a code block."""
    return f"\n```{language}\n{(ROOT / path).read_text().rstrip()}\n```\n"
