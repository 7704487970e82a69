"""The one module that talks to an endpoint. What goes wrong leaves it as our errors, without a secret in them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from comfy_cpu_client.errors import TargetUnreachable
from comfy_cpu_client.runpod.address import Endpoint
from comfy_cpu_client.runpod.protocol import Answer, Request
from comfy_cpu_client.runpod.refusals import refusal
from comfy_cpu_client.runpod.settings import QueueSettings
from comfy_cpu_client.sessions import SessionPool, ca_bundle, failure_reason, may_be_sent, read_body
from comfy_cpu_core.errors import TargetError

if TYPE_CHECKING:
    import requests

__all__ = ["Transport"]

#: Answers and files that are larger are not read: they would fill the memory.
_MAX_BYTES = 2**30
#: How often a file is asked for, and seconds until it is again.
_FETCHES, _FETCH_AGAIN_SECONDS = 3, 0.3


class Transport:
    """Sends requests. Safe to use from several threads: each request has a session to itself.

    Args:
        settings: how to get there.

    Raises:
        UsageError: the library for it is not installed, or the CA certificates are not there.
    """

    def __init__(self, settings: QueueSettings) -> None:
        self._pool = SessionPool("this target", proxy=settings.proxy)
        self._settings = settings
        self._verify = ca_bundle(settings.verify)
        self._headers = {
            "Accept": "application/json",
            "User-Agent": f"comfy-cpu-client/{metadata.version('comfy-cpu-client')}",
        }

    def send(
        self, endpoint: Endpoint, request: Request, *, read_timeout_s: float | None = None, until: float | None = None
    ) -> Answer:
        """Send a request, once, and read the whole answer.

        Args:
            read_timeout_s: how long the answer may stand still; None for what the settings say.
            until: when the answer is of no use any more (`time.monotonic`).

        Raises:
            TargetUnreachable: there was no answer.
            TargetRefused: an answer with another status than 200.
        """
        status, headers, body = self._exchange(
            request.method,
            f"{endpoint.url}{request.path}",
            endpoint.where,
            body=request.body,
            headers={**self._headers, **request.headers, **endpoint.headers},
            read_timeout_s=read_timeout_s or self._settings.read_timeout_s,
            until=until,
        )
        if status != 200:
            raise refusal(endpoint, request.operation, status, headers, body)
        return Answer(endpoint.where, body)

    def fetch(self, url: str, *, until: float | None = None) -> bytes:
        """Get a file from where the endpoint put it. It is sent no key.

        Args:
            url: may hold a signature, so that it stands in no message.

        Raises:
            TargetError: it cannot be had.
        """
        parts = urlsplit(url)
        where = f"{parts.scheme}://{parts.hostname}"
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise TargetError("the endpoint names an output by a URL that leads nowhere")
        for attempt in range(1, _FETCHES + 1):
            try:
                status, _, body = self._exchange(
                    "GET", url, where, headers={}, read_timeout_s=self._settings.read_timeout_s, until=until
                )
            except TargetUnreachable:
                if attempt == _FETCHES:
                    raise
            else:
                if status == 200:
                    return body
                if attempt == _FETCHES or status < 500:
                    raise TargetError(
                        f"an output cannot be had from {where} ({status})",
                        remedy="a URL of a bucket is good for a time only: run the workflow again",
                    )
            time.sleep(_FETCH_AGAIN_SECONDS * attempt)
        raise AssertionError("the last attempt raises or returns")

    def close(self) -> None:
        """Close connections that are not in use."""
        self._pool.close()

    def _exchange(
        self,
        method: str,
        url: str,
        where: str,
        *,
        headers: dict[str, str],
        read_timeout_s: float,
        until: float | None,
        body: bytes | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        import requests
        import urllib3

        connect_s, read_s = (
            min(seconds, _left(until, where, sent=False))
            for seconds in (self._settings.connect_timeout_s, read_timeout_s)
        )

        def authorize(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
            # As `auth`, since requests would put what ~/.netrc says in place of a mere header.
            prepared.headers.update({"Accept-Encoding": "identity", **headers})
            return prepared

        try:
            with (
                self._pool.session() as session,
                session.request(
                    method,
                    url,
                    data=body,
                    auth=authorize,
                    verify=self._verify,
                    proxies=self._pool.proxies,
                    timeout=(connect_s, read_s),
                    allow_redirects=False,
                    stream=True,
                ) as response,
            ):
                content = b"".join(_chunks(response, until, where))
        except requests.ReadTimeout:
            raise _unreachable(where, f"was silent for {read_s:g} s", sent=True) from None
        except requests.ConnectTimeout:
            raise _unreachable(where, f"was not there within {connect_s:g} s", sent=False) from None
        except urllib3.exceptions.ReadTimeoutError:
            raise _unreachable(where, f"was silent for {read_s:g} s", sent=True) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _unreachable(where, failure_reason(error), sent=may_be_sent(error)) from None
        return response.status_code, {name.lower(): value for name, value in response.headers.items()}, content


def _chunks(response: Any, until: float | None, where: str) -> Iterator[bytes]:
    size = 0
    for chunk in read_body(response):
        _left(until, where, sent=True)
        size += len(chunk)
        if size > _MAX_BYTES:
            raise TargetError(f"an answer of {where} has more than {_MAX_BYTES:,} bytes")
        yield chunk


def _left(until: float | None, where: str, *, sent: bool) -> float:
    """Seconds that are left."""
    left = until - time.monotonic() if until is not None else float("inf")
    if left <= 0:
        raise _unreachable(where, "there was no time left for an answer", sent=sent)
    return left


def _unreachable(where: str, what: str, *, sent: bool) -> TargetUnreachable:
    return TargetUnreachable(
        f"{where} cannot be reached: {what}", remedy="check the address and the network between", sent=sent
    )
