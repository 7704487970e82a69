"""The steps of a build, one after the other; each is a command of its own, too."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from comfy_cpu_builder.bake import BakeCache, bake_all, plan_bakes
from comfy_cpu_builder.context import write_context
from comfy_cpu_builder.lock import Lock, read_lock, require_fitting, write_lock
from comfy_cpu_builder.locking import Places, Telling, fetch_all, make_lock
from comfy_cpu_builder.manifest import manifest_models, python_path
from comfy_cpu_builder.packages import WheelCache, default_cache, find_cuda
from comfy_cpu_builder.plan import TORCH, Plan, ask, choose_target, make_plan
from comfy_cpu_builder.registry import find_base
from comfy_cpu_builder.render import render
from comfy_cpu_builder.sources import SourceCache
from comfy_cpu_builder.spec import ImageSpec
from comfy_cpu_builder.verify import VerifyOptions
from comfy_cpu_builder.workflows import plan_workflow
from comfy_cpu_core.errors import BuildError, InputError
from comfy_cpu_core.fetch import Fetchers
from comfy_cpu_core.image import BuildEngine, BuildEvent, BuildRequest, ContainerRequest, ImageInfo
from comfy_cpu_core.tree import ModelTree

if TYPE_CHECKING:
    from comfy_cpu_core.plugins import Plugins

__all__ = [
    "BuildOptions",
    "base_packages",
    "build_context",
    "check_base",
    "lock_for",
    "open_places",
    "plan_for",
    "verify_options",
    "write_files",
    "written_context",
]


_LIST_PACKAGES = """
import json
from importlib import metadata
print(json.dumps({d.metadata["Name"]: d.version for d in metadata.distributions()}))
"""


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        network: what steps of the build may reach; None for nothing, but for what Debian packages need.
        build_args: proxies and the like.
        no_cache: whether to build everything anew.
        log: the file that takes all that the engine prints.
    """

    log: Path
    network: str | None = None
    build_args: Mapping[str, str] = field(default_factory=dict, repr=False)
    no_cache: bool = False


def plan_for(spec: ImageSpec, plugins: Plugins) -> Plan:
    """Read a spec's workflows, ask the plugins, and work out what goes into the image.

    Raises:
        InputError: a workflow is bad, or cannot run on a CPU.
        ModelError: a model cannot be resolved.
        UsageError, BuildError: plugins contradict each other, or give what cannot stand in an image.
    """
    from comfy_cpu_core.registry import NodeRegistry

    registry = NodeRegistry(plugins, object_info=_object_info(spec))
    workflows = [plan_workflow(wanted, plugins, registry) for wanted in spec.workflows]
    target = choose_target(spec, workflows)
    return make_plan(spec, target, workflows, ask(spec, target, workflows, plugins, registry))


def _object_info(spec: ImageSpec) -> Mapping[str, object] | None:
    path = spec.comfyui.object_info
    if path is None:
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"comfyui.object_info: {path} cannot be read: {error}",
            remedy="save what the ComfyUI answers under /object_info",
        ) from error
    if not isinstance(document, Mapping):
        raise InputError(f"comfyui.object_info: {path} is not what a ComfyUI answers under /object_info")
    return document


def open_places(models: Path, plugins: Plugins, find_links: tuple[str, ...] = ()) -> Places:
    """Where things are found and kept on this machine."""
    cache = default_cache(os.environ)
    return Places(ModelTree(models), Fetchers.of(plugins), WheelCache(cache), SourceCache(cache), find_links)


def lock_for(
    spec: ImageSpec, plan: Plan, places: Places, engine: BuildEngine | None, telling: Telling, *, anew: bool = False
) -> Lock:
    """The spec's lock: as it was written, or made now where there is none, and written.

    Args:
        engine: asked what the base image is, before its registry is.
        anew: make it, whatever is there.

    Raises:
        BuildError: the lock is for another plan, or something is not to be had.
    """
    path = spec.lock_path
    lock = None if anew else read_lock(path)
    if lock is not None:
        require_fitting(lock, plan, path)
        return lock
    installed = base_packages(plan, engine, telling.note)
    lock = make_lock(plan, places, lambda name: find_base(name, engine), telling, installed)
    write_lock(lock, path)
    telling.note(f"wrote {path}")
    return lock


def base_packages(plan: Plan, engine: BuildEngine | None, note: Callable[[str], None]) -> dict[str, str]:
    """The Python packages that a base brings and that stay, name → version: those that have nothing to do with CUDA.

    Raises:
        BuildError: the base cannot be asked.
    """
    if plan.target != "worker-comfyui":
        return {}
    if engine is None or not engine.features().runs_containers or engine.inspect(plan.base) is None:
        note(f"{plan.base} is not here: nobody knows which versions its Python packages have, and some may change")
        return {}
    container = engine.start(ContainerRequest(plan.base, command=("sleep", "infinity"), user="0"))
    try:
        done = container.execute((python_path(plan.target), "-c", _LIST_PACKAGES))
    finally:
        container.remove()
    if done.code:
        raise BuildError(f"{plan.base} has no {python_path(plan.target)}: {done.err.strip() or done.out.strip()}")
    found = {canonicalize_name(name): version for name, version in json.loads(done.out).items()}
    replaced = {*find_cuda(found), *(Requirement(text).name for text in plan.requirements), *TORCH}
    return {name: version for name, version in found.items() if name not in replaced}


def write_files(
    plan: Plan,
    lock: Lock,
    directory: Path,
    places: Places,
    plugins: Plugins,
    telling: Telling,
    *,
    copy_link: bool = False,
) -> Path:
    """Fetch what the lock names, bake what is to be baked, and write the build context.

    Raises:
        BuildError, ModelError: something is not to be had, or the directory cannot be written.
    """
    fetch_all(lock, plan, places, telling)
    steps = plan_bakes(lock.models, plugins, plan.instruction_sets) if plan.bake else []
    baked = bake_all(steps, places.tree, BakeCache(places.wheels.root), telling.note)
    return write_context(
        render(plan, lock, baked=baked, copy_link=copy_link),
        directory,
        tree=places.tree,
        wheels=places.wheels,
        sources=places.sources,
        progress=telling.checking,
    )


@contextmanager
def written_context(
    plan: Plan, lock: Lock, engine: BuildEngine, places: Places, plugins: Plugins, telling: Telling
) -> Iterator[Path]:
    """The build context for an engine, for the length of a block.

    Raises:
        BuildError: the base image is another than the lock's, or the context cannot be written.
        ModelError: a model is not to be had.
    """
    copy_link = engine.features().copy_link
    check_base(lock, engine)
    with tempfile.TemporaryDirectory(prefix="comfy-cpu-context-") as scratch:
        yield write_files(plan, lock, Path(scratch) / "context", places, plugins, telling, copy_link=copy_link)


def build_context(
    context: Path, plan: Plan, engine: BuildEngine, options: BuildOptions, on_event: Callable[[BuildEvent], None]
) -> ImageInfo:
    """Build the image of a context; give what came of it. It has no name yet.

    Raises:
        BuildError: a step failed.
    """
    options.log.unlink(missing_ok=True)
    request = BuildRequest(
        context=context,
        log=options.log,
        network=options.network or ("default" if plan.apt else "none"),
        platform=plan.platform if plan.platform != "linux/amd64" else None,
        build_args=options.build_args,
        no_cache=options.no_cache,
    )
    identity = engine.build(request, on_event)
    info = engine.inspect(identity)
    if info is None:
        raise BuildError(f"the engine built {identity}, and does not have it")
    return info


def verify_options(spec: ImageSpec, lock: Lock | None, plan: Plan | None = None) -> VerifyOptions:
    """What a spec, its lock and its plan say about verifying the image."""
    return VerifyOptions(
        inputs={workflow.name: workflow.inputs for workflow in spec.workflows},
        values={workflow.name: workflow.values for workflow in spec.workflows},
        models=None if lock is None else manifest_models(lock),
        workflows=None if plan is None else {workflow.name: workflow.sha256 for workflow in plan.workflows},
        limits=spec.limits,
        price_per_hour_usd=spec.price_per_hour_usd,
    )


def check_base(lock: Lock, engine: BuildEngine) -> None:
    """An image that only this machine has is known by its id; a Dockerfile can only give its name."""
    if lock.base.digest is not None or lock.base.image_id is None:
        return
    info = engine.inspect(lock.base.name)
    if info is None:
        raise BuildError(
            f"the base image {lock.base.name} is not here, and the lock knows it by its id alone",
            remedy="build the base first, or name one that a registry has",
        )
    if info.id != lock.base.image_id:
        raise BuildError(
            f"the base image {lock.base.name} is {info.id[:19]}… now, and the lock has {lock.base.image_id[:19]}…",
            remedy="accept it with `comfy-cpu lock`",
        )
