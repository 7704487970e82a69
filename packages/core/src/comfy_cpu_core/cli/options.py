"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from comfy_cpu_core.tree import MODELS_VARIABLE, default_models_dir

__all__ = ["models_option"]

F = TypeVar("F", bound=Callable[..., Any])


def _or_default(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path:
    return (default_models_dir(os.environ) if value is None else value).expanduser()


def models_option(function: F) -> F:
    """Add ``--models DIR``: the command's parameter ``models`` is the model tree's directory, a Path, never None."""
    return click.option(
        "--models",
        type=click.Path(file_okay=False, path_type=Path),
        callback=_or_default,
        metavar="DIR",
        help=f"The model tree. Default: {MODELS_VARIABLE}, else ~/.local/share/comfy-cpu/models.",
    )(function)
