"""``/opt/comfy-cpu/image.json``: what an image says of itself, for `verify` and for whoever looks into it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from comfy_cpu_builder import layout

if TYPE_CHECKING:
    from comfy_cpu_builder.bake import BakedModel
    from comfy_cpu_builder.lock import Lock
    from comfy_cpu_builder.plan import Plan

__all__ = ["manifest_document", "manifest_models", "manifest_text", "models_root", "python_path"]

_FORMAT = 1


def models_root(target: str) -> str:
    """Where the model tree is in an image of that target."""
    return layout.MODELS if target == "engine" else f"{layout.COMFYUI}/models"


def python_path(target: str) -> str:
    """The Python that runs workflows in an image of that target."""
    return f"{layout.WORKER_BASE_VENV if target == 'worker-comfyui' else layout.VENV}/bin/python3"


def manifest_document(plan: Plan, lock: Lock, baked: tuple[BakedModel, ...] = ()) -> dict[str, Any]:
    """What the image says of itself. Fields are only ever added."""
    # The base's handler is served by RunPod's SDK, whose server has fewer paths than ours.
    sdk_serves = plan.worker_comfyui is not None and plan.worker_comfyui.handler == "base"
    return {
        "format": _FORMAT,
        "target": plan.target,
        "lock": lock.digest,
        "base": lock.base.reference,
        "platform": plan.platform,
        "python": python_path(plan.target),
        "models_root": models_root(plan.target),
        "workflows_root": layout.WORKFLOWS,
        "start_script": layout.START_SCRIPT,
        "handler": layout.HANDLER if sdk_serves else None,
        "sdk_serves": sdk_serves,
        "comfyui": layout.COMFYUI if plan.target != "engine" else None,
        "workflows": [
            {
                "name": workflow.name,
                "sha256": workflow.sha256,
                "class_types": sorted(workflow.class_types),
                "uploads": list(workflow.uploads),
            }
            for workflow in plan.workflows
        ],
        "models": manifest_models(lock),
        "baked": [
            {
                "model": model.model_id,
                "step": model.step,
                "instruction_sets": sorted(model.instruction_sets),
                "files": [{"target": f.target, "size": f.size, "sha256": f.sha256} for f in model.files],
            }
            for model in baked
        ],
        "packages": [{"name": package.name, "version": package.version} for package in lock.packages],
        "sources": [{"name": s.name, "source": s.source, "commit": s.commit} for s in lock.sources],
    }


def manifest_models(lock: Lock) -> list[dict[str, Any]]:
    """The models, as the manifest has them."""
    return [
        {
            "id": model.id,
            "source": model.source,
            "revision": model.revision,
            "licence": model.licence,
            "files": [{"target": f.target, "size": f.size, "sha256": f.sha256} for f in model.files],
        }
        for model in lock.models
    ]


def manifest_text(plan: Plan, lock: Lock, baked: tuple[BakedModel, ...] = ()) -> str:
    """The file's text."""
    return json.dumps(manifest_document(plan, lock, baked), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
