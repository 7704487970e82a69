"""The page at ``/``: try a workflow by hand.

Plain files in this directory, served as they are: no framework, no build step, nothing from any other host. What the
page may load is stated in a Content-Security-Policy; it has no script and no style inside its HTML, and puts
everything that the server says into the document as text.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["CONTENT_SECURITY_POLICY", "routes"]

CONTENT_SECURITY_POLICY = "; ".join([
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data: blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
])  # fmt: skip

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_HEADERS = {
    # The names of the files stay the same from one release to the next: a browser asks each time, and mostly gets 304.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def routes() -> list[Route]:
    """The routes of the page: ``/``, and ``/static/NAME`` for each of its files.

    There is one route per file and none with a path in it, so no request can name another file.
    """
    here = files(__name__)
    names = sorted(entry.name for entry in here.iterdir() if _suffix(entry.name) in _MEDIA_TYPES)
    return [
        _route("/" if name == "index.html" else f"/static/{name}", here.joinpath(name).read_bytes(), _suffix(name))
        for name in names
    ]


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]


def _route(path: str, content: bytes, suffix: str) -> Route:
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**_HEADERS, "ETag": etag}

    async def answer(request: Request) -> Response:
        if etag in {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=_MEDIA_TYPES[suffix])

    return Route(path, answer, methods=["GET"], include_in_schema=False)
