"""``comfy-cpu build``."""

from __future__ import annotations

import os
from contextlib import ExitStack
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
    from comfy_cpu_builder.lock import Lock
    from comfy_cpu_builder.plan import Plan
    from comfy_cpu_builder.spec import ImageSpec
    from comfy_cpu_builder.verify import Verification
    from comfy_cpu_core.image import BuildEngine, ImageInfo
    from comfy_cpu_core.plugins import Plugins

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
    "--verify/--no-verify", "verifies", default=True, help="Verify the image before it gets a name (default)."
)
@click.option("--push", is_flag=True, help="Push the image under its names, and print its digest.")
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
    verifies: bool,
    push: bool,
    network: str | None,
    no_cache: bool,
    log: Path,
    as_json: bool,
) -> int:
    """Build an image that runs workflows on a CPU.

    SPEC is a comfy-cpu.toml; without one the workflows alone will do. What the lock names is fetched if it is not here;
    where there is no lock it is made first. The image gets its names only once it is verified.

    \b
    Examples:
      comfy-cpu build comfy-cpu.toml --tag me/background-removal
      comfy-cpu build workflow.json --output context && docker build context
    """  # noqa: D301  # click needs a real backspace to keep the lines of a list
    from comfy_cpu_builder import values
    from comfy_cpu_builder.cli.progress import build_progress
    from comfy_cpu_builder.engines import open_engine
    from comfy_cpu_builder.pipeline import (
        BuildOptions,
        build_context,
        lock_for,
        open_places,
        write_files,
        written_context,
    )
    from comfy_cpu_core.cli.progress import file_progress
    from comfy_cpu_core.errors import UsageError

    for name in tags:
        if not values.TAG.fullmatch(name):
            raise UsageError(f"{name!r} is no name for an image", remedy="write it like registry.example/me/image:1.0")
    wanted, planned, plugins = plan_of(spec, target)
    names = (*planned.tags, *tags)
    if push and not names:
        raise UsageError("push to where?", remedy="give the image a name with --tag, or tags in the spec")
    places = open_places(models, plugins, find_links)
    if output is not None:
        with file_progress() as telling:
            locked = lock_for(wanted, planned, places, open_engine_or_none(engine, plugins), telling)
            write_files(planned, locked, output, places, plugins, telling)
        click.echo(f"{output}")
        return 0
    builder = open_engine(engine, plugins, os.environ)
    builder.features()
    options = BuildOptions(
        log=log,
        network=network,
        build_args={name: os.environ[name] for name in _PROXIES if name in os.environ},
        no_cache=no_cache,
    )
    with ExitStack() as stack:
        with file_progress() as telling:
            locked = lock_for(wanted, planned, places, builder, telling)
            context = stack.enter_context(written_context(planned, locked, builder, places, plugins, telling))
        with build_progress() as on_event:
            info = build_context(context, planned, builder, options, on_event)
    verification = _verify(wanted, planned, locked, info, builder, plugins, as_json=as_json) if verifies else None
    if verification is not None and not verification.ok:
        note(f"the image {info.id} was built, and gets no name")
        if as_json:
            print_json(_document(info, (), {}, locked, verification, log))
        return 5
    digests = _publish(names, info, locked, builder, push=push)
    if as_json:
        print_json(_document(info, names, digests, locked, verification, log))
    else:
        _tell(info, names, digests)
    return 0


def _verify(
    spec: ImageSpec, plan: Plan, lock: Lock, info: ImageInfo, engine: BuildEngine, plugins: Plugins, *, as_json: bool
) -> Verification:
    from comfy_cpu_builder.cli.verify import show_verification
    from comfy_cpu_builder.pipeline import verify_options
    from comfy_cpu_builder.verify import gather_facts, run_checks

    checks = tuple(plugins.unique("comfy_cpu_checks", "name", "check").values())
    verification = run_checks(
        info.id, checks, gather_facts(info.id, engine, checks, verify_options(spec, lock, plan), note)
    )
    show_verification(verification, quiet=as_json)
    return verification


def _publish(names: tuple[str, ...], info: ImageInfo, lock: Lock, engine: BuildEngine, *, push: bool) -> dict[str, str]:
    """Give the image its names, and push them if asked to; give the digest of each that was pushed."""
    from comfy_cpu_builder.cli.progress import build_progress
    from comfy_cpu_builder.licences import restricted

    for name in names:
        engine.tag(info.id, name)
    if not push:
        return {}
    for model in restricted(lock.models):
        print_warning(f"{model.id} is under {model.licence!r}: whoever pushes it passes it on. {model.notice}".strip())
    with build_progress() as on_event:
        return {name: engine.push(name, on_event) for name in names}


def _document(
    info: ImageInfo,
    names: tuple[str, ...],
    digests: dict[str, str],
    lock: Lock,
    verification: Verification | None,
    log: Path,
) -> dict[str, object]:
    return {
        "id": info.id,
        "tags": list(names),
        "digests": digests,
        "size": info.size,
        "lock": lock.digest,
        "verification": verification.to_json() if verification else None,
        "log": str(log),
    }


def _tell(info: ImageInfo, names: tuple[str, ...], digests: dict[str, str]) -> None:
    from comfy_cpu_core.cli.progress import byte_size

    named = f", named {', '.join(names)}" if names else ""
    note(f"{byte_size(info.size)} uncompressed{named}")
    click.echo(info.id)
    for name, digest in digests.items():
        click.echo(f"{name}@{digest}")
