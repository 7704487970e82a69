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
    from comfy_cpu_core.image import (
        BakeStep,
        BuildEngineType,
        ImageCheck,
        ImageRequest,
        ImageStep,
        NodePack,
        StartPart,
    )
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
def comfy_cpu_node_packs() -> Iterable[NodePack]:  # type: ignore[empty-body]
    """Contribute node packs of others: where node classes come from that only a ComfyUI can run.

    Called once per plan of an image with a ComfyUI; must be quick and do no I/O. A pack goes into the image if a
    workflow uses one of its classes that no plugin brings. Two packs with the same name, or with the same class, are an
    error that names both; a ``[[node_packs]]`` of the spec goes before a plugin's.

    Example::

        @hookimpl
        def comfy_cpu_node_packs():
            return [
                NodePack(
                    "ComfyUI-KJNodes",
                    source="https://github.com/kijai/ComfyUI-KJNodes",
                    classes=frozenset({"ImageConcatMulti"}),
                    licence="GPL-3.0-only",
                )
            ]
    """


@hookspec
def comfy_cpu_image_steps(image: ImageRequest) -> Iterable[ImageStep]:  # type: ignore[empty-body]
    """Say what must be in an image beside its models and node classes.

    Called once per plan. Give nothing for an image whose workflows are not yours. Steps of all plugins are carried out
    in the order of their names; two with the same name, or with different values for one variable or file, are an error
    that names both. An exception ends the build.

    Example::

        @hookimpl
        def comfy_cpu_image_steps(image):
            return [ImageStep("llama", apt=("libgomp1",))] if "LocalLLMLoader_AdvV2" in image.class_types else []
    """


@hookspec
def comfy_cpu_start_script(image: ImageRequest) -> Iterable[StartPart]:  # type: ignore[empty-body]
    """Say what an image's start script must set before the worker starts, and with which arguments that starts.

    Called once per plan. Parts of all plugins come in the order of their names; two with the same name, or with
    different values for one variable, are an error that names both. What the container's user has set goes before.

    Example::

        @hookimpl
        def comfy_cpu_start_script(image):
            return [StartPart("my-family", environment={"MY_FAMILY_CACHE": "0"})]
    """


@hookspec
def comfy_cpu_bake(model: ModelSpec) -> Iterable[BakeStep]:  # type: ignore[empty-body]
    """Say how a model can be prepared at build time, so that a container starts faster.

    Called once per model of an image that is to be baked. Every step is optional: what it makes is compared with the
    unbaked model and left out, with a warning, where it differs or fails. Steps are carried out in the order of model
    and name.

    Example::

        @hookimpl
        def comfy_cpu_bake(model):
            if model.id != "ben2-base":
                return []
            baking = "comfy_cpu_nodes.runtimes.baking"
            return [BakeStep("openvino", model.id, f"{baking}:bake_onnx", f"{baking}:verify_onnx")]
    """


@hookspec
def comfy_cpu_checks() -> Iterable[ImageCheck]:  # type: ignore[empty-body]
    """Contribute checks of a finished image, for ``comfy-cpu verify`` and the end of a build.

    Called once per verification. All checks are carried out, in the order of their names, and their findings printed;
    one that is not ok fails the verification, and so does a check that raises. Two with the same name are an error that
    names both.

    Example::

        @hookimpl
        def comfy_cpu_checks():
            def no_pickles(facts):
                listed = facts.outputs["no-pickles"][0].out.splitlines()
                return [Finding(not listed, f"{len(listed)} pickles among the models")]

            find = ("find", "/opt/comfy-cpu/models", "-name", "*.pkl")
            return [ImageCheck("no-pickles", "no model is a pickle", no_pickles, commands=(find,))]
    """


@hookspec
def comfy_cpu_build_engines() -> Iterable[BuildEngineType]:  # type: ignore[empty-body]
    """Contribute an engine: what builds, runs and pushes images.

    Called once per command that needs one. Two plugins with the same name are an error that names both. Where the
    user asks for none, the one with the lowest rank is taken whose program is installed.

    Example::

        @hookimpl
        def comfy_cpu_build_engines():
            return [BuildEngineType("kaniko", open_kaniko, "Kaniko", rank=50, installed=lambda environ: True)]
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
