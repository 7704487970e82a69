"""The targets ``comfyui+http`` and ``comfyui+https``: a ComfyUI server, on this machine or elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from comfy_cpu_client.comfyui import protocol
from comfy_cpu_client.comfyui.address import Address, Settings
from comfy_cpu_client.comfyui.job import ComfyUIJob
from comfy_cpu_client.comfyui.run import PromptRun
from comfy_cpu_client.comfyui.submission import Submission
from comfy_cpu_client.comfyui.transport import Transport
from comfy_cpu_client.errors import TargetRefused
from comfy_cpu_core.errors import TargetError, UsageError
from comfy_cpu_core.nodes import NodeSignature
from comfy_cpu_core.results import EventSink, RunRequest

__all__ = ["CLOSE_SECONDS", "ComfyUITarget", "open_comfyui"]

#: How long `ComfyUITarget.close` waits for the runs that it cancelled.
CLOSE_SECONDS = 2.0

_HEALTH_SECONDS = 5.0


class ComfyUITarget:
    """Runs workflows on one ComfyUI. Safe to use from several threads.

    Files of runs go into a folder of ComfyUI's input folder, under names that hold the hash of their content: nothing is
    overwritten, the same file is sent once, and they stay there, since ComfyUI has no way to remove them.

    Args:
        address: where it is.
        settings: how to use it.
    """

    def __init__(self, address: Address, settings: Settings) -> None:
        self._transport = Transport(address, settings)
        self._settings = settings
        self._lock = threading.Lock()
        self._jobs: set[ComfyUIJob] = set()
        self._object_info: Mapping[str, Any] | None = None
        self._signatures: dict[str, NodeSignature | None] = {}
        self._closed = False

    def submit(self, request: RunRequest, *, on_event: EventSink | None = None) -> ComfyUIJob:
        """Send the files and the workflow. `on_event` is called from a thread of the job's own.

        The seconds of ``request.timeout_s`` begin now and include the time in ComfyUI's queue.

        Raises:
            WorkflowInvalid: ComfyUI does not run it, or would leave out a part of it; `node_errors` as it says.
            TargetError: it cannot be reached or refuses; `DeadlineExceeded` if even this took too long.
            UsageError: the target is closed, or the time is not above 0.
        """
        if request.timeout_s is not None and not request.timeout_s > 0:
            raise UsageError(f"timeout_s is {request.timeout_s!r}; it must be above 0, or None for no limit")
        if self._closed:
            raise UsageError(f"the target {self._transport.where} is closed")
        deadline = time.monotonic() + request.timeout_s if request.timeout_s is not None else None
        submission = Submission(request, self._transport, self._settings, self._signature, deadline)
        accepted = submission.send()
        job = ComfyUIJob(
            PromptRun(
                accepted.prompt,
                accepted.prompt_id,
                where=self._transport.where,
                now=time.monotonic(),
                deadline=deadline,
                patience_s=self._settings.patience_s,
                live=accepted.websocket is not None,
                websocket=accepted.websocket_possible,
            ),
            accepted.prompt,
            client_id=accepted.client_id,
            transport=self._transport,
            websocket=accepted.websocket,
            deadline=deadline,
            on_event=on_event,
            on_preview=self._settings.on_preview,
            warnings=accepted.warnings,
            on_end=self._forget,
        )
        job.start()
        if not self._remember(job):  # closed in the meantime
            job.abandon(0.0)
        return job

    def object_info(self) -> Mapping[str, Any]:
        """Every node class that the ComfyUI has; asked for once. Empty where it may not be asked.

        Raises:
            TargetError: it cannot be reached.
        """
        if self._object_info is None:
            self._object_info = self._describe(None)
        return self._object_info

    def health(self) -> Mapping[str, Any]:
        """Whether the ComfyUI answers, its version, and how full its queue is.

        ``{"ready": bool, "target": "comfyui", "url": str}`` and, if ready, ``version``, ``queued`` and ``running``, else
        ``problem``.
        """
        about = {"target": "comfyui", "url": self._transport.where}
        try:
            stats = self._ask(protocol.get_system_stats()).json()
            queue = protocol.parse_queue(self._ask(protocol.get_queue()))
        except TargetError as error:
            return {"ready": False, **about, "problem": str(error)}
        system = stats.get("system") if isinstance(stats, dict) else None
        version = system.get("comfyui_version") if isinstance(system, dict) else None
        return {
            "ready": not self._closed,
            **about,
            "version": version,
            "queued": len(queue.pending),
            "running": len(queue.running),
        }

    def close(self) -> None:
        """Cancel what is under way, and wait `CLOSE_SECONDS` at most until the ComfyUI knows. May be called twice."""
        with self._lock:
            self._closed = True
            jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        end = time.monotonic() + CLOSE_SECONDS
        for job in jobs:
            job.abandon(max(0.0, end - time.monotonic()))
        self._transport.close()

    def _ask(self, request: protocol.Request) -> protocol.Answer:
        deadline = time.monotonic() + _HEALTH_SECONDS
        return self._transport.send(request, deadline=deadline, attempts=1)

    def _remember(self, job: ComfyUIJob) -> bool:
        """Note a job for `close`; False if that was called already."""
        with self._lock:
            if job.status() in {"queued", "running"}:
                self._jobs.add(job)
            return not self._closed

    def _forget(self, job: ComfyUIJob) -> None:
        with self._lock:
            self._jobs.discard(job)

    def _signature(self, class_type: str) -> NodeSignature | None:
        """What a node class takes; None if the ComfyUI has none of that name, or may not be asked."""
        if class_type not in self._signatures:
            info = self._object_info if self._object_info is not None else self._describe(class_type)
            signature = None
            with suppress(Exception):  # a pack may declare anything
                signature = NodeSignature.from_object_info(class_type, info[class_type])
            self._signatures[class_type] = signature
        return self._signatures[class_type]

    def _describe(self, class_type: str | None) -> Mapping[str, Any]:
        """What the ComfyUI says of a class, or of all."""
        try:
            answer = self._transport.send(protocol.get_object_info(class_type))
        except TargetRefused as error:
            if error.status not in {403, 404}:
                raise
            return {}
        document = answer.json()
        if not isinstance(document, dict):
            raise answer.strange("names no nodes")
        return document


def open_comfyui(name: str, options: Mapping[str, Any]) -> ComfyUITarget:
    """Open the target ``comfyui+http(s)://[USER:PASSWORD@]HOST[:PORT][/PATH]``.

    Args:
        options: the attributes of `Settings`.

    Raises:
        UsageError: the address or an option makes no sense.
    """
    settings = Settings.of(options)
    return ComfyUITarget(Address.parse(name, settings.token), settings)
