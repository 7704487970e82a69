"""``comfy-cpu convert``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from comfy_cpu_core.cli.console import note, print_json, print_table, print_warning
from comfy_cpu_core.cli.values import parse_set
from comfy_cpu_core.errors import InputError, WorkflowError
from comfy_cpu_core.files import write_json

if TYPE_CHECKING:
    from comfy_cpu_core.convert import Report
    from comfy_cpu_core.registry import NodeRegistry

__all__ = ["convert"]


@click.command()
@click.argument("workflow", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the converted workflow to this file. Without it, only the report is shown.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["api", "ui"]),
    default="api",
    show_default=True,
    help="`api` is what a server runs; `ui` is what ComfyUI's editor opens (WORKFLOW must be in that format then).",
)
@click.option(
    "--set",
    "-s",
    "values",
    multiple=True,
    metavar="NODE.INPUT=JSON",
    help="Set an input first, for example 4.sensitivity=0.8. May be given several times.",
)
@click.option(
    "--object-info",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What a ComfyUI answers under /object_info: its node classes count as known. For a workflow that runs there.",
)
@click.option("--json", "as_json", is_flag=True, help='Print {"report": …, "workflow": …} as JSON.')
def convert(
    *,
    workflow: Path,
    output: Path | None,
    output_format: str,
    values: tuple[str, ...],
    object_info: Path | None,
    as_json: bool,
) -> int:
    """Show what a workflow needs changed to run on a CPU, and write it out changed.

    WORKFLOW is a file as ComfyUI saved it, in UI or API format, or a picture that ComfyUI saved. Every change is
    listed with its reason; so is every node that cannot run on a CPU, every node that nobody knows, and everything
    that does not run anyway (muted, bypassed, notes). `comfy-cpu run` converts by itself.

    \b
    Examples:
      comfy-cpu convert workflow.json
      comfy-cpu convert workflow.json -o cpu.json
      comfy-cpu convert workflow.json -s 4.sensitivity=0.8 --format ui -o cpu-ui.json
      comfy-cpu convert workflow.json --json | jq .report

    The exit code is 3 if a node is unknown or cannot run on a CPU; the workflow is written all the same.
    """  # noqa: D301  # click needs a real backspace to keep the lines of a list
    from comfy_cpu_core.convert import gates_left_out, to_cpu
    from comfy_cpu_core.plugins import get_plugins
    from comfy_cpu_core.workflow import load

    known = _known_classes(object_info)
    edited = load(workflow, known.signatures).with_inputs(parse_set(values))
    converted, report = to_cpu(edited, get_plugins(), known)
    document = converted.to_ui() if output_format == "ui" else converted.to_prompt()
    if output is not None:
        _write(document, output)
    if as_json:
        print_json({"report": report.to_json(), "workflow": document})
    else:
        print_table(
            ("what", "node", "class", "input", "old", "new", "why"),
            _rows(report),
            empty="nothing to change: the workflow runs on a CPU as it is",
        )
    if output is not None:
        note(f"wrote {output} ({'UI' if output_format == 'ui' else 'API'} format)")
    for warning in gates_left_out(converted):
        print_warning(warning)
    if report.ok:
        return 0
    _warn(report, written=output is not None or as_json)
    return WorkflowError.exit_code


def _known_classes(object_info: Path | None) -> NodeRegistry:
    from comfy_cpu_core.plugins import get_plugins
    from comfy_cpu_core.registry import NodeRegistry, get_registry
    from comfy_cpu_core.workflow.document import read_document

    if object_info is None:
        return get_registry()
    document, name = read_document(object_info, None)
    if not isinstance(document, dict) or not all(isinstance(info, dict) for info in document.values()):
        raise InputError(f"{name}: not what /object_info answers", remedy="save http://SERVER:8188/object_info")
    return NodeRegistry(get_plugins(), object_info=document)


def _rows(report: Report) -> Iterator[tuple[str, ...]]:
    for change in report.changes:
        old, new = _short(change.old), _short(change.new)
        yield "changed", change.node_id, change.class_type, change.input, old, new, change.reason
    for stuck in report.cannot_run:
        yield "cannot run", stuck.node_id, stuck.class_type, "", "", "", stuck.reason
    for unknown in report.unknown:
        why = "no plugin here has this class"
        if unknown.node_id in report.guessed:
            why += "; the names of its inputs are those in the file"
        yield "unknown", unknown.node_id, unknown.class_type, "", "", "", why
    for problem in report.problems:
        why = f"plugin {problem.plugin} failed: {problem.problem}"
        yield "not checked", problem.node_id, problem.class_type, "", "", "", why
    for dropped in report.dropped:
        yield "left out", dropped.node_id, dropped.class_type, "", "", "", dropped.reason


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _warn(report: Report, *, written: bool) -> None:
    problems = []
    if report.unknown:
        classes = sorted({node.class_type for node in report.unknown})
        problems.append(f"{len(classes)} unknown node class{'es' if len(classes) > 1 else ''}: {', '.join(classes)}")
    if report.cannot_run:
        problems.append(f"{len(report.cannot_run)} that cannot run on a CPU")
    if report.problems:
        problems.append(f"{len(report.problems)} that a plugin failed on")
    print_warning(f"{'; '.join(problems)}{'; the workflow is written all the same' if written else ''}")
    if report.unknown:
        note("hint: install the plugin that has the class, or run the workflow on a ComfyUI (--object-info)")


def _write(document: dict[str, Any], path: Path) -> None:
    try:
        if path.exists() and (path.is_symlink() or not path.is_file()):
            # A device, a pipe, a link (/dev/stdout): what it leads to is written to. It must not become a file itself.
            path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        else:
            write_json(path, document, sort_keys=False)  # the order of nodes is part of a workflow
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}", remedy="name another file with -o") from None
