"""``comfy-cpu models list | fetch | verify``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from comfy_cpu_core.cli.console import note, print_error, print_json, print_table, print_warning
from comfy_cpu_core.cli.options import models_option

if TYPE_CHECKING:
    from comfy_cpu_core.fetch import FetchReport
    from comfy_cpu_core.models import ModelSpec
    from comfy_cpu_core.plugins import Plugins
    from comfy_cpu_core.tree import ModelTree
    from comfy_cpu_core.verify import FileCheck, ModelState

__all__ = ["models"]

_ids = click.argument("ids", metavar="[ID]...", nargs=-1)
_workflow = click.option(
    "--workflow", type=click.Path(path_type=Path), metavar="FILE", help="The models that this workflow needs."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("models")
def models() -> None:
    """See, fetch and verify model files."""


@models.command("list")
@_workflow
@models_option
@_json
def list_models(*, workflow: Path | None, models: Path, as_json: bool) -> None:
    """List the models that the plugins know, and where each stands.

    \b
    verified   every file was hashed and is right
    present    every file is there; `comfy-cpu models verify` hashes it
    installed  part of an installed Python package
    partial    some files are missing, or a fetch was cut off
    missing    nothing is there
    wrong      a file is not what it should be

    "unresolved" means that nobody has checked yet: the first fetch records what it gets.
    """  # noqa: D301  # click needs a real backspace to keep the lines of a list
    from comfy_cpu_core.cli.progress import byte_size
    from comfy_cpu_core.plugins import get_plugins
    from comfy_cpu_core.records import pin, read_record
    from comfy_cpu_core.tree import ModelTree
    from comfy_cpu_core.verify import model_state

    plugins, tree = get_plugins(), ModelTree(models)
    specs = _choose(plugins, (), workflow, every=workflow is None)
    known = [pin(spec, read_record(tree, spec.id)) for spec in specs]
    states = [model_state(spec, tree) for spec in specs]
    if as_json:
        rows = zip(specs, known, states, strict=True)
        print_json({"models": str(tree.root), "list": [_listed(tree, *row) for row in rows]})
        return
    note(f"model tree: {tree.root}")
    print_table(
        ("model", "state", "size", "licence", "source", "revision"),
        [
            (
                spec.id,
                state,
                "unresolved" if spec.size is None else byte_size(spec.size),
                spec.licence,
                spec.source,
                (spec.revision or "unresolved") + (" (recorded)" if spec != named else ""),
            )
            for named, spec, state in zip(specs, known, states, strict=True)
        ],
        empty="no models",
    )


@models.command("fetch")
@_ids
@_workflow
@click.option("--all", "every", is_flag=True, help="Every model that a plugin knows.")
@click.option("--force", is_flag=True, help="Fetch again over what is there, and record anew what is unresolved.")
@models_option
@_json
def fetch_models(
    *, ids: tuple[str, ...], workflow: Path | None, every: bool, force: bool, models: Path, as_json: bool
) -> None:
    """Fetch models into the model tree.

    An earlier fetch that was cut off is taken up where it stopped. Every file is compared with its size and SHA-256 before it is put into place. HF_TOKEN, HF_ENDPOINT,
    HF_HUB_OFFLINE and HF_HUB_CACHE are honoured.
    """
    from comfy_cpu_core.cli.progress import byte_size, file_progress
    from comfy_cpu_core.errors import ModelError, UsageError
    from comfy_cpu_core.fetch import Fetchers, fetch_model
    from comfy_cpu_core.plugins import get_plugins
    from comfy_cpu_core.tree import ModelTree

    if not (ids or workflow or every):
        raise UsageError("which models?", remedy="name them, or give --workflow FILE or --all")
    plugins, tree = get_plugins(), ModelTree(models)
    fetchers = Fetchers.of(plugins)
    reports: list[FetchReport] = []
    errors: list[ModelError] = []
    for spec in _choose(plugins, ids, workflow, every=every):
        note(f"{spec.id}: {byte_size(spec.size)} from {spec.source}, licence: {spec.licence}")
        if spec.notice:
            print_warning(f"{spec.id}: {spec.notice}")
        try:
            with file_progress() as shown:
                report = fetch_model(
                    spec,
                    tree,
                    fetchers,
                    progress=shown.fetching,
                    checking=shown.checking,
                    note=shown.note,
                    force=force,
                )
        except ModelError as error:
            errors.append(error)
            continue
        reports.append(report)
        _tell(report)
    if as_json:
        print_json(
            {
                "models": str(tree.root),
                "fetched": [report.to_json() for report in reports],
                "errors": [{"message": str(error), "remedy": error.remedy} for error in errors],
            }
        )
    for earlier in errors[:-1]:
        print_error(str(earlier), earlier.remedy)
    if errors:
        raise errors[-1]


@models.command("verify")
@_ids
@click.option("--full", is_flag=True, help="Hash again what was hashed before and has not changed since.")
@models_option
@_json
def verify_models(*, ids: tuple[str, ...], full: bool, models: Path, as_json: bool) -> None:
    """Compare model files with their hashes.

    The exit code is 4 if one is wrong. Without an ID: every model of which something is there. Of a model that is named, or partly there, a missing file
    is wrong too. "unrecorded" means that nothing is known to compare with.
    """
    from comfy_cpu_core.cli.progress import file_progress
    from comfy_cpu_core.errors import ModelCorrupt
    from comfy_cpu_core.plugins import get_plugins
    from comfy_cpu_core.tree import ModelTree
    from comfy_cpu_core.verify import verify_model

    plugins, tree = get_plugins(), ModelTree(models)
    checks: list[tuple[ModelSpec, FileCheck]] = []
    with file_progress() as shown:
        for spec in _choose(plugins, ids, None, every=not ids):
            of_model = verify_model(spec, tree, progress=shown.checking, full=full)
            if ids or any(check.state != "missing" for check in of_model):
                checks.extend((spec, check) for check in of_model)
    bad = [(spec, check) for spec, check in checks if check.wrong or check.state == "missing"]
    if as_json:
        print_json(
            {
                "models": str(tree.root),
                "ok": not bad,
                "files": [{"model": spec.id, **_describe(check)} for spec, check in checks],
            }
        )
    else:
        note(f"model tree: {tree.root}")
        print_table(
            ("model", "file", "state"),
            [(spec.id, check.target, check.state) for spec, check in checks],
            empty="no model is there",
        )
    if bad:
        spec, check = bad[0]
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        again = " --force" if any(check.wrong for _, check in bad) else ""
        raise ModelCorrupt(
            f"model {spec.id}: {check.path or check.target} {check.describe()}{more}",
            remedy=f"fetch again: `comfy-cpu models fetch {' '.join(sorted({s.id for s, _ in bad}))}{again}`",
        )


def _choose(plugins: Plugins, ids: Iterable[str], workflow: Path | None, *, every: bool) -> list[ModelSpec]:
    """The models that a command is about, each once, in the order in which they were named.

    Raises:
        UsageError: no plugin knows a model of that name.
        WorkflowError: the workflow cannot be read.
    """
    from comfy_cpu_core.errors import UsageError
    from comfy_cpu_core.needs import known_models

    known = known_models(plugins)
    chosen: dict[str, ModelSpec] = dict(known) if every else {}
    for name in ids:
        if name not in known:
            raise UsageError(f"no plugin knows a model {name!r}", remedy=f"known are: {', '.join(known) or 'none'}")
        chosen[name] = known[name]
    if workflow is not None:
        chosen.update(_of_workflow(plugins, workflow))
    return list(chosen.values())


def _of_workflow(plugins: Plugins, workflow: Path) -> dict[str, ModelSpec]:
    from comfy_cpu_core.needs import models_for_prompt
    from comfy_cpu_core.registry import get_registry
    from comfy_cpu_core.workflow import load

    found: dict[str, ModelSpec] = {}
    for need in models_for_prompt(load(workflow, get_registry().signatures).nodes.values(), plugins):
        if need.spec is not None:
            found[need.spec.id] = need.spec
            continue
        print_warning(f"node {need.node_id} ({need.class_type}): no known model fits; {need.need.reason}")
    return found


def _tell(report: FetchReport) -> None:
    at = f" at {report.revision}" if report.revision else ""
    if not report.fetched:
        note(f"{report.model}: is there and right{at}")
    else:
        note(f"{report.model}: fetched{at} in {report.seconds:.1f} s, sizes and hashes compared")
    if report.recorded:
        note(f"{report.model}: unresolved so far, now recorded in {report.record}: {', '.join(report.recorded)}")


def _listed(tree: ModelTree, named: ModelSpec, known: ModelSpec, state: ModelState) -> dict[str, Any]:
    """A model for `list --json`.

    Args:
        named: as its plugin has it.
        known: the same with what a fetch recorded.
    """
    return {
        "id": named.id,
        "state": state,
        "size": known.size,
        "licence": named.licence,
        "notice": named.notice,
        "source": named.source,
        "revision": known.revision,
        "recorded": known != named,
        "files": [
            {"target": f.target, "path": str(tree.path(f.target)), "size": f.size, "sha256": f.sha256}
            for f in known.files
        ],
    }


def _describe(check: FileCheck) -> dict[str, Any]:
    return {**vars(check), "path": None if check.path is None else str(check.path)}
