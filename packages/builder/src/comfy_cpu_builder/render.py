"""Render: from plan and lock to the files of a build context. Pure: no file is read but our own templates.

What is large (wheels, models, sources) is only named here; `context` brings it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from comfy_cpu_builder import layout, quoting
from comfy_cpu_builder.licences import licence_files
from comfy_cpu_builder.manifest import manifest_text, models_root, python_path
from comfy_cpu_builder.sbom import sbom_text

if TYPE_CHECKING:
    from comfy_cpu_builder.bake import BakedModel
    from comfy_cpu_builder.lock import Lock, LockedPackage, LockedSource
    from comfy_cpu_builder.plan import Plan
    from comfy_cpu_core.models import ModelSpec

__all__ = ["Rendered", "render"]

_EXECUTABLE = frozenset({layout.START_SCRIPT})


@dataclass(frozen=True)
class Rendered:
    """The files of a context.

    Attributes:
        files: path in the context → text.
        executables: those of them that are programs.
        models: go to ``models/ID.tar``, with their files below `models_root`.
        baked: go to ``models/ID.STEP.tar``.
        models_root: where the model tree is in the image.
        wheels: go to ``wheels/``.
        sources: go to ``sources/NAME.tar``.
    """

    files: Mapping[str, str]
    executables: frozenset[str]
    models: tuple[ModelSpec, ...]
    baked: tuple[BakedModel, ...]
    models_root: str
    wheels: tuple[LockedPackage, ...]
    sources: tuple[LockedSource, ...]


def render(plan: Plan, lock: Lock, *, baked: tuple[BakedModel, ...] = (), copy_link: bool = False) -> Rendered:
    """The files of the context for a plan, with what its lock pins.

    Args:
        baked: what was prepared of the models.
        copy_link: whether layers are linked (``--link``), which not every engine knows: a change below a model then
            leaves the model's layer as it is.

    Raises:
        BuildError: a value cannot stand in a Dockerfile or a start script.
    """
    values = _values(plan, lock, baked, copy_link=copy_link)
    image = {
        layout.START_SCRIPT: _template(f"start-{plan.target}.sh.j2", values),
        layout.MANIFEST: manifest_text(plan, lock, baked),
        layout.SBOM: sbom_text(plan, lock),
        layout.HEALTHCHECK: _template("healthcheck.py", {}),
        **{f"{layout.WORKFLOWS}/{workflow.name}.json": workflow.text for workflow in plan.workflows},
        **licence_files(lock),
    }
    files = {
        "Dockerfile": _template(f"Dockerfile.{plan.target}.j2", values),
        ".dockerignore": "# Everything here belongs to the image.\n",
        "wheels/requirements.txt": "".join(
            f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n" for package in lock.packages
        ),
        **{f"image{path}": text for path, text in image.items()},
        **{f"files{path}": text for path, text in plan.files.items()},
    }
    if plan.target == "worker-comfyui":
        files["tools/remove_cuda.py"] = _template("remove_cuda.py", {})
    return Rendered(
        files=dict(sorted(files.items())),
        executables=frozenset(f"image{path}" for path in _EXECUTABLE),
        models=lock.models,
        baked=baked,
        models_root=models_root(plan.target),
        wheels=(*lock.packages, lock.installer),
        sources=lock.sources,
    )


def _values(plan: Plan, lock: Lock, baked: tuple[BakedModel, ...], *, copy_link: bool) -> dict[str, Any]:
    return {
        "apt": plan.apt,
        "base": lock.base.reference,
        "comfyui": layout.COMFYUI,
        "commands": plan.commands,
        "environment": tuple(sorted({**_environment(plan), **plan.environment}.items())),
        "epoch": layout.SOURCE_DATE_EPOCH,
        "handler": plan.worker_comfyui.handler if plan.worker_comfyui else None,
        "handler_path": layout.HANDLER,
        "has_files": bool(plan.files),
        "healthcheck": layout.HEALTHCHECK,
        "home": layout.HOME,
        "installer": lock.installer.file,
        "labels": tuple(sorted(_labels(plan, lock).items())),
        "link": "--link " if copy_link else "",
        "lock_digest": lock.digest,
        "models": (*(model.id for model in lock.models), *(model.name for model in baked)),
        "plan": plan,
        "python": python_path(plan.target),
        "sources": tuple(source.name for source in lock.sources),
        "start_arguments": plan.start_arguments,
        "start_environment": tuple(sorted(plan.start_environment.items())),
        "start_script": layout.START_SCRIPT,
        "user": layout.USER_ID,
        "venv": layout.VENV,
    }


def _environment(plan: Plan) -> dict[str, str]:
    return {
        "COMFY_CPU_MODELS": models_root(plan.target),
        "COMFY_CPU_WORKFLOWS": layout.WORKFLOWS,
        "CUDA_VISIBLE_DEVICES": "",
        "FORCE_CUDA": "0",
        "HF_HUB_OFFLINE": "1",  # every model is in the image
        "HOME": layout.HOME,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _labels(plan: Plan, lock: Lock) -> dict[str, str]:
    licences = sorted({model.licence for model in lock.models})
    labels = {
        "org.opencontainers.image.base.name": lock.base.name,
        "org.opencontainers.image.title": f"comfy-cpu {plan.target}: {', '.join(w.name for w in plan.workflows)}",
        layout.label("lock"): f"sha256:{lock.digest}",
        layout.label("model-licences"): "; ".join(licences),
        layout.label("target"): plan.target,
        **{layout.label(f"workflow.{w.name}"): f"sha256:{w.sha256}" for w in plan.workflows},
    }
    if lock.base.digest:
        labels["org.opencontainers.image.base.digest"] = lock.base.digest
    return labels


@lru_cache(maxsize=1)
def _jinja() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("comfy_cpu_builder", "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - no HTML: each value goes through a filter for where it stands
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"argv": quoting.argv, "quoted": quoting.quoted, "shell": quoting.shell}
    return environment


def _template(name: str, values: Mapping[str, Any]) -> str:
    return str(_jinja().get_template(name).render(values))
