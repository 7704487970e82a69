"""The hooks that core itself implements."""

from __future__ import annotations

from collections.abc import Iterable

import click

from comfy_cpu_core.hookspecs import hookimpl


@hookimpl
def comfy_cpu_commands() -> Iterable[click.Command]:
    """The commands that need nothing but core."""
    from comfy_cpu_core.cli.plugins import plugins

    return [plugins]
