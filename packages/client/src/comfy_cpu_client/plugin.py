"""What the client adds to comfy-cpu."""

from __future__ import annotations

from collections.abc import Iterable

import click

from comfy_cpu_core.hookspecs import hookimpl


@hookimpl
def comfy_cpu_commands() -> Iterable[click.Command]:
    """The commands ``run`` and ``batch``."""
    from comfy_cpu_client.cli.batch import batch
    from comfy_cpu_client.cli.run import run

    return [run, batch]
