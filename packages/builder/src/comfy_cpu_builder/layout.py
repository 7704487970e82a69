"""Where things are in an image, and what the image says of itself."""

from __future__ import annotations

__all__ = [
    "COMFYUI",
    "HANDLER",
    "HEALTHCHECK",
    "HOME",
    "LICENCES",
    "MANIFEST",
    "MODELS",
    "ROOT",
    "SBOM",
    "SOURCE_DATE_EPOCH",
    "START_SCRIPT",
    "USER_ID",
    "VENV",
    "WORKER_BASE_VENV",
    "WORKFLOWS",
    "label",
]

ROOT = "/opt/comfy-cpu"
MODELS = f"{ROOT}/models"
WORKFLOWS = f"{ROOT}/workflows"
LICENCES = f"{ROOT}/licences"
SBOM = f"{ROOT}/sbom.cdx.json"
#: What the image says of itself: target, models with hashes, workflows, node classes. `verify` reads it.
MANIFEST = f"{ROOT}/image.json"
HEALTHCHECK = f"{ROOT}/healthcheck.py"
#: The virtual environment of the targets `engine` and `comfyui`.
VENV = f"{ROOT}/venv"

COMFYUI = "/comfyui"
HANDLER = "/handler.py"
START_SCRIPT = "/start.sh"
#: The virtual environment of ``runpod/worker-comfyui``.
WORKER_BASE_VENV = "/opt/venv"

#: The user that an image runs as: no name of the host, no rights.
USER_ID = 10001
#: All that this user can write, where the root file system is read-only.
HOME = "/tmp"  # noqa: S108 - inside the image

#: The time of every file that a context or an image has from us: 1 January 2020, UTC.
SOURCE_DATE_EPOCH = 1577836800

_LABELS = "io.github.comfy-cpu"


def label(name: str) -> str:
    """The name of one of our image labels."""
    return f"{_LABELS}.{name}"
