"""Who may ask what: decisions about a request from its head alone, and the middleware that carries them out.

- **Token.** Where one is set, everything needs ``Authorization: Bearer TOKEN`` but the page's own files, the probes
  (``/ready``, ``/healthz``) and ``/openapi.json``, which tell nothing of any job.
- **Host.** A page of somebody else's may point its own name at this machine (DNS rebinding) and then count as the same
  origin. So the ``Host`` must be an address, a name without a dot (which no stranger can own: a container's, the
  loopback's), the name that the worker listens on, or one that was configured. Beyond loopback with a token any name
  will do: such a page does not have the token.
- **Origin.** A browser names the origin of the page that sends a POST. It must be this worker's own page, under the
  name in ``Host`` or one that was configured.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comfy_cpu_worker.errors import NotAllowed
from comfy_cpu_worker.hosts import is_address, is_loopback

__all__ = ["SECURITY_HEADERS", "Guard", "SecurityMiddleware"]

#: What every answer carries, unless its route says otherwise: an answer is data, never a page.
SECURITY_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_DEFAULT_PORTS = {"http": 80, "https": 443}


def _split_host(value: str) -> tuple[str, int | None] | None:
    """``name:port`` → name in lower case and port; None if it is neither that nor a name."""
    try:
        parts = urlsplit(f"//{value}")
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not name or parts.path or parts.query or parts.fragment or "@" in value:
        return None
    return name.rstrip("."), port


@dataclass(frozen=True)
class Guard:
    """What is allowed.

    Attributes:
        token: what callers must show; None for nothing.
        open_paths: paths that need no token.
        any_host: whether every ``Host`` will do.
        hosts: names that will do besides, as the host and as the host of an origin.
    """

    token: str | None = field(default=None, repr=False)
    open_paths: Collection[str] = frozenset()
    any_host: bool = False
    hosts: Collection[str] = frozenset()

    def check(self, method: str, path: str, headers: Headers) -> None:
        """Let a request pass.

        Raises:
            NotAllowed: its host or origin is not allowed (403), or the token is missing or wrong (401).
        """
        self._check_host(headers.getlist("host"))
        if method not in _SAFE_METHODS:
            self._check_origin(headers)
        if self.token is not None and path not in self.open_paths:
            self._check_token(headers.getlist("authorization"))

    def _check_host(self, values: list[str]) -> None:
        host = _split_host(values[0]) if len(values) == 1 else None
        if host is None:
            raise NotAllowed("the request must have one Host header", status=400)
        name = host[0]
        if not (self.any_host or "." not in name or is_loopback(name) or is_address(name) or name in self.hosts):
            raise NotAllowed(
                "this worker does not answer under that host name",
                status=403,
                remedy="use its address, or allow the name with --allow-host NAME",
            )

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        other_page = headers.get("sec-fetch-site") in {"cross-site", "same-site"}
        if other_page or (origin is not None and not self._is_own(origin, headers["host"])):
            raise NotAllowed(
                "a page of another origin may not change anything here",
                status=403,
                remedy="use the worker's own page, or a program instead of a browser",
            )

    def _is_own(self, origin: str, host: str) -> bool:
        """Whether an ``Origin`` is where the request went. Behind a proxy that ends TLS the scheme differs."""
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        default = _DEFAULT_PORTS.get(parts.scheme)
        theirs, own = _split_host(parts.netloc), _split_host(host)
        if default is None or theirs is None or own is None:
            return False
        return theirs[0] in self.hosts or (theirs[0] == own[0] and (theirs[1] or default) == (own[1] or default))

    def _check_token(self, values: list[str]) -> None:
        scheme, _, given = values[0].strip().partition(" ") if len(values) == 1 else ("", "", "")
        right = hmac.compare_digest(given.strip().encode(), (self.token or "").encode())
        if scheme.lower() != "bearer" or not right:
            raise NotAllowed(
                "the token is missing or wrong", status=401, remedy="send it as: Authorization: Bearer TOKEN"
            )


class SecurityMiddleware:
    """Asks the guard about every request, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, guard: Guard, refuse: Callable[[NotAllowed], ASGIApp]) -> None:
        self._app = app
        self._guard = guard
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        app = self._app
        try:
            self._guard.check(scope["method"], scope["path"], Headers(scope=scope))
        except NotAllowed as error:
            app = self._refuse(error)
        await app(scope, receive, send_with_headers)
