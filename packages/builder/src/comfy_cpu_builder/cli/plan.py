"""``comfy-cpu plan | lock | fetch | render``: the steps before a build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from comfy_cpu_builder.cli.options import (
    engine_option,
    find_links_option,
    json_option,
    open_engine_or_none,
    plan_of,
    spec_argument,
)
from comfy_cpu_core.cli.console import note, print_json, print_table
from comfy_cpu_core.cli.options import models_option

if TYPE_CHECKING:
    from comfy_cpu_builder.plan import Plan

__all__ = ["fetch", "lock", "plan", "render"]


@click.command()
@spec_argument
@json_option
def plan(*, spec: tuple[Path, ...], target: str | None, as_json: bool) -> None:
    """Show what would go into an image: models, packages, node packs, and what is changed in the workflows.

    SPEC is a comfy-cpu.toml; without one the workflows alone will do. Nothing is fetched, and nothing is written.
    """
    _, planned, _ = plan_of(spec, target)
    if as_json:
        print_json(planned.to_json())
    else:
        show_plan(planned)


def show_plan(planned: Plan) -> None:
    """Print a plan for people."""
    note(f"target {planned.target}, on {planned.base} ({planned.platform}, Python {planned.python})")
    for workflow in planned.workflows:
        note(f"workflow {workflow.name}: {len(workflow.nodes)} nodes")
        for change in workflow.report.changes:
            note(
                f"  changed for CPU: node {change.node_id} ({change.class_type}) {change.input}: "
                f"{change.old!r} -> {change.new!r} ({change.reason})"
            )
    rows = [
        *(("model", m.spec.id, m.spec.source, m.spec.licence) for m in planned.models),
        *(("node pack", p.name, p.source, p.licence) for p in planned.node_packs),
        *(("python", requirement, "", "") for requirement in planned.requirements),
        *(("debian", package, "", "") for package in planned.apt),
    ]
    print_table(("kind", "what", "source", "licence"), rows)


@click.command()
@spec_argument
@models_option
@engine_option
@find_links_option
def lock(
    *, spec: tuple[Path, ...], target: str | None, models: Path, engine: str | None, find_links: tuple[str, ...]
) -> None:
    """Pin everything that goes into an image, into comfy-cpu.lock beside the spec.

    The base image by its digest, Python packages and models by their hashes, node packs by their commits. With the lock
    a build looks nothing up.
    """
    from comfy_cpu_builder.pipeline import lock_for, open_places
    from comfy_cpu_core.cli.progress import file_progress

    wanted, planned, plugins = plan_of(spec, target)
    places = open_places(models, plugins, find_links)
    with file_progress() as telling:
        made = lock_for(wanted, planned, places, open_engine_or_none(engine, plugins), telling, anew=True)
    click.echo(f"{wanted.lock_path}: {len(made.models)} models, {len(made.packages)} Python packages")


@click.command()
@spec_argument
@models_option
@find_links_option
def fetch(*, spec: tuple[Path, ...], target: str | None, models: Path, find_links: tuple[str, ...]) -> None:
    """Get what a lock names onto this machine: models, wheels, sources. Afterwards a build needs no network."""
    from comfy_cpu_builder.locking import fetch_all
    from comfy_cpu_builder.pipeline import lock_for, open_places
    from comfy_cpu_core.cli.progress import file_progress

    wanted, planned, plugins = plan_of(spec, target)
    places = open_places(models, plugins, find_links)
    with file_progress() as telling:
        locked = lock_for(wanted, planned, places, open_engine_or_none(None, plugins), telling)
        fetch_all(locked, planned, places, telling)
    click.echo(f"{len(locked.models)} models, {len(locked.packages)} Python packages, {len(locked.sources)} sources")


@click.command()
@spec_argument
@models_option
@find_links_option
@click.option("--output", "-o", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="DIR")
@click.option("--copy-link", is_flag=True, help="Link the models' layers (--link): for Docker 23 and later.")
def render(
    *,
    spec: tuple[Path, ...],
    target: str | None,
    models: Path,
    find_links: tuple[str, ...],
    output: Path,
    copy_link: bool,
) -> None:
    """Write the whole build context into a directory that plain `docker build` accepts. No Docker is needed.

    The same lock gives the same bytes.
    """
    from comfy_cpu_builder.pipeline import lock_for, open_places, write_files
    from comfy_cpu_core.cli.progress import file_progress

    wanted, planned, plugins = plan_of(spec, target)
    places = open_places(models, plugins, find_links)
    with file_progress() as telling:
        locked = lock_for(wanted, planned, places, open_engine_or_none(None, plugins), telling)
        write_files(planned, locked, output, places, plugins, telling, copy_link=copy_link)
    click.echo(f"{output}")
