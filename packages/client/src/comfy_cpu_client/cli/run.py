"""``comfy-cpu run``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from comfy_cpu_core.cli.console import note, print_error, print_json, print_warning
from comfy_cpu_core.cli.options import models_option
from comfy_cpu_core.cli.values import parse_input_files, parse_options, parse_set
from comfy_cpu_core.errors import UsageError
from comfy_cpu_core.results import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from comfy_cpu_client.save import SavedOutput
    from comfy_cpu_client.values import FileValue

__all__ = ["exit_code", "run"]

_NODE_INPUT = re.compile(r"[\d:]+\.\w+")


@click.command()
@click.argument("workflow", type=click.Path(path_type=Path))
@click.option(
    "--input",
    "-i",
    "inputs",
    multiple=True,
    metavar="[NODE.INPUT=]FILE",
    help="A file for a node's input, for example 1.image=photo.jpg. May be given several times. The file for the only "
    "LoadImage of a workflow needs no name.",
)
@click.option(
    "--set",
    "-s",
    "values",
    multiple=True,
    metavar="NODE.INPUT=JSON",
    help="A value for a node's input, for example 4.sensitivity=0.8. May be given several times.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("comfy-cpu-output"),
    show_default=True,
    help="Where the outputs go. Nothing that is there is overwritten.",
)
@models_option
@click.option(
    "--target",
    default="embedded",
    show_default=True,
    help="Where to run: `embedded` is this process; runpod://ENDPOINT_ID; the URL of a `comfy-cpu serve` or of a ComfyUI.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=JSON",
    help="An option of the target, for example price_per_second=0.00012 or queue_limit_s=300. May be given several times.",
)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Stop after that long.")
@click.option("--convert/--no-convert", default=True, help="Convert the workflow for a CPU first (default).")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON; progress stays on stderr.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def run(
    workflow: Path,
    inputs: tuple[str, ...],
    values: tuple[str, ...],
    output: Path,
    models: Path,
    target: str,
    options: tuple[str, ...],
    timeout: float | None,
    convert: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run a ComfyUI workflow on the CPU.

    WORKFLOW is a file as ComfyUI saved it, in UI or API format. Settings that need a GPU are changed, and every
    change is reported.

    \b
    Examples:
      comfy-cpu run workflow.json --input photo.jpg
      comfy-cpu run workflow.json -i 1.image=photo.jpg -s 4.sensitivity=0.8 -o out --json
      RUNPOD_API_KEY=… comfy-cpu run workflow.json -i photo.jpg --target runpod://ENDPOINT_ID

    `comfy-cpu models fetch --workflow WORKFLOW` gets the models that it needs.
    """  # noqa: D301  # click needs a real backspace to keep the lines of a list
    from comfy_cpu_client.cli.progress import show_progress
    from comfy_cpu_client.client import Client
    from comfy_cpu_client.save import check_directory, save_outputs

    files = _files(inputs)
    settings = parse_set(values)
    check_directory(output)
    given = parse_options(options)
    if target == "embedded":  # elsewhere the models are not ours
        given = {"models": models, **given}
    with Client(target, **given) as client, show_progress(quiet=quiet) as on_event:
        result = client.run(workflow, inputs=files, set=settings, convert=convert, timeout_s=timeout, on_event=on_event)
    saved = save_outputs(result.outputs, output) if result.outputs else []
    if as_json:
        print_json(_document(result, saved))
    else:
        _describe(result, saved)
    for warning in result.warnings:
        print_warning(warning)
    for error in result.errors:
        where = f"node {error.node_id} ({error.class_type}): " if error.node_id else ""
        print_error(f"{result.status}: {where}{error.message}", error.remedy)
    return exit_code(result)


def _files(inputs: tuple[str, ...]) -> Mapping[str, FileValue] | FileValue:
    """The files by ``NODE.INPUT``; or the one that came without."""
    unnamed = [text for text in inputs if "=" not in text]
    forgotten = any(_NODE_INPUT.fullmatch(text) and not Path(text).exists() for text in unnamed)
    if not unnamed or forgotten:  # 1.image alone: what is to come behind it is missing
        return dict(parse_input_files(inputs))
    if len(inputs) > 1:
        raise UsageError(
            f"--input {unnamed[0]} does not say which input it is for",
            remedy="write NODE.INPUT=FILE for each of several",
        )
    return Path(unnamed[0]).expanduser()


def exit_code(result: Result) -> int:
    """The exit code that a result stands for, as the error tree in `comfy_cpu_core.errors` has them."""
    if result.status == "failed":
        codes = {error.code for error in result.errors}
        return 4 if "model" in codes else 3 if codes & {"input", "invalid"} else 6
    return {"completed": 0, "blocked": 8, "cancelled": 130, "timed_out": 7}[result.status]


def _document(result: Result, saved: list[SavedOutput]) -> dict[str, Any]:
    document = result.to_json()
    document["outputs"] = [{**item.output.describe(), "path": str(item.path)} for item in saved]
    return document


def _describe(result: Result, saved: list[SavedOutput]) -> None:
    for change in (result.changes or {}).get("changes", ()):
        note(
            f"changed for CPU: node {change['node_id']} ({change['class_type']}) {change['input']}: "
            f"{change['old']!r} -> {change['new']!r} ({change['reason']})"
        )
    for node in (result.changes or {}).get("dropped", ()):
        if node["reason"] in {"muted", "bypassed"}:  # the rest only exists in the editor
            note(f"left out: node {node['node_id']} ({node['class_type']}): {node['reason']} in the workflow")
    for item in saved:
        click.echo(f"{item.path}")
    ran = [timing for timing in result.timings if not timing.cached]
    waited = f" after {result.queue_seconds:.1f} s in the queue" if result.queue_seconds >= 1 else ""
    cost = f", about {result.estimated_cost:.6f}" if result.estimated_cost is not None else ""
    note(f"{result.status} in {result.execution_seconds:.1f} s, {len(ran)} nodes{waited}{cost}")
