"""What the client adds to comfy-cpu."""

from __future__ import annotations

from collections.abc import Iterable

import click

from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.results import TargetType


@hookimpl
def comfy_cpu_commands() -> Iterable[click.Command]:
    """The commands ``run``, ``batch`` and ``health``."""
    from comfy_cpu_client.cli.batch import batch
    from comfy_cpu_client.cli.health import health
    from comfy_cpu_client.cli.run import run

    return [run, batch, health]


@hookimpl
def comfy_cpu_targets() -> Iterable[TargetType]:
    """The targets that are other processes: a ComfyUI server, our worker, RunPod."""
    from comfy_cpu_client import comfyui, runpod

    summaries = {
        "runpod": "an endpoint of RunPod: runpod://ENDPOINT_ID",
        "worker+http": "a `comfy-cpu serve`: worker+http://HOST:8000",
        "worker+https": "a `comfy-cpu serve` behind TLS: worker+https://HOST",
    }
    return [
        *(
            TargetType(scheme, comfyui.open_comfyui, "a ComfyUI server: comfyui+http://HOST:8188")
            for scheme in comfyui.SCHEMES
        ),
        *(TargetType(scheme, runpod.open_queue, summaries[scheme]) for scheme in runpod.SCHEMES),
    ]
