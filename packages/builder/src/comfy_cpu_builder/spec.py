"""``comfy-cpu.toml``: what an image is to be, parsed once into frozen dataclasses.

Every field is checked here; an error names the field's path. A workflow alone is a spec, too (`spec_for_workflows`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from packaging.requirements import InvalidRequirement, Requirement

from comfy_cpu_builder import values
from comfy_cpu_builder.tables import Table
from comfy_cpu_core.errors import InputError
from comfy_cpu_core.image import NodePack
from comfy_cpu_core.models import ModelFile, ModelSpec

__all__ = [
    "LIMITS",
    "SPEC_NAME",
    "TARGETS",
    "ComfyUISettings",
    "ImageSpec",
    "SpecWorkflow",
    "TargetName",
    "WorkerBaseSettings",
    "read_spec",
    "spec_for_workflows",
]

TargetName = Literal["engine", "comfyui", "worker-comfyui"]
TARGETS: tuple[str, ...] = get_args(TargetName)

#: What a spec is called where nobody says otherwise.
SPEC_NAME = "comfy-cpu.toml"

#: The names in ``[limits]``, and what each is.
LIMITS = {
    "max_image_mb": "size of the image, uncompressed, in MB",
    "max_start_s": "seconds from the container's start until it takes jobs",
    "max_job_s": "seconds for a run of a workflow",
    "max_rss_mb": "memory that the container uses at most, in MB",
    "max_cost_usd": "what a run of a workflow costs, in USD",
}

_PYTHON = "3.11"


@dataclass(frozen=True)
class SpecWorkflow:
    """A workflow that the image is for.

    Attributes:
        path: the file.
        name: what jobs call it, and the baked file; the file's name without its ending if the spec names none.
        inputs: ``NODE.INPUT`` → file, for the run that verifies the image; a test picture where nothing is given.
        values: ``NODE.INPUT`` → value, for that run.
    """

    path: Path
    name: str
    inputs: Mapping[str, Path] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ComfyUISettings:
    """``[comfyui]``: the ComfyUI of target ``comfyui``.

    Attributes:
        source: its git repository.
        version: its tag.
        commit: what the tag must stand for, or None: then the lock records it.
        object_info: a file with what it answers under ``/object_info``; tells which classes it has itself.
        arguments: further arguments for its ``main.py``.
    """

    source: str = "https://github.com/comfyanonymous/ComfyUI"
    version: str = "v0.3.44"
    commit: str | None = None
    object_info: Path | None = None
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class WorkerBaseSettings:
    """``[worker_comfyui]``: the base of target ``worker-comfyui``.

    Attributes:
        version: of ``runpod/worker-comfyui``.
        handler: ``base`` for its own /handler.py, ``comfy-cpu`` for ours.
        torch: the versions of torch, torchvision and torchaudio that replace its CUDA builds.
    """

    version: str = "5.4.1"
    handler: Literal["base", "comfy-cpu"] = "base"
    torch: tuple[str, str, str] = ("2.5.0", "0.20.0", "2.5.0")


@dataclass(frozen=True)
class ImageSpec:
    """An image, as its author wants it.

    Attributes:
        path: the spec's file; None if it was made from workflows alone.
        workflows: at least one.
        target: None to choose: ``engine`` where that knows every node, else ``comfyui``.
        base: the base image; None for the target's own.
        tags: names for the image.
        platform, python: of the image.
        plugins: further distributions of comfy-cpu plugins that the image must have.
        apt, pip: further packages.
        index_urls: where pip looks beside its usual places while the lock is made.
        environment: further variables of the image.
        models: sources for what no plugin knows, or in place of what it says.
        node_packs: node packs that no plugin knows, or in place of what it says.
        bake: whether models are prepared at build time.
        instruction_sets: what the CPUs that the image will run on have, for baking.
        worker_extras: extras of comfy-cpu-worker.
        limits: see `LIMITS`.
        price_per_hour_usd: what an hour of the machine costs, for the cost of a job.
    """

    workflows: tuple[SpecWorkflow, ...]
    path: Path | None = None
    target: str | None = None
    base: str | None = None
    tags: tuple[str, ...] = ()
    platform: str = "linux/amd64"
    python: str = _PYTHON
    plugins: tuple[str, ...] = ()
    apt: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    index_urls: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    models: tuple[ModelSpec, ...] = ()
    node_packs: tuple[NodePack, ...] = ()
    bake: bool = False
    instruction_sets: frozenset[str] = frozenset()
    worker_extras: tuple[str, ...] = ("runpod",)
    comfyui: ComfyUISettings = ComfyUISettings()
    worker_comfyui: WorkerBaseSettings = WorkerBaseSettings()
    limits: Mapping[str, float] = field(default_factory=dict)
    price_per_hour_usd: float | None = None

    @property
    def lock_path(self) -> Path:
        """Where the spec's lock is: beside it, with the ending ``.lock``."""
        return self.path.with_suffix(".lock") if self.path else Path("comfy-cpu.lock")


def spec_for_workflows(paths: Iterable[Path], *, target: str | None = None, tags: tuple[str, ...] = ()) -> ImageSpec:
    """The spec that workflows alone stand for.

    Raises:
        InputError: two have the same name, or a name has characters that a file in the image cannot have.
    """
    document: dict[str, Any] = {"workflows": [str(path) for path in paths], "tags": list(tags)}
    if target is not None:
        document["target"] = target
    return _parse(document, "command line", None)


def read_spec(path: Path) -> ImageSpec:
    """Read a spec. Paths in it are relative to its directory.

    Raises:
        InputError: it cannot be read, or a field is wrong; the error names the field's path.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror or error}", remedy="name the spec of an image, or a workflow"
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"{path} is no TOML: {error}", remedy="see docs/images.md for what a spec looks like"
        ) from error
    return _parse(document, path.name, path)


def _parse(document: Mapping[str, Any], where: str, path: Path | None) -> ImageSpec:
    top = Table(document, where)
    folder = path.parent if path else Path()
    target = top.text("target", None)
    if target is not None and target not in TARGETS:
        raise top.error("target", f"there is no target {target!r}", f"known are: {', '.join(TARGETS)}")
    base = top.text("base", None, like=values.IMAGE_NAME, hint="python:3.11-slim or HOST/NAME:TAG@sha256:…")
    spec = ImageSpec(
        path=path,
        workflows=_workflows(top, folder),
        target=target,
        base=base,
        tags=top.texts("tags", like=values.TAG, hint="registry.example/me/image:1.0"),
        platform=top.text("platform", "linux/amd64", like=values.PLATFORM, hint="linux/amd64"),
        python=top.text("python", _PYTHON, like=values.PYTHON_VERSION, hint=_PYTHON),
        plugins=_requirements(top, "plugins"),
        apt=top.texts("apt", like=values.APT_PACKAGE, hint="libgomp1 or libgomp1=12.2.0-14"),
        pip=_requirements(top, "pip"),
        index_urls=top.texts("index_urls", like=values.URL, hint="https://HOST/simple"),
        environment=top.mapping("environment", _check_variable),
        models=tuple(_model(table) for table in top.tables("models")),
        node_packs=tuple(_node_pack(table) for table in top.tables("node_packs")),
        **_bake(top.table("bake")),
        worker_extras=_worker(top.table("worker")),
        comfyui=_comfyui(top.table("comfyui"), folder),
        worker_comfyui=_worker_comfyui(top.table("worker_comfyui")),
        **_limits(top),
    )
    top.done()
    return spec


def _workflows(top: Table, folder: Path) -> tuple[SpecWorkflow, ...]:
    """``workflows = ["a.json"]``, or ``[[workflows]]`` with the field ``path``."""
    listed = top.raw("workflows")
    if not isinstance(listed, list) or not listed:
        raise top.error("workflows", "must be a list of at least one workflow", 'write workflows = ["workflow.json"]')
    found: list[SpecWorkflow] = []
    for index, item in enumerate(listed):
        at = f"workflows[{index}]"
        if not isinstance(item, str | Mapping):
            raise top.error(at, "must be a path, or a table with a path")
        table = Table({"path": item} if isinstance(item, str) else item, top._where, at)
        path = folder / Path(table.text("path")).expanduser()
        name = table.text("name", None) or path.name.removesuffix(".json")
        if not values.NAME.fullmatch(name):
            raise table.error("name", f"{name!r} will not do here", "use letters, digits, '.', '_' and '-'")
        if any(name == other.name for other in found):
            raise table.error("name", f"two workflows are called {name!r}", "give one of them another name")
        inputs = {
            key: folder / Path(value).expanduser() for key, value in table.mapping("inputs", _check_input_file).items()
        }
        found.append(SpecWorkflow(path, name, inputs, table.mapping("set", _check_key)))
        table.done()
    return tuple(found)


def _model(table: Table) -> ModelSpec:
    """``[[models]]``: ``id``, ``source``, ``licence``, ``revision``, and either ``files`` or one ``path``, ``target``."""
    files = []
    tables = list(table.tables("files")) if table.has("files") else [table]
    for file in tables:
        target = file.text("target")
        sha256 = file.text("sha256", None, like=values.SHA256, hint="64 hexadecimal digits")
        size = file.count("size", None)
        try:
            files.append(ModelFile(file.text("path", Path(target).name), target, size=size, sha256=sha256))
        except ValueError as error:
            raise file.error("target", str(error)) from error
        if file is not table:
            file.done()
    try:
        model = ModelSpec(
            id=table.text("id", like=values.NAME, hint="my-model"),
            source=table.text("source"),
            files=tuple(files),
            licence=table.text("licence", "unknown"),
            revision=table.text("revision", None),
            notice=table.text("notice", ""),
        )
    except ValueError as error:
        raise table.error("id", str(error)) from error
    if not values.is_plain_text(model.source + model.licence + model.notice):
        raise table.error("source", "has characters that cannot be printed")
    table.done()
    return model


def _node_pack(table: Table) -> NodePack:
    pack = NodePack(
        name=table.text("name", like=values.NAME, hint="ComfyUI-KJNodes"),
        source=table.text("source", like=values.GIT_SOURCE, hint="https://HOST/OWNER/NAME"),
        classes=frozenset(table.texts("classes")),
        licence=table.text("licence", "unknown"),
        commit=table.text("commit", None, like=values.COMMIT, hint="40 hexadecimal digits"),
        requirements=_requirements(table, "requirements"),
        apt=table.texts("apt", like=values.APT_PACKAGE, hint="libgl1"),
    )
    table.done()
    return pack


def _bake(table: Table) -> dict[str, Any]:
    enabled = table.flag("enabled", table.has("instruction_sets"))
    sets = frozenset(table.texts("instruction_sets", like=values.NAME, hint="avx512f"))
    table.done()
    return {"bake": enabled, "instruction_sets": sets}


def _worker(table: Table) -> tuple[str, ...]:
    extras = table.texts("extras", like=values.NAME, hint="runpod") if table.has("extras") else ("runpod",)
    table.done()
    return extras


def _comfyui(table: Table, folder: Path) -> ComfyUISettings:
    default = ComfyUISettings()
    object_info = table.text("object_info", None)
    arguments = table.texts("arguments")
    if not all(values.is_plain_text(argument) for argument in arguments):
        raise table.error("arguments", "has characters that cannot be printed")
    settings = ComfyUISettings(
        source=table.text("source", default.source, like=values.GIT_SOURCE, hint="https://HOST/OWNER/NAME"),
        version=table.text("version", default.version, like=values.NAME, hint="v0.3.44"),
        commit=table.text("commit", None, like=values.COMMIT, hint="40 hexadecimal digits"),
        object_info=folder / Path(object_info).expanduser() if object_info else None,
        arguments=arguments,
    )
    table.done()
    return settings


def _worker_comfyui(table: Table) -> WorkerBaseSettings:
    default = WorkerBaseSettings()
    handler = table.text("handler", default.handler)
    if handler not in {"base", "comfy-cpu"}:
        raise table.error("handler", f"there is no handler {handler!r}", "write base or comfy-cpu")
    torch = table.texts("torch", like=values.NAME, hint="2.5.0") or default.torch
    if len(torch) != 3:
        raise table.error("torch", "must be three versions: of torch, torchvision and torchaudio")
    version = table.text("version", default.version, like=values.NAME, hint="5.4.1")
    table.done()
    return WorkerBaseSettings(version, handler, (torch[0], torch[1], torch[2]))


def _limits(top: Table) -> dict[str, Any]:
    table = top.table("limits")
    limits = {name: value for name in LIMITS if (value := table.number(name)) is not None}
    table.done()
    price = top.table("price")
    per_hour = price.number("per_hour_usd")
    price.done()
    if "max_cost_usd" in limits and per_hour is None:
        raise table.error("max_cost_usd", "there is no price to reckon with", "set price.per_hour_usd")
    return {"limits": limits, "price_per_hour_usd": per_hour}


def _requirements(table: Table, field_name: str) -> tuple[str, ...]:
    """Requirements in normal form. One that names a URL or a path is refused: a lock could not pin it."""
    found = []
    for index, text in enumerate(table.texts(field_name)):
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise table.error(f"{field_name}[{index}]", f"{text!r} is no requirement ({error})") from error
        if requirement.url:
            raise table.error(f"{field_name}[{index}]", "a URL cannot be locked", "name a package and its version")
        found.append(str(requirement))
    return tuple(found)


def _check_variable(name: str, value: Any) -> str | None:
    if not values.VARIABLE.fullmatch(name):
        return "this is no name of an environment variable"
    if not isinstance(value, str) or not values.is_plain_text(value):
        return "must be a text in one line"
    if any(word in name.upper() for word in ("TOKEN", "SECRET", "PASSWORD", "API_KEY")):
        return "a secret does not belong into an image: give it to the container when it starts"
    return None


def _check_key(name: str, value: Any) -> str | None:
    node, dot, input_name = name.partition(".")
    return None if node and dot and input_name else "write it as NODE.INPUT, in quotes"


def _check_input_file(name: str, value: Any) -> str | None:
    return _check_key(name, value) or (None if isinstance(value, str) and value else "must be a file")
