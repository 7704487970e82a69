"""``comfy-cpu verify``."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from comfy_cpu_builder.cli.options import engine_option, json_option
from comfy_cpu_core.cli.console import note, print_error, print_json, print_table

if TYPE_CHECKING:
    from comfy_cpu_builder.verify import Verification, VerifyOptions

__all__ = ["show_verification", "verify"]


@click.command()
@click.argument("image")
@click.option(
    "--spec", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="The image's comfy-cpu.toml: its pictures, its limits, and what its lock says of the models.",
)  # fmt: skip
@click.option("--start/--no-start", default=True, help="Run its workflows (default), or only look inside.")
@engine_option
@json_option
def verify(*, image: str, spec: Path | None, start: bool, engine: str | None, as_json: bool) -> int:
    """Look at a finished image: is everything in it, does every workflow run, and at what price.

    The image is started as it will be used, with the network off, a read-only root file system and no rights, and each
    of its workflows is run. Exit code 5 if anything is not as it should be.
    """
    from comfy_cpu_builder.engines import open_engine
    from comfy_cpu_builder.verify import gather_facts, run_checks
    from comfy_cpu_core.plugins import load_plugins

    plugins = load_plugins(os.environ, strict=True)
    checks = tuple(plugins.unique("comfy_cpu_checks", "name", "check").values())
    options = replace(_options(spec), start=start)
    facts = gather_facts(image, open_engine(engine, plugins, os.environ), checks, options, note)
    verification = run_checks(image, checks, facts)
    if as_json:
        print_json(verification.to_json())
    return show_verification(verification, quiet=as_json)


def show_verification(verification: Verification, *, quiet: bool = False) -> int:
    """Print what was found; give the exit code."""
    if not quiet:
        rows = [
            (result.name, "ok" if finding.ok else "WRONG", finding.message)
            for result in verification.results
            for finding in result.findings
        ]
        print_table(("check", "", "found"), rows)
    for problem in verification.problems:
        print_error(f"{verification.image}: {problem}")
    return 0 if verification.ok else 5


def _options(spec: Path | None) -> VerifyOptions:
    from comfy_cpu_builder.lock import read_lock
    from comfy_cpu_builder.pipeline import verify_options
    from comfy_cpu_builder.spec import read_spec
    from comfy_cpu_builder.verify import VerifyOptions

    if spec is None:
        return VerifyOptions()
    wanted = read_spec(spec)
    return verify_options(wanted, read_lock(wanted.lock_path))
