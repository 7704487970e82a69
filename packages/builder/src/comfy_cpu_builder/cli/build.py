"""``comfy-cpu build``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from comfy_cpu_core.cli.console import note, print_json, print_warning
from comfy_cpu_core.cli.options import models_option

if TYPE_CHECKING:
    from comfy_cpu_core.image import BuildEvent

__all__ = ["build"]

#: What a build may need to reach the network; Docker knows these names and keeps none of their values.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@click.command()
@spec_argument
@models_option
@engine_option
@find_links_option
@click.option("--tag", "-t", "tags", multiple=True, metavar="NAME", help="A name for the image, beside the spec's.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    help="Write the build context there, and build nothing: needs no Docker.",
)  # fmt: skip
@click.option(
    "--network", metavar="NAME", help="What steps of the build may reach. Default: nothing, if they can do so."
)
@click.option("--no-cache", is_flag=True, help="Build everything anew.")
@click.option(
    "--log", type=click.Path(path_type=Path, dir_okay=False), default=Path("comfy-cpu-build.log"), show_default=True,
    help="All that the engine prints.",
)  # fmt: skip
@json_option
def build(
    *,
    spec: tuple[Path, ...],
    target: str | None,
    models: Path,
    engine: str | None,
    find_links: tuple[str, ...],
    tags: tuple[str, ...],
    output: Path | None,
    network: str | None,
    no_cache: bool,
    log: Path,
    as_json: bool,
) -> None:
    """Build an image that runs workflows on a CPU.

    SPEC is a comfy-cpu.toml; without one the workflows alone will do. What the lock names is fetched if it is not here;
    where there is no lock it is made first.

    \b
    Examples:
      comfy-cpu build comfy-cpu.toml --tag me/background-removal
      comfy-cpu build workflow.json --output context && docker build context
    """  # noqa: D301  # click needs a real backspace to keep the lines of a list
    from comfy_cpu_builder import values
    from comfy_cpu_builder.engines import open_engine
    from comfy_cpu_builder.licences import restricted
    from comfy_cpu_builder.pipeline import BuildOptions, build_image, lock_for, open_places, write_files
    from comfy_cpu_core.cli.progress import byte_size, file_progress
    from comfy_cpu_core.errors import UsageError

    for name in tags:
        if not values.TAG.fullmatch(name):
            raise UsageError(f"{name!r} is no name for an image", remedy="write it like registry.example/me/image:1.0")
    wanted, planned, plugins = plan_of(spec, target)
    places = open_places(models, plugins, find_links)
    if output is not None:
        with file_progress() as telling:
            locked = lock_for(wanted, planned, places, open_engine_or_none(engine, plugins), telling)
            write_files(planned, locked, output, places, telling)
        click.echo(f"{output}")
        return
    builder = open_engine(engine, plugins, os.environ)
    builder.features()
    with file_progress() as telling:
        locked = lock_for(wanted, planned, places, builder, telling)
        options = BuildOptions(
            log=log,
            network=network,
            build_args={name: os.environ[name] for name in _PROXIES if name in os.environ},
            no_cache=no_cache,
        )
        with _steps() as on_event:
            info = build_image(planned, locked, builder, places, options, telling, on_event)
    names = (*planned.tags, *tags)
    for name in names:
        builder.tag(info.id, name)
    for model in restricted(locked.models):
        print_warning(f"{model.id}: licence {model.licence}: read it before you pass the image on")
    if as_json:
        print_json({"id": info.id, "tags": list(names), "size": info.size, "lock": locked.digest, "log": str(log)})
        return
    click.echo(info.id)
    named = f", named {', '.join(names)}" if names else ""
    note(f"{byte_size(info.size)} uncompressed{named}")


@contextmanager
def _steps() -> Iterator[Callable[[BuildEvent], None]]:
    """Show the steps of a build: a line that changes on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():

        def on_line(event: BuildEvent) -> None:
            if event.kind == "step":
                note(f"[{event.number}/{event.total}] {event.text[:160]}")

        yield on_line
        return
    from rich.console import Console

    with Console(stderr=True).status("building") as status:

        def on_event(event: BuildEvent) -> None:
            if event.kind == "step":
                status.console.print(
                    f"[{event.number}/{event.total}] {event.text[:160]}", markup=False, highlight=False
                )
                status.update("building")
            else:
                status.update(event.text[:100].replace("[", "\\["))

        yield on_event
