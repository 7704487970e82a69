"""Making a lock: ask the registry, pip, git and the models' sources once, and write down what they say."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from comfy_cpu_builder import layout
from comfy_cpu_builder.lock import Lock, LockedBase, LockedSource, plan_digest
from comfy_cpu_builder.packages import WheelCache, gather, resolve
from comfy_cpu_builder.sources import SourceCache, find_commit
from comfy_cpu_core.errors import BuildError
from comfy_cpu_core.fetch import Fetchers, FetchReport, fetch_model
from comfy_cpu_core.models import ModelSpec
from comfy_cpu_core.records import pin, read_record
from comfy_cpu_core.tree import ModelTree

if TYPE_CHECKING:
    from comfy_cpu_builder.plan import Plan

__all__ = ["COMFYUI", "Places", "Telling", "fetch_all", "make_lock", "source_place"]

#: What ComfyUI itself is called among the sources.
COMFYUI = "ComfyUI"


class Telling(Protocol):
    """Who is told of progress: `comfy_cpu_core.cli.progress.FileProgress`."""

    def fetching(self, target: str, done: int, total: int | None) -> None:
        """Bytes of a file are there."""

    def checking(self, target: str, done: int, total: int | None) -> None:
        """Bytes of a file are hashed."""

    def note(self, message: str) -> None:
        """Something that the user should know."""


@dataclass(frozen=True)
class Places:
    """Where things are found and kept on this machine.

    Attributes:
        tree: the model tree.
        fetchers: get models into it.
        wheels, sources: caches.
        find_links: where pip looks beside its usual places.
    """

    tree: ModelTree
    fetchers: Fetchers
    wheels: WheelCache
    sources: SourceCache
    find_links: tuple[str, ...] = ()


def make_lock(
    plan: Plan,
    places: Places,
    find_base: Callable[[str], LockedBase],
    telling: Telling,
    installed: Mapping[str, str] = MappingProxyType({}),
) -> Lock:
    """Pin everything that a plan names.

    Args:
        find_base: what an image's name stands for.
        installed: the Python packages that the base has, where they are known.

    Raises:
        BuildError: the base, a package or a source is not to be had.
        ModelError: a model is not to be had.
    """
    base = find_base(plan.base)
    sources = _sources(plan, places, telling.note)
    packages, installer = resolve(
        [*plan.requirements, *_comfyui_requirements(plan, places, sources)],
        python=plan.python,
        platform=plan.platform,
        cache=places.wheels,
        installed=installed,
        index_urls=plan.index_urls,
        find_links=places.find_links,
        note=telling.note,
    )
    return Lock(
        plan=plan_digest(plan),
        base=base,
        packages=packages,
        installer=installer,
        models=tuple(_pin_model(model.spec, places, telling) for model in plan.models),
        sources=sources,
    )


def fetch_all(lock: Lock, plan: Plan, places: Places, telling: Telling) -> None:
    """Make sure that everything that a lock names is on this machine. What is there is not asked for.

    Raises:
        BuildError, ModelError: something is not to be had as the lock has it.
    """
    for model in lock.models:
        _fetch(model, places, telling)
    gather(
        (*lock.packages, lock.installer),
        python=plan.python,
        platform=plan.platform,
        cache=places.wheels,
        index_urls=plan.index_urls,
        find_links=places.find_links,
        note=telling.note,
    )
    for source in lock.sources:
        places.sources.get(source.name, source.source, source.commit, source_place(source.name), note=telling.note)
        places.sources.require(source)


def source_place(name: str) -> str:
    """Where a source goes in the image."""
    return layout.COMFYUI if name == COMFYUI else f"{layout.COMFYUI}/custom_nodes/{name}"


def _pin_model(spec: ModelSpec, places: Places, telling: Telling) -> ModelSpec:
    """The model with revision, sizes and hashes. The source is asked, and files are fetched, only for what is open."""
    known = pin(spec, read_record(places.tree, spec.id))
    if all(file.size is not None and file.sha256 is not None for file in known.files):
        return known
    report = _fetch(spec, places, telling)
    got = {file.target: file for file in report.files}
    files = tuple(replace(f, size=got[f.target].size, sha256=got[f.target].sha256) for f in spec.files)
    return replace(spec, revision=report.revision, files=files)


def _fetch(spec: ModelSpec, places: Places, telling: Telling) -> FetchReport:
    return fetch_model(
        spec,
        places.tree,
        places.fetchers,
        progress=telling.fetching,
        checking=telling.checking,
        note=telling.note,
    )


def _sources(plan: Plan, places: Places, note: Callable[[str], None]) -> tuple[LockedSource, ...]:
    found = []
    if plan.comfyui is not None:
        commit = plan.comfyui.commit or find_commit(plan.comfyui.source, plan.comfyui.version)
        found.append(
            places.sources.get(
                COMFYUI, plan.comfyui.source, commit, source_place(COMFYUI), licence="GPL-3.0-only", note=note
            )
        )
    for pack in plan.node_packs:
        commit = pack.commit or find_commit(pack.source, "HEAD")
        found.append(
            places.sources.get(pack.name, pack.source, commit, source_place(pack.name), licence=pack.licence, note=note)
        )
    return tuple(found)


def _comfyui_requirements(plan: Plan, places: Places, sources: Sequence[LockedSource]) -> list[str]:
    """What ComfyUI's own requirements.txt asks for, at the locked commit."""
    for source in sources:
        if source.name != COMFYUI:
            continue
        name = f"{layout.COMFYUI.lstrip('/')}/requirements.txt"
        with tarfile.open(places.sources.require(source)) as archive:
            member = archive.extractfile(name)
            if member is None:
                raise BuildError(f"{source.source} has no requirements.txt")
            lines = [line.partition("#")[0].strip() for line in member.read().decode().splitlines()]
        return [line for line in lines if line]
    return []
