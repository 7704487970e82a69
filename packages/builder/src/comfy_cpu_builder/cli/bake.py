"""``comfy-cpu bake``."""

from __future__ import annotations

from pathlib import Path

import click

from comfy_cpu_builder.cli.options import find_links_option, open_engine_or_none, plan_of, spec_argument
from comfy_cpu_core.cli.options import models_option

__all__ = ["bake"]


@click.command()
@spec_argument
@models_option
@find_links_option
def bake(*, spec: tuple[Path, ...], target: str | None, models: Path, find_links: tuple[str, ...]) -> None:
    """Prepare the models of an image, so that its containers start faster.

    Each step is compared with the unbaked model, and left out where it differs. `comfy-cpu build` takes what was baked
    where the spec says [bake] enabled = true.
    """
    from comfy_cpu_builder.bake import BakeCache, bake_all, plan_bakes
    from comfy_cpu_builder.locking import fetch_all
    from comfy_cpu_builder.pipeline import lock_for, open_places
    from comfy_cpu_core.cli.progress import byte_size, file_progress

    wanted, planned, plugins = plan_of(spec, target)
    places = open_places(models, plugins, find_links)
    with file_progress() as telling:
        locked = lock_for(wanted, planned, places, open_engine_or_none(None, plugins), telling)
        fetch_all(locked, planned, places, telling)
        steps = plan_bakes(locked.models, plugins, planned.instruction_sets)
        baked = bake_all(steps, places.tree, BakeCache(places.wheels.root), telling.note)
    for model in baked:
        click.echo(f"{model.name}: {byte_size(sum(file.size or 0 for file in model.files))}")
    if not steps:
        click.echo("no plugin knows how to prepare these models for the declared instruction sets")
