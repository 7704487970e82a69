"""``comfy-cpu nodes list``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from comfy_cpu_core.cli.console import print_json, print_table, print_warning

if TYPE_CHECKING:
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
    """See which node classes workflows may use here."""


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


def _row(class_type: str, plugins: Plugins, registry: NodeRegistry) -> _Row:
    node = registry.get(class_type)
    plugin = registry.plugin_of(class_type)
    distribution = next((info.distribution for info in plugins.infos() if info.name == plugin), "")
    if node is None:
        return _Row(class_type, "", None, "", "", "", known=False)
    known = class_type in registry.signatures
    return _Row(class_type, node.display_name, plugin, distribution, node.requires, node.summary, known)
