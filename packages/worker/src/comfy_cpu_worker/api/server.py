"""uvicorn, as this worker uses it. It is imported here alone, while the back end's process starts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

__all__ = ["ApiServer", "make_server"]

#: Seconds that clients who are still connected are given when everything else has ended.
_LAST_ANSWERS_S = 5


class ApiServer(uvicorn.Server):
    """A server that leaves signals alone: the worker decides when it ends."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def make_server(app: ASGIApp) -> ApiServer:
    """Make the server; its access log is off, since URLs and headers may hold what is nobody's business."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
    )
    return ApiServer(config)
