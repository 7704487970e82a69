"""The hooks of comfy-cpu: everything that a plugin can add.

A plugin is a module (or object) that is registered under the entry-point group ``comfy_cpu`` and implements some of
these functions with `hookimpl`. All are called with keyword arguments only, and an implementation may leave out the
arguments that it does not need. Results are sorted by the core; the order in which plugins were found decides nothing.
A plugin must not load models or import heavy libraries when it is imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from comfy_cpu_core.convert import CannotRun, InputChange
    from comfy_cpu_core.fetchers import FetcherType
    from comfy_cpu_core.models import ModelNeed, ModelSpec
    from comfy_cpu_core.nodes import NodeClass
    from comfy_cpu_core.results import TargetType
    from comfy_cpu_core.workflow import PromptNode

__all__ = ["PROJECT", "hookimpl", "hookspec"]

#: pluggy's project name, and the entry-point group of plugins.
PROJECT = "comfy_cpu"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def comfy_cpu_node_classes() -> Iterable[NodeClass]:  # type: ignore[empty-body]
    """Contribute node classes: ComfyUI V1 classes that take numpy arrays as well as torch tensors.

    Called once per process, when a workflow is first read or nodes are listed; never for ``--help``. Results of all
    plugins are put together by class_type. If two plugins bring the same class_type, the one whose plugin name comes
    first in the alphabet wins, and ``nodes list`` and ``plugins list`` say so. An exception makes the plugin count as
    broken: its nodes are unknown, and ``plugins list`` shows why.

    Example::

        @hookimpl
        def comfy_cpu_node_classes():
            from my_nodes import Sharpen

            return [NodeClass("Sharpen", Sharpen, "Sharpen (mine)")]
    """


@hookspec
def comfy_cpu_models() -> Iterable[ModelSpec]:  # type: ignore[empty-body]
    """Contribute the models of a family: where they come from and where they go in the model tree.

    Called whenever models are listed, fetched or looked for; must be quick and do no I/O. Results are put together by
    id; the same id from two plugins is an error that names both.

    Example::

        @hookimpl
        def comfy_cpu_models():
            return [
                ModelSpec(
                    id="ben2-base",
                    source="hf:PramaLLC/BEN2",
                    licence="MIT",
                    files=(ModelFile("BEN2_Base.onnx", "ben2_onnx/BEN2_Base.onnx", size=222_932_053),),
                )
            ]
    """


@hookspec
def comfy_cpu_models_for_node(node: PromptNode) -> Iterable[ModelNeed]:  # type: ignore[empty-body]
    """Say which models a node of a workflow needs.

    Called once per node of a workflow, for ``models fetch --workflow`` and before a run, so that a missing model is
    found in the first second and not in the last minute. Give nothing for a node that is not yours. Results of all
    plugins are joined; a model that two plugins name is needed once.

    Example::

        @hookimpl
        def comfy_cpu_models_for_node(node):
            return [ModelNeed("ben2-base")] if node.class_type == "BEN2_ONNX_RemoveBg" else []
    """


@hookspec
def comfy_cpu_convert_node(node: PromptNode) -> Iterable[InputChange | CannotRun]:  # type: ignore[empty-body]
    """Say what must change in a node so that it runs on a CPU, and why; or that it cannot.

    Called once per node of a workflow that is converted, in the order of node ids, before it is validated. Must not
    change its argument. Changes of all plugins are applied in the order of plugin names; two that set the same input
    to different values are an error that names both. Every change lands in the report that the user sees.

    Example::

        @hookimpl
        def comfy_cpu_convert_node(node):
            if node.class_type == "MyNode" and node.widget("device") == "cuda":
                return [InputChange("device", "cpu", "there is no CUDA on a CPU machine")]
            return []
    """


@hookspec
def comfy_cpu_fetchers() -> Iterable[FetcherType]:  # type: ignore[empty-body]
    """Contribute a way to get models from a kind of source, by the scheme of its URI.

    Called once per command that fetches. Two plugins with the same scheme are an error that names both.

    Example::

        @hookimpl
        def comfy_cpu_fetchers():
            return [FetcherType("s3", open=S3Fetcher, online=True, summary="an S3 bucket")]
    """


@hookspec
def comfy_cpu_targets() -> Iterable[TargetType]:  # type: ignore[empty-body]
    """Contribute a kind of target: a place where the client can run a workflow.

    Called when a `Client` is made and for ``run --help``. Two plugins with the same scheme are an error that names
    both.

    Example::

        @hookimpl
        def comfy_cpu_targets():
            return [TargetType("embedded", open=open_embedded, summary="in this process")]
    """


@hookspec
def comfy_cpu_commands() -> Iterable[click.Command]:  # type: ignore[empty-body]
    """Contribute commands to the command line.

    Called at every start of ``comfy-cpu``, ``--help`` included: import what the command needs inside its function.
    A name that is taken already is an error that names both plugins.

    Example::

        @hookimpl
        def comfy_cpu_commands():
            return [my_command]
    """
