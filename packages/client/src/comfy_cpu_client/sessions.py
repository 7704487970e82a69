"""What every transport over HTTP needs of ``requests``: sessions for threads, certificates, and why a request failed."""

from __future__ import annotations

import http.client
import os
import ssl
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from comfy_cpu_core.errors import UsageError

if TYPE_CHECKING:
    import requests

__all__ = ["SessionPool", "ca_bundle", "failure_reason", "may_be_sent", "read_body"]

#: A connection that was idle for longer is not used again: the server may have closed it this moment, and then nobody
#: could tell whether a request on it arrived.
_IDLE_SECONDS = 4.0
_CHUNK = 64 * 1024


class SessionPool:
    """Sessions of ``requests``, each used by one thread at a time: they keep their connections.

    Args:
        what: who needs the library, for the message.
        proxy: the URL of a proxy; None for what the environment says; False for none.

    Raises:
        UsageError: ``requests`` is not installed.
    """

    def __init__(self, what: str, *, proxy: str | Literal[False] | None = None) -> None:
        try:
            import requests  # noqa: F401
        except ImportError:
            raise UsageError(f"{what} needs requests", remedy="pip install 'comfy-cpu-client[remote]'") from None
        self._proxy = proxy
        self._idle: deque[tuple[float, requests.Session]] = deque()

    @property
    def proxies(self) -> dict[str, str] | None:
        """What each request is to have as `proxies`: a session's own would give way to those of the environment."""
        return {"http": self._proxy, "https": self._proxy} if self._proxy else None

    @contextmanager
    def session(self) -> Iterator[requests.Session]:
        """A session that nobody else has; it is not used again if the block ends with an exception."""
        session = self._take() or self._open()
        try:
            yield session
        except BaseException:
            session.close()  # its connection may be in the middle of an answer
            raise
        self._idle.append((time.monotonic(), session))

    def close(self) -> None:
        """Close the sessions that are not in use."""
        while self._idle:
            self._idle.pop()[1].close()

    def _open(self) -> requests.Session:
        import requests

        session = requests.Session()
        session.trust_env = self._proxy is not False
        return session

    def _take(self) -> requests.Session | None:
        """The session that was used last, if that is not long ago."""
        try:
            used, session = self._idle.pop()
        except IndexError:
            return None
        if time.monotonic() - used <= _IDLE_SECONDS:
            return session
        session.close()
        self.close()  # the others are older
        return None


def read_body(response: requests.Response) -> Iterator[bytes]:
    """The body, piece by piece as it comes, so that one that drips in holds up nobody's deadline.

    Raises:
        requests.RequestException, urllib3.exceptions.HTTPError: the connection broke.
    """
    while chunk := response.raw.read1(_CHUNK, decode_content=True):
        yield chunk


def ca_bundle(verify: bool | str | Path) -> bool | str:
    """What ``requests`` takes as `verify`: as it is given, or what ``REQUESTS_CA_BUNDLE`` names.

    Raises:
        UsageError: there is nothing at that path.
    """
    if verify is False:
        return False
    named = verify if verify is not True else os.environ.get("REQUESTS_CA_BUNDLE") or None
    if named is None:
        return True
    if not Path(named).exists():
        raise UsageError(f"there are no CA certificates at {named}", remedy="name a PEM file, or a directory of them")
    return str(named)


def may_be_sent(error: Exception) -> bool:
    """Whether a request that failed may have arrived."""
    import requests
    import urllib3

    if isinstance(error, requests.ConnectTimeout | requests.exceptions.ProxyError):
        return False
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return False
    return not any(
        isinstance(found, urllib3.exceptions.NewConnectionError | ssl.SSLCertVerificationError)
        for found in _causes(error)
    )


def failure_reason(error: BaseException) -> str:
    """Why a connection failed, in a few words; messages of the libraries may hold the URL of a proxy, with a password."""
    for found in _causes(error):
        if isinstance(found, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({found.verify_message})"
        if isinstance(found, TimeoutError):
            return "it went silent"
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        if isinstance(found, ConnectionError | http.client.IncompleteRead):
            return "the connection broke off"
    return type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was made from."""
    import urllib3

    seen: set[int] = set()
    pending: list[Any] = [error]
    while pending:
        found = pending.pop(0)
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        # Not any `reason`: with websockets, that of a closed connection warns that it goes away.
        reason = found.reason if isinstance(found, urllib3.exceptions.MaxRetryError) else None
        pending += [*found.args, reason, found.__cause__, found.__context__]
