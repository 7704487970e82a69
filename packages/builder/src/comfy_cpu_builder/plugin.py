"""What the builder adds to comfy-cpu."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from comfy_cpu_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from comfy_cpu_core.image import BuildEngine, BuildEngineType, ImageCheck


@hookimpl
def comfy_cpu_commands() -> Iterable[click.Command]:
    """The builder's commands."""
    from comfy_cpu_builder.cli import COMMANDS

    return COMMANDS


@hookimpl
def comfy_cpu_build_engines() -> Iterable[BuildEngineType]:
    """Docker."""
    from comfy_cpu_core.image import BuildEngineType

    return [
        BuildEngineType(
            "docker", open=_docker, summary="Docker, with BuildKit where it has it", rank=10, installed=_has("docker")
        ),
    ]


@hookimpl
def comfy_cpu_checks() -> Iterable[ImageCheck]:
    """The reference's checklist, and what else an image must be."""
    from comfy_cpu_builder.verify.checks import CHECKS

    return CHECKS


def _docker(environ: Mapping[str, Any]) -> BuildEngine:
    from comfy_cpu_builder.engines.docker import DockerEngine

    return DockerEngine(environ)


def _has(name: str) -> Any:
    def installed(environ: Mapping[str, Any]) -> bool:
        from comfy_cpu_builder.engines.docker import program

        return program(name, environ) is not None

    return installed
