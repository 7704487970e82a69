"""What the builder's commands have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from comfy_cpu_core.errors import UsageError

if TYPE_CHECKING:
    from comfy_cpu_builder.plan import Plan
    from comfy_cpu_builder.spec import ImageSpec
    from comfy_cpu_core.image import BuildEngine
    from comfy_cpu_core.plugins import Plugins

__all__ = ["engine_option", "find_links_option", "json_option", "open_engine_or_none", "plan_of", "spec_argument"]

F = TypeVar("F", bound=Callable[..., Any])


def spec_argument(function: F) -> F:
    """Add ``[SPEC | WORKFLOW...]`` and ``--target``."""
    function = click.argument("spec", metavar="[SPEC | WORKFLOW...]", nargs=-1, type=click.Path(path_type=Path))(
        function
    )
    return click.option(
        "--target",
        metavar="NAME",
        help="engine, comfyui or worker-comfyui; goes before the spec's. Default: engine where it knows every node.",
    )(function)


def engine_option(function: F) -> F:
    """Add ``--engine NAME``."""
    return click.option(
        "--engine", metavar="NAME", help="What builds and runs images. Default: the first that is installed."
    )(function)


def find_links_option(function: F) -> F:
    """Add ``--find-links DIR``."""
    return click.option(
        "--find-links", multiple=True, metavar="DIR", help="Where pip looks for packages, beside where it always does."
    )(function)


def json_option(function: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def plan_of(paths: tuple[Path, ...], target: str | None) -> tuple[ImageSpec, Plan, Plugins]:
    """The spec that the arguments name, its plan, and the plugins, of which none may be broken.

    Raises:
        UsageError: the arguments make no sense, or the target is unknown.
    """
    from dataclasses import replace

    from comfy_cpu_builder.pipeline import plan_for
    from comfy_cpu_builder.spec import SPEC_NAME, TARGETS, read_spec, spec_for_workflows
    from comfy_cpu_core.plugins import load_plugins

    if target is not None and target not in TARGETS:
        raise UsageError(f"there is no target {target!r}", remedy=f"known are: {', '.join(TARGETS)}")
    if not paths:
        paths = (Path(SPEC_NAME),)
        if not paths[0].is_file():
            raise UsageError(f"there is no {SPEC_NAME} here", remedy="name a spec, or the workflows of the image")
    specs = [path for path in paths if path.suffix == ".toml"]
    if specs and len(paths) > 1:
        raise UsageError("name one spec, or workflows", remedy="a spec names its workflows itself")
    spec = read_spec(specs[0]) if specs else spec_for_workflows(paths)
    if target is not None:
        spec = replace(spec, target=target)
    plugins = load_plugins(os.environ, strict=True)
    return spec, plan_for(spec, plugins), plugins


def open_engine_or_none(name: str | None, plugins: Plugins) -> BuildEngine | None:
    """The engine, where one is named or installed and answers: a lock can do without."""
    from comfy_cpu_builder.engines import open_engine
    from comfy_cpu_core.errors import BuildError

    if name is not None:
        return open_engine(name, plugins, os.environ)
    try:
        engine = open_engine(None, plugins, os.environ)
        engine.features()
    except BuildError:
        return None
    return engine
