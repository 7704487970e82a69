"""The engine as a back end: in a process of its own that is started again whenever it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar

from comfy_cpu_worker.backends.engine_process import EngineOptions, EngineProcess
from comfy_cpu_worker.backends.kept import KeptBackend
from comfy_cpu_worker.backoff import Backoff
from comfy_cpu_worker.process import child_environ
from comfy_cpu_worker.workdir import sweep

__all__ = ["EngineBackend", "EngineOptions"]


class EngineBackend(KeptBackend):
    """Implements `comfy_cpu_worker.work.Backend`. Belongs to the event loop in which `start` is called.

    Args:
        options: how the process is run.
        environ: this process's environment; the child gets no secrets of it.
        workflows, backoff: see `KeptBackend`.
    """

    name: ClassVar[str] = "engine"
    what: ClassVar[str] = "the engine"

    def __init__(
        self,
        options: EngineOptions,
        *,
        environ: Mapping[str, str],
        workflows: Mapping[str, Mapping[str, Any]] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        super().__init__(workflows=workflows, wait_s=options.wait_s, backoff=backoff)
        self._options = options
        self._environ = child_environ(environ)

    async def start(self) -> None:
        """See `KeptBackend.start`."""
        await asyncio.to_thread(sweep, self._options.workdir)
        await super().start()

    async def _start_process(self) -> EngineProcess:
        return await EngineProcess.start(self._options, self._environ)
