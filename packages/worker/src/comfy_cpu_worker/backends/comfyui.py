"""A ComfyUI as a back end: in a process of its own that is started again whenever it ends."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from comfy_cpu_core.errors import InputError, UsageError
from comfy_cpu_core.resources import get_resources, thread_environment
from comfy_cpu_worker.backends.comfyui_process import ComfyUIOptions, ComfyUIProcess
from comfy_cpu_worker.backends.kept import KeptBackend
from comfy_cpu_worker.backoff import Backoff
from comfy_cpu_worker.process import child_environ
from comfy_cpu_worker.workdir import sweep

if TYPE_CHECKING:
    from comfy_cpu_worker.settings import WorkerSettings

__all__ = ["ComfyUIBackend", "ComfyUIOptions"]

#: Where the reference's images have it.
_USUAL_PLACE = Path("/comfyui")


class ComfyUIBackend(KeptBackend):
    """Implements `comfy_cpu_worker.work.Backend`. Belongs to the event loop in which `start` is called.

    Args:
        options: how the process is run.
        environ: this process's environment; the child gets no secrets of it.
        workflows, backoff: see `KeptBackend`.
    """

    name: ClassVar[str] = "comfyui"
    what: ClassVar[str] = "ComfyUI"

    def __init__(
        self,
        options: ComfyUIOptions,
        *,
        environ: Mapping[str, str],
        workflows: Mapping[str, Mapping[str, Any]] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        super().__init__(workflows=workflows, wait_s=options.wait_s, backoff=backoff)
        self._options = options
        # No GPU is looked for, and the libraries' thread pools are as large as this machine lets them be.
        self._environ = child_environ(environ, CUDA_VISIBLE_DEVICES="", **thread_environment(get_resources()))

    @classmethod
    def from_settings(
        cls,
        settings: WorkerSettings,
        *,
        environ: Mapping[str, str],
        workflows: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Self:
        """The back end that the settings and the environment describe: ``COMFYUI_PYTHON`` names the Python that runs
        ComfyUI (else the one that lies where it usually does, else this one), ``COMFYUI_ARGS`` more of its arguments.

        Raises:
            UsageError: there is no ComfyUI, or the arguments make no sense.
        """
        from comfy_cpu_core.comfyui import find_comfyui

        place = settings.comfyui or _USUAL_PLACE
        try:
            root = find_comfyui(place).root
        except InputError as error:
            raise UsageError(str(error), remedy="name the directory of a ComfyUI: COMFYUI_PATH=DIR") from None
        try:
            arguments = tuple(shlex.split(environ.get("COMFYUI_ARGS", "")))
        except ValueError as error:
            raise UsageError(f"COMFYUI_ARGS cannot be read: {error}", remedy="quote as in a shell") from None
        options = ComfyUIOptions(
            root=root,
            python=_python(root, environ),
            models=settings.models,
            arguments=arguments,
            log_level=settings.log_level,
            memory_bytes=settings.memory_bytes,
            hang_s=settings.hang_s,
        )
        return cls(options, environ=environ, workflows=workflows)

    async def start(self) -> None:
        """See `KeptBackend.start`."""
        await asyncio.to_thread(sweep, self._options.workdir)
        await super().start()

    async def _start_process(self) -> ComfyUIProcess:
        return await ComfyUIProcess.start(self._options, self._environ)


def _python(root: Path, environ: Mapping[str, str]) -> Path:
    from comfy_cpu_core.comfyui import ComfyUI, find_python

    if named := environ.get("COMFYUI_PYTHON"):
        return Path(named).absolute()
    try:
        return find_python(ComfyUI(root, None)).absolute()
    except UsageError:  # one environment for both, as images have it
        return Path(sys.executable)
