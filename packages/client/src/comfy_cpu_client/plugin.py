"""What the client adds to comfy-cpu."""

from __future__ import annotations

from collections.abc import Iterable

import click

from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.results import TargetType


@hookimpl
def comfy_cpu_commands() -> Iterable[click.Command]:
    """The commands ``run`` and ``batch``."""
    from comfy_cpu_client.cli.batch import batch
    from comfy_cpu_client.cli.run import run

    return [run, batch]


@hookimpl
def comfy_cpu_targets() -> Iterable[TargetType]:
    """The targets for a ComfyUI server."""
    from comfy_cpu_client.comfyui import SCHEMES, open_comfyui

    return [TargetType(scheme, open_comfyui, "a ComfyUI server: comfyui+http://HOST:8188") for scheme in SCHEMES]
