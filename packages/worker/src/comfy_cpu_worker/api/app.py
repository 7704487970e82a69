"""The application: routes, errors, security, in one place."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from comfy_cpu_core.errors import ComfyCpuError
from comfy_cpu_worker import page
from comfy_cpu_worker.api.answers import error_response
from comfy_cpu_worker.api.jobs import JobEndpoints
from comfy_cpu_worker.api.probes import ProbeEndpoints
from comfy_cpu_worker.api.security import Guard, SecurityMiddleware
from comfy_cpu_worker.hosts import is_loopback
from comfy_cpu_worker.queue import JobQueue
from comfy_cpu_worker.settings import WorkerSettings
from comfy_cpu_worker.shelf import Shelf
from comfy_cpu_worker.work import Backend

__all__ = ["api_routes", "create_app", "make_guard"]

log = logging.getLogger(__name__)

#: Paths besides the page's own that need no token: they tell nothing of any job.
_OPEN = ("/ready", "/healthz", "/openapi.json")

#: RunPod's paths, and those of its SDK's local server.
_PREFIXES = ("/v2/{endpoint}", "")

_ANY_ADDRESS = frozenset({"0.0.0.0", "::", "*"})  # noqa: S104


def create_app(settings: WorkerSettings, queue: JobQueue, backend: Backend, shelf: Shelf) -> ASGIApp:
    """Make the application; the queue is opened and closed by whoever made it.

    Args:
        settings: those of the API.
        queue: where jobs go.
        backend: asked how it is.
        shelf: the workflows that jobs may name.
    """
    pages = page.routes()
    app = Starlette(
        routes=[*api_routes(settings, queue, backend, shelf), *pages],
        exception_handlers={ComfyCpuError: _answer_error, HTTPException: _answer_http, Exception: _answer_bug},
    )
    guard = make_guard(settings, [route.path for route in pages])
    return SecurityMiddleware(app, guard, error_response)


def api_routes(settings: WorkerSettings, queue: JobQueue, backend: Backend, shelf: Shelf) -> list[Route]:
    """Everything but the page."""
    jobs = JobEndpoints(settings, queue, shelf)
    probes = ProbeEndpoints(settings, queue, backend, shelf)
    either = ["GET", "POST"]
    under_prefix: list[tuple[str, Callable[[Request], Awaitable[Response]], list[str]]] = [
        ("/run", jobs.run, ["POST"]),
        ("/runsync", jobs.runsync, ["POST"]),
        ("/status/{job_id}", jobs.status, either),
        ("/stream/{job_id}", jobs.stream, either),
        ("/cancel/{job_id}", jobs.cancel, ["POST"]),
        ("/retry/{job_id}", jobs.retry, ["POST"]),
        ("/purge-queue", jobs.purge, ["POST"]),
        ("/health", probes.health, ["GET"]),
    ]
    return [
        *(
            Route(prefix + path, answer, methods=methods)
            for prefix in _PREFIXES
            for path, answer, methods in under_prefix
        ),
        Route("/ready", probes.ready),
        Route("/healthz", probes.healthz),
        Route("/metrics", probes.metrics),
        Route("/openapi.json", probes.openapi),
        Route("/workflows", probes.workflows),
    ]


def make_guard(settings: WorkerSettings, page_paths: list[str]) -> Guard:
    """What the settings allow."""
    remote = not is_loopback(settings.host)
    own = {settings.host.lower()} - _ANY_ADDRESS
    return Guard(
        token=settings.token,
        open_paths=frozenset({*_OPEN, *page_paths}),
        any_host=remote and settings.token is not None,
        hosts=frozenset({*own, *(name.lower() for name in settings.allow_hosts)}),
    )


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ComfyCpuError)  # noqa: S101  # that is what it is registered for
    return error_response(error)


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # that is what it is registered for
    what = {404: "there is no such path", 405: f"{request.method} is not what this path takes"}
    text = what.get(error.status_code, error.detail)
    return JSONResponse({"error": text, "code": "http"}, status_code=error.status_code, headers=error.headers)


async def _answer_bug(request: Request, error: Exception) -> Response:
    # Starlette passes the error on to the server, which logs it; the caller need not see our insides.
    return JSONResponse({"error": "the worker failed; its log says more", "code": "worker"}, status_code=500)
