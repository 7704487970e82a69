"""``comfy-cpu plugins list``."""

from __future__ import annotations

import click

from comfy_cpu_core.cli.console import print_json, print_table

__all__ = ["plugins"]


@click.group()
def plugins() -> None:
    """See which plugins are installed and whether they work."""


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_plugins(as_json: bool) -> None:
    """List every plugin: its package, its hooks, and what is wrong with it.

    COMFY_CPU_DISABLED_PLUGINS (names, separated by commas) leaves plugins out.
    """
    from comfy_cpu_core.plugins import get_plugins
    from comfy_cpu_core.registry import NodeRegistry

    found = get_plugins()
    # Ask the hooks that take no arguments, so that a plugin that breaks when it is used shows up here.
    for hook in ("comfy_cpu_models", "comfy_cpu_fetchers", "comfy_cpu_targets"):
        found.collect(hook)
    len(NodeRegistry(found).signatures)  # reads them all, and notes the node classes that two plugins bring
    infos = found.infos()
    if as_json:
        print_json([vars(info) for info in infos])
        return
    print_table(
        ("plugin", "package", "version", "state", "hooks"),
        [
            (i.name, i.distribution, i.version, i.state + (f": {i.problem}" if i.problem else ""), ", ".join(i.hooks))
            for i in infos
        ],
    )
