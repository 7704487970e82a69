"""The one module that talks to a ComfyUI. What goes wrong leaves it as our errors, without a secret in them."""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_cpu_client.comfyui.address import Address, Settings
from comfy_cpu_client.comfyui.protocol import Answer, Request
from comfy_cpu_client.comfyui.refusals import refusal
from comfy_cpu_client.comfyui.websocket import Websocket
from comfy_cpu_client.errors import TargetRefused, TargetUnreachable
from comfy_cpu_client.sessions import SessionPool, ca_bundle, failure_reason, may_be_sent, read_body
from comfy_cpu_core.errors import DeadlineExceeded, UsageError

if TYPE_CHECKING:
    import requests

__all__ = ["Transport"]

#: How often a request is sent that may be repeated.
ATTEMPTS = 3

_RETRY_SECONDS = 0.2
_MAX_MESSAGE = 64 * 2**20
_PING_SECONDS, _PONG_SECONDS = 20.0, 60.0  # a server that loads a model is slow to answer
_CLOSE_SECONDS = 1.0

_INSTALL = "pip install 'comfy-cpu-client[comfyui]'"


class Transport:
    """Sends requests to one ComfyUI. Safe to use from several threads: each request has a session to itself.

    Args:
        address: where it is.
        settings: how to get there.

    Raises:
        UsageError: the libraries for it are not installed, or the CA certificates cannot be read.
    """

    def __init__(self, address: Address, settings: Settings) -> None:
        try:
            import requests  # noqa: F401
            import websockets.asyncio.client  # noqa: F401
        except ImportError as error:
            raise UsageError(f"a ComfyUI target needs {error.name}", remedy=_INSTALL) from None
        self.where = address.url
        self._address = address
        self._settings = settings
        self._pool = SessionPool("a ComfyUI target", proxy=settings.proxy)
        self._verify = ca_bundle(settings.verify)
        self._ssl = _ssl_context(self._verify) if address.url.startswith("https:") else None

    def send(
        self,
        request: Request,
        *,
        deadline: float | None = None,
        attempts: int = ATTEMPTS,
        read_timeout_s: float | None = None,
    ) -> Answer:
        """Send a request and read the whole answer.

        Args:
            deadline: when this is to be over (`time.monotonic`).
            attempts: how often it is sent at most; once if it is not `repeatable`.
            read_timeout_s: how long the answer may stand still; None for what the settings say.

        Raises:
            TargetUnreachable: there was no answer.
            TargetRefused: an answer with a status that the request does not accept.
            DeadlineExceeded: the deadline has passed.
        """
        left = attempts if request.repeatable else 1
        wait = _RETRY_SECONDS
        while True:
            left -= 1
            try:
                return self._send(request, deadline, read_timeout_s or self._settings.read_timeout_s)
            except TargetUnreachable:
                if left <= 0:
                    raise
            except TargetRefused as error:
                if left <= 0 or not error.transient:
                    raise
            time.sleep(min(wait * (1 + random.random()), _left(deadline)))
            wait *= 2

    def connect(self, client_id: str, *, deadline: float | None = None) -> Websocket:
        """Open the websocket on which the prompts of a client are reported.

        Raises:
            TargetUnreachable, TargetRefused, DeadlineExceeded: as `send`.
        """
        from websockets.exceptions import InvalidStatus, WebSocketException

        timeout_s = min(self._settings.connect_timeout_s, _left(deadline))
        try:
            return Websocket(
                self._address.websocket(client_id),
                open_timeout=timeout_s,
                close_timeout=_CLOSE_SECONDS,
                options={
                    **({"ssl": self._ssl} if self._ssl is not None else {}),
                    "additional_headers": self._address.headers,
                    "proxy": True if self._settings.proxy is None else self._settings.proxy or None,
                    "ping_interval": _PING_SECONDS,
                    "ping_timeout": _PONG_SECONDS,
                    "max_size": _MAX_MESSAGE,
                },
            )
        except InvalidStatus as error:
            raise self._refusal(Request("GET", "/ws"), error.response.status_code) from None
        except TimeoutError:
            raise self._unreachable(f"opened no websocket within {timeout_s:g} s", sent=False) from None
        except (OSError, WebSocketException, ValueError, ImportError) as error:
            raise self._unreachable(f"opened no websocket: {failure_reason(error)}", sent=False) from None

    def close(self) -> None:
        """Close connections that are not in use."""
        self._pool.close()

    def _send(self, request: Request, deadline: float | None, read_timeout_s: float) -> Answer:
        import requests
        import urllib3

        url = self._address.at(request.path)
        upload = request.upload
        options: dict[str, Any] = {"json": request.document} if request.document is not None else {}
        if upload is not None:
            options["files"] = {"image": (upload.filename, upload.data, "application/octet-stream")}
            options["data"] = {"subfolder": upload.subfolder, "type": "input"}
        connect_s, read_s = (min(s, _left(deadline)) for s in (self._settings.connect_timeout_s, read_timeout_s))
        try:
            with (
                self._pool.session() as session,
                session.request(
                    request.method,
                    url,
                    params=dict(request.query),
                    auth=self._authorize,
                    verify=self._verify,
                    proxies=self._pool.proxies,
                    timeout=(connect_s, read_s),
                    headers={"Accept-Encoding": "identity"},
                    allow_redirects=False,
                    stream=True,
                    **options,
                ) as response,
            ):
                body = b"".join(_chunks(response, deadline))
        except requests.Timeout as error:
            _left(deadline)
            connecting = isinstance(error, requests.ConnectTimeout)
            what = f"was not there within {connect_s:g} s" if connecting else f"was silent for {read_s:g} s"
            raise self._unreachable(what, sent=not connecting) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise self._unreachable(failure_reason(error), sent=may_be_sent(error)) from None
        if response.status_code not in request.accepts:
            raise self._refusal(request, response.status_code, response.headers.get("Location"))
        size = response.headers.get("Content-Length", "")
        return Answer(url, response.status_code, body, int(size) if size.isdecimal() else len(body))

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # As `auth`, since requests would put what ~/.netrc says in place of a mere header.
        request.headers.update(self._address.headers)
        return request

    def _refusal(self, request: Request, status: int, location: str | None = None) -> TargetRefused:
        authorized = self._address.authorization is not None
        return refusal(self.where, request, status, location=location, authorized=authorized)

    def _unreachable(self, what: str, *, sent: bool) -> TargetUnreachable:
        remedy = "check that ComfyUI runs there (it needs --listen to be reached from another machine), and the address"
        return TargetUnreachable(f"{self.where} cannot be reached: {what}", remedy=remedy, sent=sent)


def _chunks(response: requests.Response, deadline: float | None) -> Iterator[bytes]:
    """The body; an answer that drips in must not hold up a deadline."""
    for chunk in read_body(response):
        _left(deadline)
        yield chunk


def _left(deadline: float | None) -> float:
    """Seconds until the deadline.

    Raises:
        DeadlineExceeded: it has passed.
    """
    left = deadline - time.monotonic() if deadline is not None else float("inf")
    if left <= 0:
        raise DeadlineExceeded("the run did not end before its deadline")
    return left


def _ssl_context(verify: bool | str) -> ssl.SSLContext:
    from requests.utils import DEFAULT_CA_BUNDLE_PATH

    if verify is False:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    bundle = DEFAULT_CA_BUNDLE_PATH if verify is True else verify
    try:
        if Path(bundle).is_dir():
            return ssl.create_default_context(capath=bundle)
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        raise UsageError(f"the CA certificates in {bundle} cannot be read: {failure_reason(error)}") from None
