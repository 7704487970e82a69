"""``comfy-cpu health``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from comfy_cpu_core.cli.console import print_error, print_json
from comfy_cpu_core.cli.values import parse_options

__all__ = ["health"]


@click.command()
@click.argument("target")
@click.option("--option", "options", multiple=True, metavar="NAME=JSON", help="An option of the target, as for `run`.")
@click.option("--json", "as_json", is_flag=True, help="Print what the target says as JSON.")
def health(target: str, options: tuple[str, ...], as_json: bool) -> int:
    """Say whether a target can run something: is it there, is the key right, has it workers?

    \b
    Examples:
      comfy-cpu health http://127.0.0.1:8000
      RUNPOD_API_KEY=… comfy-cpu health runpod://ENDPOINT_ID

    The exit code is 7 if it cannot.
    """  # noqa: D301  # click needs a real backspace to keep the lines of a list
    from comfy_cpu_client.client import Client

    with Client(target, **parse_options(options)) as client:
        found = client.health()
    if as_json:
        print_json(found)
    else:
        for line in _describe(found):
            click.echo(line)
        for part in (found, *found.get("endpoints", ())):
            if problem := part.get("problem"):
                print_error(problem, part.get("remedy"))
    return 0 if found["ready"] else 7


def _describe(found: Mapping[str, Any]) -> list[str]:
    lines = ["ready" if found["ready"] else "not ready"]
    for endpoint in found.get("endpoints", ()):
        parts = [f"{endpoint['where']}: {'ready' if endpoint['ready'] else 'not ready'}"]
        for name in ("jobs", "workers"):
            if counts := endpoint.get(name):
                parts.append(f"{name}: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count))
        lines.append("; ".join(part for part in parts if not part.endswith(": ")))
    if "version" in found:
        lines.append(f"ComfyUI {found['version']}: {found['running']} running, {found['queued']} waiting")
    return lines
