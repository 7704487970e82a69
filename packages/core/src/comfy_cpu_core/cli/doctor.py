"""``comfy-cpu doctor``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from comfy_cpu_core.cli.console import print_json, styled
from comfy_cpu_core.cli.options import models_option

if TYPE_CHECKING:
    from comfy_cpu_core.doctor import Check

__all__ = ["doctor"]

_COLOURS = {"ok": "green", "note": "cyan", "missing": "yellow", "problem": "red"}


@click.command()
@models_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(models: Path, as_json: bool) -> int:
    """Say what this machine has for running workflows, and what is missing.

    Each line is `ok`, a `note` (worth knowing, or optional), `missing` (something that you will want is not there or
    does not work) or a `problem`, with a hint on what to do. It asks the Hugging Face Hub whether it answers, for three
    seconds at most, and sends no token.

    Exit code: 0 if the shipped background-removal workflow can run here once its models are fetched, that is, if no
    line is a `problem`; else 1.
    """
    from comfy_cpu_core.doctor import diagnose
    from comfy_cpu_core.plugins import get_plugins

    diagnosis = diagnose(os.environ, get_plugins(), models)
    if as_json:
        print_json(diagnosis.to_json())
    else:
        for line in _lines(diagnosis.checks, tidy=sys.stdout.isatty()):
            click.echo(line)
    return 0 if diagnosis.ok else 1


def _lines(checks: Sequence[Check], *, tidy: bool) -> Iterator[str]:
    """The checks for a person: aligned and coloured on a terminal, plain elsewhere."""
    if not tidy:
        for check in checks:
            yield f"{check.state}: {check.name}: {check.detail}"
            if check.remedy:
                yield f"  hint: {check.remedy}"
        return
    states = max(len(state) for state in _COLOURS)
    names = max(len(check.name) for check in checks)
    for check in checks:
        state = styled(check.state.ljust(states), fg=_COLOURS[check.state], bold=check.state == "problem")
        yield f"{state}  {styled(check.name.ljust(names), bold=True)}  {check.detail}"
        if check.remedy:
            yield f"{'':{states + names + 4}}{styled('hint:', fg='cyan')} {check.remedy}"
