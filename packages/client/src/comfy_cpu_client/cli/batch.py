"""``comfy-cpu batch``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from comfy_cpu_core.cli.console import note, print_json, print_warning
from comfy_cpu_core.cli.options import models_option
from comfy_cpu_core.cli.values import parse_set

if TYPE_CHECKING:
    from comfy_cpu_client.batch import BatchSummary, Recovered

__all__ = ["batch"]

#: How many jobs are under way at each target, where nobody said.
_PER_TARGET = 4


@click.command()
@click.argument("workflow", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Where outputs, journal, summary and report go. A batch that is there already goes on.",
)
@click.option(
    "--target",
    "-t",
    "targets",
    multiple=True,
    default=("embedded",),
    show_default=True,
    help="Where to run. Several share the work; one that fails gets less.",
)
@click.option("--input", "-i", "key", metavar="NODE.INPUT", help="What files are for. Default: the only LoadImage.")
@click.option(
    "--set",
    "-s",
    "values",
    multiple=True,
    metavar="NODE.INPUT=JSON",
    help="A value for all inputs, for example 4.sensitivity=0.8. May be given several times.",
)
@models_option
@click.option(
    "--in-flight", "-j", type=click.IntRange(1, 10_000), metavar="N", help="Jobs at once. Default: 4 a target."
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Start at most N jobs a second.")
@click.option("--retries", type=click.IntRange(0), default=3, show_default=True, help="How often to try again.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="End a job after that long."
)
@click.option(
    "--give-up",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Stop if no target was of use for that long.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Run no more than N inputs this time.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first input that fails.")
@click.option("--retry-failed", is_flag=True, help="Run inputs again that failed before.")
@click.option("--restart", is_flag=True, help="Forget what was done, and begin anew.")
@click.option(
    "--cut-offs",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    metavar="N",
    help="How often an input may be run again because this program died meanwhile.",
)
@click.option(
    "--resubmit-ambiguous", is_flag=True, help="Submit a job again of which nobody knows whether it was accepted."
)
@click.option(
    "--layout",
    type=click.Choice(["folders", "flat"]),
    default="folders",
    show_default=True,
    help="A folder of outputs for each input, or a prefix.",
)
@click.option("--price", metavar="PRICE/h", help="Per vCPU, for example 0.044/h or 0.0000122/s: what did it cost?")
@click.option("--vcpus", type=click.FloatRange(min=0, min_open=True), default=1.0, help="vCPUs of a job, for --price.")
@click.option("--convert/--no-convert", default=True, help="Convert the workflow for a CPU first (default).")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON; progress stays on stderr.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def batch(
    workflow: Path,
    inputs: tuple[str, ...],
    output: Path,
    targets: tuple[str, ...],
    key: str | None,
    values: tuple[str, ...],
    models: Path,
    in_flight: int | None,
    rate: float | None,
    retries: int,
    timeout: float | None,
    give_up: float,
    limit: int | None,
    fail_fast: bool,
    retry_failed: bool,
    restart: bool,
    cut_offs: int,
    resubmit_ambiguous: bool,
    layout: str,
    price: str | None,
    vcpus: float,
    convert: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run a workflow once for each of many inputs.

    INPUTS are directories with pictures, globs in quotes, files, and tables (.csv, .jsonl) with a row for each run:
    a column NODE.INPUT names a file, relative to the table; set.NODE.INPUT has a value; image names the file for the
    only LoadImage; id is what the row is called.

    \b
    Examples:
      comfy-cpu batch workflow.json photos/ -o out
      comfy-cpu batch workflow.json 'photos/**/*.png' -o out -t runpod://ID1 -t runpod://ID2 -j 32
      comfy-cpu batch workflow.json runs.csv -o out --price 0.044/h --vcpus 8 --json

    Killed at any moment and begun again with the same arguments, it goes on where it was: every input ends with exactly
    one result. Inputs that could not be reached, crashed or timed out are tried again; those that are bad or blocked are
    not. In DIR stand summary.json and report.html, and a folder of outputs for each input.

    The exit code is 0 if every input that ran completed or was blocked, and 6 if some failed.
    """  # noqa: D301  # click needs a real backspace to keep the lines of a list
    from comfy_cpu_client.batch import REPORT, Policy, parse_price, run_batch
    from comfy_cpu_client.cli.live import show_batch

    policy = Policy(in_flight=in_flight or _PER_TARGET * len(targets), rate=rate, retries=retries, give_up_s=give_up)
    cost = parse_price(price, vcpus) if price is not None else None
    try:
        with show_batch(quiet=quiet) as on_progress:
            summary = run_batch(
                workflow,
                inputs,
                output=output,
                targets=targets,
                input=key,
                set=parse_set(values),
                convert=convert,
                timeout_s=timeout,
                policy=policy,
                layout="flat" if layout == "flat" else "folders",
                limit=limit,
                fail_fast=fail_fast,
                cut_offs=cut_offs,
                resubmit_ambiguous=resubmit_ambiguous,
                retry_failed=retry_failed,
                restart=restart,
                price=cost,
                options={"embedded": {"models": models}},  # elsewhere the models are not ours
                on_progress=on_progress,
                on_recovered=_tell_recovered,
            )
    except KeyboardInterrupt:
        note(f"the journal in {output} keeps what was done: run the same command again to go on")
        raise
    if as_json:
        print_json({**summary.to_json(), "output": str(output), "report": str(output / REPORT)})
    else:
        _describe(summary)
        click.echo(f"{output / REPORT}")
    for message, count in summary.warnings.items():
        print_warning(f"{message} ({count} inputs)")
    return 6 if summary.failed else 0


def _tell_recovered(recovered: Recovered) -> None:
    if recovered.again:
        note(f"{recovered.again} jobs were cut off when this batch was killed: they run again")
    if recovered.failed:
        print_warning(f"{recovered.failed} jobs were cut off too often: they count as failed")


def _describe(summary: BatchSummary) -> None:
    from comfy_cpu_client.batch.plots import number, seconds

    rate = f", {100 * summary.success_rate:.2f} % success" if summary.success_rate is not None else ""
    note(f"{summary.completed} of {summary.inputs} inputs completed in {seconds(summary.active_seconds)}{rate}")
    if summary.waiting:
        note(f"{summary.waiting} inputs wait: run the same command again to go on")
    for name, figures in (("execution", summary.execution), ("queue", summary.queue)):
        if figures is not None:
            note(
                f"{name}: p50 {seconds(figures.p50)}, p90 {seconds(figures.p90)}, p99 {seconds(figures.p99)},"
                f" longest {seconds(figures.longest)}"
            )
    if summary.cost is not None:
        each = summary.cost.per_completed
        note(f"cost: {number(summary.cost.total)}" + (f", {number(each)} for each completed" if each else ""))
    for group in summary.failures:
        note(f"{group.status} ({group.reason}): {group.count} inputs, for example {group.label}: {group.message}")
    for line in summary.advice:
        note(f"advice: {line}")
