"""Tells a job's webhook how it ended: a POST of its status, tried three times, beside everything else."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from comfy_cpu_core.errors import ComfyCpuError
from comfy_cpu_worker.errors import UrlFailed
from comfy_cpu_worker.urls import UrlClient, UrlPolicy
from comfy_cpu_worker.wire import Deadline, Resolver, system_resolver

__all__ = ["Webhooks"]

log = logging.getLogger(__name__)

#: Seconds before the second and the third attempt. RunPod makes as many.
PAUSES_S = (2.0, 10.0)

#: Calls that may be under way or waiting. One more is left out: its caller can still ask for the status.
_LIMIT = 200

_THREADS = 4


class Webhooks:
    """Calls webhooks. Used in the event loop's thread; the calls themselves block threads of its own.

    The log names a webhook's host, and nothing else of its URL.

    Args:
        policy: where webhooks may be.
        pauses_s: seconds before each further attempt.
        resolver: gives the addresses of hosts.
    """

    def __init__(
        self, policy: UrlPolicy, *, pauses_s: Sequence[float] = PAUSES_S, resolver: Resolver = system_resolver
    ) -> None:
        self._client = UrlClient(policy, resolver=resolver)
        self._pauses_s = pauses_s
        self._threads = ThreadPoolExecutor(_THREADS, "comfy-cpu-webhook")
        self._total_s = policy.total_s
        self._ended = threading.Event()
        self._calls: set[asyncio.Task[None]] = set()

    def call(self, job_id: str, url: str, document: Mapping[str, Any]) -> None:
        """Begin to tell a webhook; comes back at once.

        Args:
            document: the job's status, as GET /status answers it.
        """
        if len(self._calls) >= _LIMIT:
            log.error("job %s: its webhook is not called: %d calls wait already", job_id, _LIMIT)
            return
        task = asyncio.create_task(self._call(job_id, url, document), name=f"comfy-cpu-webhook-{job_id}")
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def close(self, grace_s: float) -> None:
        """Wait for the calls that are under way, at most so long, and give up the rest."""
        if self._calls:
            _, late = await asyncio.wait(self._calls, timeout=grace_s)
            for task in late:
                task.cancel()
            if late:
                log.warning("%d webhooks were not called any more, since the worker ends", len(late))
        self._ended.set()  # for the threads: Python waits for them before it ends
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _call(self, job_id: str, url: str, document: Mapping[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        problem = ""
        for pause in (0.0, *self._pauses_s):
            await asyncio.sleep(pause)
            try:
                status = await loop.run_in_executor(self._threads, self._post, url, document)
            except UrlFailed as error:
                problem = str(error)
            except ComfyCpuError as error:
                problem = str(error)
                break
            except Exception as error:
                problem = type(error).__name__
                break
            else:
                if 200 <= status < 300:
                    return
                problem = f"it answered with status {status}"
        log.warning("job %s: its webhook could not be told: %s", job_id, problem)

    def _post(self, url: str, document: Mapping[str, Any]) -> int:
        body = json.dumps(document, separators=(",", ":")).encode()
        deadline = Deadline(self._total_s, self._ended)
        return self._client.send("POST", url, body, {"Content-Type": "application/json"}, deadline=deadline).status
