"""How the command line speaks: errors and progress on stderr, answers on stdout.

rich is imported only when something is drawn, so that ``--help`` and ``--json`` stay quick.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

__all__ = ["note", "print_error", "print_json", "print_table", "print_warning", "styled"]


def _line(text: str) -> str:
    return " ".join(text.split())


def styled(text: str, **style: Any) -> str:
    """A text with click's colours, but where ``NO_COLOR`` or a dumb terminal wants none (click looks for neither)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else click.style(text, **style)


def print_error(message: str, remedy: str | None = None) -> None:
    """One line that says what is wrong, and one that says what to do."""
    click.echo(f"{styled('error:', fg='red', bold=True)} {_line(message)}", err=True)
    if remedy:
        click.echo(f"{styled('hint:', fg='cyan')} {_line(remedy)}", err=True)


def print_warning(message: str) -> None:
    """One line that the user should not miss."""
    click.echo(f"{styled('warning:', fg='yellow', bold=True)} {_line(message)}", err=True)


def note(message: str) -> None:
    """A line about what is going on."""
    click.echo(message, err=True)


def print_json(value: Any) -> None:
    """The answer for a program, on stdout."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "nothing") -> None:
    """The answer for a person, on stdout: a table on a terminal, lines with tabs elsewhere."""
    lines = [[str(cell) for cell in row] for row in rows]
    if not lines:
        click.echo(empty)
        return
    if not sys.stdout.isatty():
        click.echo("\t".join(headers))
        for line in lines:
            click.echo("\t".join(line))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    for line in lines:
        table.add_row(*[Text(cell) for cell in line])
    Console().print(table)
