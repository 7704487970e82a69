"""``comfy-cpu serve``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from comfy_cpu_core.errors import InputError

if TYPE_CHECKING:
    from comfy_cpu_worker.settings import WorkerSettings
    from comfy_cpu_worker.shelf import Shelf

__all__ = ["serve"]

_DIRECTORY = click.Path(file_okay=False, path_type=Path)

#: Outputs need not fit through RunPod here; but a client has to hold them in memory.
_OUTPUT_BYTES = 100_000_000


@click.command()
@click.option("--host", metavar="ADDRESS", help="Where to listen. Default: 127.0.0.1, this machine alone.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default: 8000. 0 takes any that is free.")
@click.option("--models", type=_DIRECTORY, metavar="DIR", help="The model tree. Default: as for `comfy-cpu run`.")
@click.option("--workflows", type=_DIRECTORY, metavar="DIR", help="Workflows that jobs may name: DIR/NAME.json.")
@click.option(
    "--backend",
    type=click.Choice(["engine", "comfyui"]),
    help="What runs workflows: the engine (default), or a ComfyUI that is started and watched.",
)
@click.option("--comfyui", type=_DIRECTORY, metavar="DIR", help="The ComfyUI for --backend comfyui.")
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A file with the token that callers must send. Or set COMFY_CPU_TOKEN.",
)
@click.option("--queue", type=click.IntRange(1), metavar="N", help="Jobs that may wait. Default: 50; then 429.")
@click.option("--state", type=_DIRECTORY, metavar="DIR", help="Where jobs are kept: they survive a restart.")
@click.option("--warm-up/--no-warm-up", default=None, help="Load the models of the workflows first (default).")
@click.option(
    "--grace", "grace_s", type=click.FloatRange(0), metavar="SECONDS", help="For a job at SIGTERM. Default: 8."
)
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="For a job that names none: 600."
)
@click.option("--allow-host", "allow_hosts", multiple=True, metavar="NAME", help="A host name that it answers to.")
@click.option("--allow-remote", is_flag=True, default=None, help="Listen beyond this machine without a token.")
def serve(token_file: Path | None, timeout: float | None, allow_hosts: tuple[str, ...], **options: Any) -> None:
    """Serve workflows on this machine, as a RunPod endpoint does.

    RunPod's queue API is under http://127.0.0.1:8000/v2/local (any other id will do), a page to try a workflow by hand
    at http://127.0.0.1:8000/. Jobs that were accepted survive a restart; a signal lets the one that runs end first.

    \b
    Examples:
      comfy-cpu serve --workflows examples
      curl -s 127.0.0.1:8000/v2/local/runsync -d '{"input": {"workflow": "NAME"}}'
      COMFY_CPU_TOKEN=… comfy-cpu serve --host 0.0.0.0

    In Python: runpod.endpoint_url_base = "http://127.0.0.1:8000/v2", then runpod.Endpoint("local").

    Every option has an environment variable, too: see docs/configuration.md.
    """  # noqa: D301  # click needs a real backspace to keep the lines of a list
    from comfy_cpu_worker.settings import WorkerSettings

    if token_file is not None:
        options["token"] = _read_token(token_file)
    settings = WorkerSettings.from_environ(os.environ, **options, allow_hosts=allow_hosts or None)
    _serve(_for_this_machine(settings, os.environ, timeout))


def _for_this_machine(settings: WorkerSettings, environ: Mapping[str, str], timeout: float | None) -> WorkerSettings:
    from dataclasses import replace

    if "COMFY_CPU_OUTPUT_BYTES" not in environ:
        settings = replace(settings, delivery=replace(settings.delivery, output_bytes=_OUTPUT_BYTES))
    if timeout is not None:
        limits = settings.limits
        limits = replace(limits, timeout_s=timeout, max_timeout_s=max(timeout, limits.max_timeout_s))
        settings = replace(settings, limits=limits)
    return settings


def _serve(settings: WorkerSettings) -> None:
    import asyncio
    import logging

    from comfy_cpu_core.cli.console import note
    from comfy_cpu_worker.listen import check_exposure, open_sockets, url_of
    from comfy_cpu_worker.serve import serve as serve_worker
    from comfy_cpu_worker.shelf import Shelf
    from comfy_cpu_worker.statedir import StateDirectory, default_state_dir

    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s")
    check_exposure(settings.host, token=settings.token is not None, allowed=settings.allow_remote)
    shelf = Shelf(settings.workflows)
    sockets = open_sockets(settings.host, settings.port)
    try:
        default = default_state_dir(os.environ, settings.port) if settings.port else None
        state = StateDirectory.open(settings.state, default)
        try:
            url = url_of(settings.host, sockets)
            ready = f"comfy-cpu worker ready at {url} ({_describe(settings, shelf)})"
            asyncio.run(serve_worker(settings, sockets, state.path, shelf, on_ready=lambda: click.echo(ready)))
        finally:
            state.close()
    finally:
        for opened in sockets:
            opened.close()
    note("the worker has ended")


def _describe(settings: WorkerSettings, shelf: Shelf) -> str:
    names = shelf.names()
    workflows = f"workflows: {', '.join(names)}" if names else "no workflows of its own"
    return f"{settings.backend}; models in {settings.models}; {workflows}"


def _read_token(file: Path) -> str:
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise InputError(f"cannot read the token file {file}: {reason}") from None
    if not token or not token.isprintable() or " " in token:
        raise InputError(f"the token file {file} does not hold a token: one line without spaces")
    return token
