"""``comfy-cpu nodes list | install``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from comfy_cpu_core.cli.console import note, print_json, print_table, print_warning

if TYPE_CHECKING:
    from comfy_cpu_core.comfyui import Installation, Installed
    from comfy_cpu_core.plugins import Plugins
    from comfy_cpu_core.registry import NodeRegistry

__all__ = ["nodes"]


@dataclass(frozen=True)
class _Row:
    class_type: str
    display_name: str
    plugin: str | None
    distribution: str
    requires: str
    summary: str
    known: bool


@click.group()
def nodes() -> None:
    """See which node classes workflows may use here; bring ours into a ComfyUI."""


@nodes.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--workflow",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="List only the classes that this workflow uses, those that are unknown here included.",
)
def list_nodes(as_json: bool, workflow: Path | None) -> None:
    """List the node classes that plugins bring: what each is, where it comes from, what else it needs.

    \b
    Examples:
      comfy-cpu nodes list
      comfy-cpu nodes list --workflow workflow.json

    A workflow runs here if all its classes are in the list. The others need a ComfyUI, or a plugin that has them.
    """  # noqa: D301  # click needs a real backspace to keep the lines of a list
    from comfy_cpu_core.plugins import get_plugins
    from comfy_cpu_core.registry import get_registry
    from comfy_cpu_core.workflow import load

    plugins, registry = get_plugins(), get_registry()
    wanted = sorted(registry.classes)
    if workflow is not None:
        used = load(workflow, registry.signatures).nodes.values()
        wanted = sorted({node.class_type for node in used})
    rows = [_row(class_type, plugins, registry) for class_type in wanted]
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        print_table(
            ("class", "name", "plugin", "package", "needs"),
            [(r.class_type, r.display_name, r.plugin or "unknown", r.distribution, r.requires) for r in rows],
            empty="no plugin brings node classes",
        )
    for conflict in registry.conflicts:
        print_warning(
            f"{conflict.class_type} is taken from plugin {conflict.plugin}; {', '.join(conflict.others)} has it too"
        )
    for class_type in wanted:
        if class_type in registry.problems:
            print_warning(f"{class_type}: {registry.problems[class_type]}")


@nodes.command("install")
@click.argument("comfyui", metavar="COMFYUI_DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--python",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="The Python that runs that ComfyUI. Default: its venv, .venv or python_embeded.",
)
@click.option(
    "--extra",
    "extras",
    multiple=True,
    metavar="NAME",
    help="An extra of comfy-cpu-nodes to install, several times for several. Default: openvino.",
)
@click.option(
    "--find-links", multiple=True, metavar="DIR", help="Where pip looks for packages, beside where it always does."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be installed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def install_nodes(
    *,
    comfyui: Path,
    python: Path | None,
    extras: tuple[str, ...],
    find_links: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Install our nodes into a ComfyUI.

    The packages go into its Python, a small folder goes into its custom_nodes.

    \b
    Examples:
      comfy-cpu nodes install ~/ComfyUI
      comfy-cpu nodes install ~/ComfyUI --python /opt/venv/bin/python --extra onnxruntime

    Packages that are there already are not changed: where that cannot be, nothing is installed, and the error says
    which one. Run it again for a newer version; disabled_nodes.txt in the folder stays.
    """  # noqa: D301  # click needs a real backspace to keep the lines of a list
    from comfy_cpu_core.comfyui import DEFAULT_EXTRAS, find_comfyui, find_python, install, plan

    found = find_comfyui(comfyui.expanduser())
    planned = plan(found, python.expanduser() if python else find_python(found), extras=extras or DEFAULT_EXTRAS)
    version = ".".join(map(str, planned.python.version))
    note(f"ComfyUI {found.version or '?'} in {found.root}, Python {version} in {planned.python.path}")
    # pip takes from here what lies beside the user, and runs elsewhere.
    places = [str(Path(place).expanduser().absolute()) if Path(place).exists() else place for place in find_links]
    done = install(planned, find_links=places, dry_run=dry_run, on_line=_pip_line)
    if as_json:
        print_json(_installed(planned, done, dry_run=dry_run))
        return
    _tell(planned, done, dry_run=dry_run)


def _pip_line(line: str) -> None:
    if not line.startswith(("Requirement already satisfied", "Looking in ")):
        note(f"  {line}")


def _installed(planned: Installation, done: Installed, *, dry_run: bool) -> dict[str, Any]:
    return {
        "comfyui": {"root": str(planned.comfyui.root), "version": planned.comfyui.version},
        "python": str(planned.python.path),
        "dry_run": dry_run,
        "packages": [{"name": name, "version": version} for name, version in done.packages],
        "folder": str(done.folder) if done.folder else None,
        "classes": list(done.classes),
        "disabled": list(done.disabled),
        "missing": dict(done.missing),
    }


def _tell(planned: Installation, done: Installed, *, dry_run: bool) -> None:
    packages = ", ".join(f"{name} {version}" for name, version in done.packages) or "nothing new"
    if dry_run:
        click.echo(f"pip would install: {packages}")
        return
    click.echo(f"packages: {packages}")
    off = f", {len(done.disabled)} switched off" if done.disabled else ""
    click.echo(f"{done.folder}: {len(done.classes)} node classes{off}")
    for class_type, reason in done.missing.items():
        print_warning(f"{class_type} is not among them: {reason}")
    click.echo(f"Start ComfyUI again to see them. Models: comfy-cpu models fetch ID --models {planned.comfyui.models}")


def _row(class_type: str, plugins: Plugins, registry: NodeRegistry) -> _Row:
    node = registry.get(class_type)
    plugin = registry.plugin_of(class_type)
    distribution = next((info.distribution for info in plugins.infos() if info.name == plugin), "")
    if node is None:
        return _Row(class_type, "", None, "", "", "", known=False)
    known = class_type in registry.signatures
    return _Row(class_type, node.display_name, plugin, distribution, node.requires, node.summary, known)
