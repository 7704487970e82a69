"""RunPod's queue endpoints."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from comfy_cpu_worker.api.answers import event, job_document, job_response, stream_document
from comfy_cpu_worker.api.bodies import read_json
from comfy_cpu_worker.errors import JobRejected
from comfy_cpu_worker.queue import Change, JobQueue, JobView
from comfy_cpu_worker.settings import WorkerSettings
from comfy_cpu_worker.shelf import Shelf
from comfy_cpu_worker.submission import parse_submission

__all__ = ["JobEndpoints"]

#: How long ``runsync`` waits, in milliseconds: the default is the most that RunPod allows, since a CPU takes its time.
WAIT_DEFAULT_MS, WAIT_LEAST_MS, WAIT_MOST_MS = 300_000, 1_000, 300_000

#: Seconds after which a silent event stream says that it is still there; proxies cut off connections that are idle.
KEEP_ALIVE_S = 15.0

_KEY = re.compile(r"[!-~]{1,255}")


class JobEndpoints:
    """The endpoints that deal with jobs."""

    def __init__(self, settings: WorkerSettings, queue: JobQueue, shelf: Shelf) -> None:
        self._settings = settings
        self._queue = queue
        self._shelf = shelf

    async def run(self, request: Request) -> Response:
        """Queue a job and answer at once."""
        view = await self._submit(request, self._settings.run_bytes, sync=False)
        return JSONResponse({"id": view.record.id, "status": view.record.state})

    async def runsync(self, request: Request) -> Response:
        """Queue a job and wait for its end, ``?wait=`` milliseconds at most; a client that goes away ends nothing."""
        wait_ms = _wait_ms(request.query_params.get("wait"))
        view = await self._submit(request, self._settings.runsync_bytes, sync=True)
        return self._answer(await self._queue.wait(view.record.id, wait_ms / 1000))

    async def status(self, request: Request) -> Response:
        """How a job is, with its output."""
        return self._answer(await self._queue.get(request.path_params["job_id"]))

    async def stream(self, request: Request) -> Response:
        """The progress since the last call; or, for ``Accept: text/event-stream``, all of it as it comes."""
        job_id = request.path_params["job_id"]
        if "text/event-stream" in request.headers.get("accept", ""):
            await self._queue.get(job_id, output=False)  # an unknown job is a 404, not a stream that ends
            last = request.headers.get("last-event-id", "")
            after = int(last) if last.isascii() and last.isdigit() and len(last) < 10 else 0
            return StreamingResponse(self._events(job_id, after), media_type="text/event-stream")
        view, progress = await self._queue.take_progress(job_id)
        return JSONResponse(stream_document(view, progress))

    async def cancel(self, request: Request) -> Response:
        """End a job."""
        return self._answer(await self._queue.cancel(request.path_params["job_id"]))

    async def retry(self, request: Request) -> Response:
        """Queue a job again that FAILED or TIMED_OUT."""
        return self._answer(await self._queue.retry(request.path_params["job_id"]))

    async def purge(self, request: Request) -> Response:
        """End every job that waits."""
        return JSONResponse({"removed": await self._queue.purge(), "status": "completed"})

    async def _submit(self, request: Request, limit: int, *, sync: bool) -> JobView:
        document = await read_json(request, limit)
        key = request.headers.get("idempotency-key")
        if key is not None and not _KEY.fullmatch(key):
            raise JobRejected("the header Idempotency-Key is not 1 to 255 printable characters without spaces")
        submission = await asyncio.to_thread(
            parse_submission, document, self._settings, self._shelf, key=key, sync=sync
        )
        return await self._queue.submit(submission)

    def _answer(self, view: JobView) -> Response:
        return job_response(view, self._settings.worker_id)

    async def _events(self, job_id: str, after: int) -> AsyncIterator[bytes]:
        """``progress`` with each progress document, ``status`` when the state changes; the last one has a final state."""
        state = None
        async with aclosing(_with_pauses(self._queue.follow(job_id, after), KEEP_ALIVE_S)) as changes:
            async for change in changes:
                if change is None:
                    yield b": still there\n\n"
                    continue
                view, progress, mark = change
                for number, document in enumerate(progress, mark - len(progress) + 1):
                    yield event("progress", document, number=number)
                if view.record.state != state:
                    state = view.record.state
                    document = job_document(view, self._settings.worker_id)
                    document.pop("output", None)
                    yield event("status", document)


async def _with_pauses(source: AsyncGenerator[Change, None], pause_s: float) -> AsyncGenerator[Change | None, None]:
    """What `source` gives, and None each time that it has given nothing for so long."""
    pending = asyncio.ensure_future(anext(source))
    try:
        while True:
            done, _ = await asyncio.wait({pending}, timeout=pause_s)
            if not done:
                yield None
                continue
            try:
                yield pending.result()
            except StopAsyncIteration:
                return
            pending = asyncio.ensure_future(anext(source))
    finally:
        pending.cancel()
        await asyncio.wait({pending})
        await source.aclose()


def _wait_ms(text: str | None) -> int:
    if text is None:
        return WAIT_DEFAULT_MS
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise JobRejected("the parameter wait is not a number of milliseconds", remedy="write it like ?wait=60000")
    return min(max(int(text), WAIT_LEAST_MS), WAIT_MOST_MS)
