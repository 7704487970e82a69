"""Jobs from RunPod's queue, through its own SDK.

``python -m comfy_cpu_worker.runpod`` is what an image runs on RunPod, and what its ``/handler.py`` calls. Where
``SERVE_API_LOCALLY`` is true it serves the local API instead (`comfy_cpu_worker.cli.serve`), since the SDK's own server
neither queues nor cancels. The SDK takes 1.6 s to import and is imported here alone, inside `main`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from comfy_cpu_worker.loop import LoopThread
from comfy_cpu_worker.runner import JobRunner

__all__ = ["main", "make_handler", "prepare_sdk"]

#: What a RunPod handler is: it takes a job and gives what `comfy_cpu_worker.outcome.JobOutcome.to_handler` makes.
Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

#: Sends a progress document for a job: ``runpod.serverless.progress_update``.
SendProgress = Callable[[dict[str, Any], Mapping[str, Any]], None]

#: How long a result waits for a progress update that is on its way, in seconds.
UPDATE_SECONDS = 5.0

#: The SDK kills a worker with less memory than this at its start; its own default of 4 GB is a GPU's. In GB.
MIN_MEMORY_GB = "1.0"


def make_handler(runner: JobRunner, loop: LoopThread, send_progress: SendProgress) -> Handler:
    """Make the handler for RunPod's SDK.

    It is a coroutine function, so that RunPod can stop a single job: the SDK then cancels the task, the back end's run
    is interrupted, and the worker goes on with the next job.

    Args:
        runner: runs the jobs.
        loop: where the runner's back end lives.
        send_progress: called from the loop's thread, some times a second at most.
    """

    async def handler(job: dict[str, Any]) -> dict[str, Any]:
        job_id = str(job.get("id", "job"))

        def on_progress(document: Mapping[str, Any]) -> None:
            send_progress(job, document)

        outcome = await asyncio.wrap_future(loop.submit(runner.run(job_id, job, on_progress=on_progress)))
        await asyncio.to_thread(_await_updates)
        return outcome.to_handler()

    return handler


def _await_updates() -> None:
    """Wait for progress updates that are still on their way.

    The SDK sends each from a thread of its own. One that arrives behind the result would say IN_PROGRESS of a job that
    has ended.
    """
    for thread in threading.enumerate():
        if "_thread_target" in thread.name:  # what Python calls a thread with that function of the SDK's
            thread.join(UPDATE_SECONDS)


def prepare_sdk(environ: MutableMapping[str, str]) -> None:
    """Set what the SDK reads when it is imported, where the user has not set it.

    A worker without a GPU fails none of its checks for one: the SDK leaves them out where it finds no GPU.
    """
    environ.setdefault("RUNPOD_MIN_MEMORY_GB", MIN_MEMORY_GB)
    if not environ.get("RUNPOD_DEBUG_LEVEL"):
        # Its own default is DEBUG, which writes every output, pictures in base64, into the log.
        environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")


def main() -> int:
    """Run the worker as an image does; gives the exit code."""
    from comfy_cpu_core.cli.console import print_error
    from comfy_cpu_core.errors import ComfyCpuError

    if os.environ.get("SERVE_API_LOCALLY", "").lower() == "true":
        from comfy_cpu_core.cli import main as comfy_cpu

        comfy_cpu(["serve", *sys.argv[1:]])
    try:
        return _work()
    except ComfyCpuError as error:
        print_error(str(error), error.remedy)
        return error.exit_code


def _work() -> int:
    from comfy_cpu_core.errors import UsageError
    from comfy_cpu_worker.backends import open_backend
    from comfy_cpu_worker.settings import WorkerSettings

    settings = WorkerSettings.from_environ(os.environ)
    prepare_sdk(os.environ)
    loop = LoopThread("comfy-cpu-runpod")
    backend = open_backend(settings)
    try:
        # The back end starts, and loads its models, while the SDK is imported.
        starting = loop.submit(backend.start())
        try:
            import runpod
        except ImportError as error:
            raise UsageError(
                f"the RunPod SDK cannot be imported: {error}", remedy="pip install 'comfy-cpu-worker[runpod]'"
            ) from None
        starting.result()
        runner = JobRunner.from_settings(settings, backend)
        handler = make_handler(runner, loop, runpod.serverless.progress_update)
        runpod.serverless.start({"handler": handler, "refresh_worker": settings.refresh_worker})
    finally:
        loop.run(backend.close())
        loop.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
