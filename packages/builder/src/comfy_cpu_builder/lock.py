"""``comfy-cpu.lock``: exactly what goes into an image. With it a build looks nothing up.

A lock is JSON, sorted, with one line per value, so that a change shows as what it is in a diff. It names no registry:
a file is known by its hash, wherever it comes from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_cpu_builder import values
from comfy_cpu_builder.tables import Table
from comfy_cpu_core.errors import BuildError, InputError
from comfy_cpu_core.files import write_json
from comfy_cpu_core.models import ModelFile, ModelSpec

if TYPE_CHECKING:
    from comfy_cpu_builder.plan import Plan

__all__ = [
    "Lock",
    "LockedBase",
    "LockedPackage",
    "LockedSource",
    "lock_text",
    "plan_digest",
    "read_lock",
    "require_fitting",
    "write_lock",
]

_FORMAT = 1


@dataclass(frozen=True)
class LockedBase:
    """The base image.

    Attributes:
        name: as a Dockerfile names it, without a digest.
        digest: of its manifest in the registry (``sha256:…``); None for an image that only this machine has.
        image_id: of its configuration, for such an image.
    """

    name: str
    digest: str | None = None
    image_id: str | None = None

    @property
    def reference(self) -> str:
        """What the Dockerfile builds from."""
        return f"{self.name}@{self.digest}" if self.digest else self.name


@dataclass(frozen=True)
class LockedPackage:
    """A Python package.

    Attributes:
        name: in normal form.
        file: the wheel's name.
        sha256: of the wheel.
        licence: what its metadata say.
    """

    name: str
    version: str
    file: str
    sha256: str
    licence: str = ""


@dataclass(frozen=True)
class LockedSource:
    """Somebody's source at one commit: ComfyUI or a node pack.

    Attributes:
        name: the node pack's folder, or ``ComfyUI``.
        sha256: of the archive that `comfy_cpu_builder.sources` makes of it.
    """

    name: str
    source: str
    commit: str
    sha256: str
    licence: str = ""


@dataclass(frozen=True)
class Lock:
    """What goes into an image.

    Attributes:
        plan: the digest of the plan that it was made for (`plan_digest`).
        base: the base image.
        packages: Python packages, by name.
        installer: pip itself, which installs them and does not stay.
        models: with revision, and size and hash of every file; by id.
        sources: ComfyUI and node packs, by name.
    """

    plan: str
    base: LockedBase
    packages: tuple[LockedPackage, ...]
    installer: LockedPackage
    models: tuple[ModelSpec, ...]
    sources: tuple[LockedSource, ...] = ()

    @property
    def digest(self) -> str:
        """The hash of its text: what the image says it was built from."""
        return hashlib.sha256(lock_text(self).encode()).hexdigest()


def plan_digest(plan: Plan) -> str:
    """The hash of all that a lock depends on. A workflow's values are not among it, what they make necessary is."""
    facts = {
        "target": plan.target,
        "base": plan.base,
        "platform": plan.platform,
        "python": plan.python,
        "requirements": plan.requirements,
        "models": [_model_document(model.spec) for model in plan.models],
        "node_packs": [[pack.name, pack.source, pack.commit] for pack in plan.node_packs],
        "comfyui": [plan.comfyui.source, plan.comfyui.version, plan.comfyui.commit] if plan.comfyui else None,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def lock_text(lock: Lock) -> str:
    """The lock's text."""
    return json.dumps(_document(lock), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write_lock(lock: Lock, path: Path) -> None:
    """Write the lock, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    write_json(path, _document(lock))


def read_lock(path: Path) -> Lock | None:
    """Read a lock; None if there is none.

    Raises:
        InputError: it cannot be read, or a field is wrong; the error names the field's path.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read: {error}", remedy="delete it, and make a new one with `comfy-cpu lock`"
        ) from error
    if not isinstance(document, Mapping):
        raise InputError(f"{path} is no lock", remedy="delete it, and make a new one with `comfy-cpu lock`")
    return _parse(document, path.name)


def require_fitting(lock: Lock, plan: Plan, path: Path) -> None:
    """Make sure that a lock is for this plan.

    Raises:
        BuildError: the spec, a workflow or a plugin has changed in what it needs since the lock was made.
    """
    if lock.plan == plan_digest(plan):
        return
    wanted, locked = {m.spec.id for m in plan.models}, {m.id for m in lock.models}
    changed = ", ".join(sorted(wanted ^ locked))
    raise BuildError(
        f"{path} was made for another plan{f' (models: {changed})' if changed else ''}",
        remedy="look at `comfy-cpu plan`, then make the lock anew with `comfy-cpu lock`",
    )


def _model_document(model: ModelSpec) -> dict[str, Any]:
    document = asdict(model)
    document["files"] = [{**asdict(file), "also": list(file.also)} for file in model.files]
    return document


def _document(lock: Lock) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "plan": lock.plan,
        "base": asdict(lock.base),
        "packages": [asdict(package) for package in sorted(lock.packages, key=lambda p: p.name)],
        "installer": asdict(lock.installer),
        "models": [_model_document(model) for model in sorted(lock.models, key=lambda m: m.id)],
        "sources": [asdict(source) for source in sorted(lock.sources, key=lambda s: s.name)],
    }


def _parse(document: Mapping[str, Any], where: str) -> Lock:
    top = Table(document, where)
    if (number := top.count("format")) != _FORMAT:
        raise top.error("format", f"{number} is not known here", "make the lock anew with `comfy-cpu lock`")
    base = top.table("base")
    lock = Lock(
        plan=top.text("plan", like=values.SHA256),
        base=LockedBase(
            name=base.text("name", like=values.IMAGE_NAME),
            digest=base.text("digest", None, like=values.IMAGE_DIGEST),
            image_id=base.text("image_id", None, like=values.IMAGE_DIGEST),
        ),
        packages=tuple(_package(table) for table in top.tables("packages")),
        installer=_package(top.table("installer")),
        models=tuple(_model(table) for table in top.tables("models")),
        sources=tuple(_source(table) for table in top.tables("sources")),
    )
    base.done()
    top.done()
    return lock


def _package(table: Table) -> LockedPackage:
    package = LockedPackage(
        name=table.text("name", like=values.NAME),
        version=table.text("version", like=values.PACKAGE_VERSION),
        file=table.text("file", like=values.WHEEL),
        sha256=table.text("sha256", like=values.SHA256),
        licence=table.text("licence", ""),
    )
    table.done()
    return package


def _model(table: Table) -> ModelSpec:
    files = []
    for file in table.tables("files"):
        try:
            files.append(
                ModelFile(
                    path=file.text("path"),
                    target=file.text("target"),
                    size=file.count("size"),
                    sha256=file.text("sha256", like=values.SHA256),
                    also=file.texts("also"),
                )
            )
        except ValueError as error:
            raise file.error("target", str(error)) from error
        file.done()
    try:
        model = ModelSpec(
            id=table.text("id"),
            source=table.text("source"),
            files=tuple(files),
            licence=table.text("licence"),
            revision=table.text("revision", None),
            notice=table.text("notice", ""),
        )
    except ValueError as error:
        raise table.error("id", str(error)) from error
    table.done()
    return model


def _source(table: Table) -> LockedSource:
    source = LockedSource(
        name=table.text("name", like=values.NAME),
        source=table.text("source", like=values.GIT_SOURCE),
        commit=table.text("commit", like=values.COMMIT),
        sha256=table.text("sha256", like=values.SHA256),
        licence=table.text("licence", ""),
    )
    table.done()
    return source
