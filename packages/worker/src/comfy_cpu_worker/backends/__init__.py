"""What runs the workflows: the engine, or a ComfyUI, each in a process of its own."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comfy_cpu_worker.settings import WorkerSettings
    from comfy_cpu_worker.work import Backend

__all__ = ["open_backend"]

log = logging.getLogger(__name__)

#: Results of earlier runs that the engine keeps: less than its default, since jobs seldom bring the same picture twice.
RESULT_CACHE_BYTES = 64 * 2**20


def open_backend(settings: WorkerSettings) -> Backend:
    """Make the back end that the settings name; nothing is started.

    Raises:
        UsageError: there is no such directory of workflows, or no ComfyUI.
    """
    workflows = _workflows(settings) if settings.warm_up else {}
    if settings.backend == "comfyui":
        from comfy_cpu_worker.backends.comfyui import ComfyUIBackend

        return ComfyUIBackend.from_settings(settings, environ=os.environ, workflows=workflows)
    from comfy_cpu_worker.backends.engine import EngineBackend, EngineOptions

    options = EngineOptions(
        models=settings.models,
        cache_bytes=RESULT_CACHE_BYTES,
        memory_bytes=settings.memory_bytes,
        hang_s=settings.hang_s,
    )
    return EngineBackend(options, environ=os.environ, workflows=workflows)


def _workflows(settings: WorkerSettings) -> dict[str, dict[str, Any]]:
    """What is to be warmed up: the baked workflows that can be read."""
    from comfy_cpu_worker.errors import JobRejected
    from comfy_cpu_worker.shelf import Shelf

    shelf = Shelf(settings.workflows)
    found = {}
    for name in shelf.names():
        try:
            found[name] = shelf.get(name)
        except JobRejected as error:
            log.warning("not warmed up: %s", error)
    return found
