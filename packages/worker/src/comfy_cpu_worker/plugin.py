"""What the worker adds to comfy-cpu."""

from __future__ import annotations

from collections.abc import Iterable

import click

from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_worker.cli.serve import serve


@hookimpl
def comfy_cpu_commands() -> Iterable[click.Command]:
    """The command ``serve``."""
    return [serve]
