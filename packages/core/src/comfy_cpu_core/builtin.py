"""The hooks that core itself implements."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from comfy_cpu_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from comfy_cpu_core.fetchers import Fetcher, FetcherType


@hookimpl
def comfy_cpu_commands() -> Iterable[click.Command]:
    """The commands that need nothing but core."""
    from comfy_cpu_core.cli.convert import convert
    from comfy_cpu_core.cli.doctor import doctor
    from comfy_cpu_core.cli.models import models
    from comfy_cpu_core.cli.nodes import nodes
    from comfy_cpu_core.cli.plugins import plugins

    return [convert, doctor, models, nodes, plugins]


@hookimpl
def comfy_cpu_fetchers() -> Iterable[FetcherType]:
    """The Hub, installed packages, directories."""
    from comfy_cpu_core.fetchers import FetcherType

    return [
        FetcherType("hf", open=_hub, online=True, summary="the Hugging Face Hub"),
        FetcherType("package", open=_package, online=False, summary="an installed Python package"),
        FetcherType("file", open=_file, online=False, summary="a directory of this machine"),
    ]


def _hub() -> Fetcher:
    from comfy_cpu_core.fetchers.hub import HubFetcher

    return HubFetcher()


def _package() -> Fetcher:
    from comfy_cpu_core.fetchers.package import PackageFetcher

    return PackageFetcher()


def _file() -> Fetcher:
    from comfy_cpu_core.fetchers.file import FileFetcher

    return FileFetcher()
