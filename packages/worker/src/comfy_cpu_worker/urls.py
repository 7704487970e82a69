"""HTTP to addresses that strangers name, without going where it must not.

A host is resolved here, every address that comes out is checked, and the connection goes to one of exactly those
addresses: a name that stands for another one a moment later (DNS rebinding) changes nothing. TLS still checks the
certificate against the host's name. Each redirect is checked like the first URL. Proxies (``HTTPS_PROXY``) are ignored on
purpose: one would resolve the name by itself, behind the check.

Everything here blocks, and belongs into a thread. Errors name the host of a URL, and nothing else of it.
"""

from __future__ import annotations

import http.client
import re
import ssl
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote, unquote, urljoin, urlsplit

from comfy_cpu_core.errors import UsageError
from comfy_cpu_worker.addresses import is_allowed
from comfy_cpu_worker.errors import JobTooLarge, UrlFailed, UrlRefused
from comfy_cpu_worker.wire import Deadline, Resolver, open_connection, resolve, system_resolver

__all__ = ["Answer", "Download", "UrlClient", "UrlPolicy"]

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HOST = re.compile(r"[a-z0-9_.-]{1,253}|[0-9a-f:.]{2,45}")
# What `urlsplit` would drop without a word, and what browsers and servers read differently.
_BAD = re.compile(r"[\x00-\x20\x7f\\]")

_CHUNK = 64 * 1024

#: How much of the answer to what was sent is read: enough to say what is wrong.
_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True)
class UrlPolicy:
    """Where a URL may lead, and how long it may take.

    Attributes:
        allow_hosts: hosts that are allowed; empty for all that are public. ``*.example.com`` stands for all below it.
        deny_hosts: hosts that are not, whatever `allow_hosts` says.
        ports: ports that are allowed; empty for 80 and 443, and for all where `allow_private` is set.
        allow_private: whether addresses of private networks and of this machine are allowed, too: for networks where
            everybody who may send jobs is trusted. Link-local and metadata addresses never are.
        redirects: how many are followed.
        connect_s, read_s: seconds to wait for a connection, and for the next bytes.
        total_s: seconds for everything, redirects too.
        ca_file: certificates to trust besides the system's.
    """

    allow_hosts: tuple[str, ...] = ()
    deny_hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    allow_private: bool = False
    redirects: int = 3
    connect_s: float = 5.0
    read_s: float = 15.0
    total_s: float = 60.0
    ca_file: Path | None = None


@dataclass(frozen=True)
class Download:
    """What was at a URL.

    Attributes:
        data: the bytes, decompressed.
        media_type: what the server says they are, without parameters; None if it does not say.
        name: the last part of the URL's path, as it is there; may be empty.
    """

    data: bytes = field(repr=False)
    media_type: str | None
    name: str


@dataclass(frozen=True)
class Answer:
    """What a server says to what it was sent.

    Attributes:
        body: the first bytes of it.
    """

    status: int
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class _Place:
    """A URL that was taken apart and may be asked for, as far as its text tells."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    target: str = field(repr=False)
    url: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}"


class UrlClient:
    """Asks for URLs under a policy. Safe to use from several threads; keeps no connection.

    Args:
        policy: see `UrlPolicy`.
        resolver: gives the addresses of a host.
    """

    def __init__(self, policy: UrlPolicy, *, resolver: Resolver = system_resolver) -> None:
        self._policy = policy
        self._resolver = resolver

    def check(self, url: str) -> None:
        """Check a URL as far as its text tells.

        Raises:
            UrlRefused: it is none, or leads where this worker does not go.
        """
        self._place(url)

    def get(self, url: str, *, max_bytes: int, deadline: Deadline | None = None) -> Download:
        """Fetch what is at a URL.

        Args:
            max_bytes: the most that is taken, compressed or not.
            deadline: when to give up, besides what the policy says.

        Raises:
            UrlRefused: it, or a redirect, leads where this worker does not go.
            UrlFailed: it could not be had.
            JobTooLarge: there is more.
        """
        deadline = self._deadline(deadline)
        place = self._place(url)
        for _ in range(self._policy.redirects + 1):
            with self._ask("GET", place, None, {}, deadline) as response:
                location = response.getheader("Location")
                if response.status not in _REDIRECTS or not location:
                    if response.status != http.client.OK:
                        raise UrlFailed(f"{place} answered with status {response.status}")
                    data = _read(response, max_bytes, place)
                    media_type = response.getheader("Content-Type", "").partition(";")[0].strip().lower()
                    return Download(data, media_type or None, _last_part(url))
            place = self._redirected(place, location)
        raise UrlRefused(f"{place} is reached by more than {self._policy.redirects} redirects")

    def send(
        self,
        method: Literal["POST", "PUT"],
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        deadline: Deadline | None = None,
    ) -> Answer:
        """Send something; a redirect is an answer like another.

        Raises:
            UrlRefused: it leads where this worker does not go.
            UrlFailed: there was no answer.
        """
        place = self._place(url)
        with self._ask(method, place, body, headers, self._deadline(deadline)) as response:
            return Answer(response.status, response.read(_ANSWER_BYTES))

    # Inside -----------------------------------------------------------------------------------------------------------

    def _deadline(self, given: Deadline | None) -> Deadline:
        return Deadline(self._policy.total_s) if given is None else given.within(self._policy.total_s)

    def _place(self, url: str) -> _Place:
        if _BAD.search(url):
            raise UrlRefused("the URL has a space, a backslash or a control character in it")
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            raise UrlRefused("the URL makes no sense") from None
        scheme = parts.scheme.lower()
        if scheme not in ("http", "https"):
            raise UrlRefused("the URL begins with neither https:// nor http://")
        if "@" in parts.netloc:
            raise UrlRefused("the URL has a user or a password in it", remedy="use a presigned URL")
        if not _HOST.fullmatch(host):
            raise UrlRefused(
                "the URL's host makes no sense", remedy="write a name with other than ASCII letters in punycode (xn--…)"
            )
        self._check_host(host, port or _PORTS[scheme])
        target = quote(parts.path or "/", safe="%/:=&?~+!$,;'@()*[]")
        if parts.query:
            target += "?" + quote(parts.query, safe="%/:=&?~+!$,;'@()*[]")
        return _Place(scheme, host, port or _PORTS[scheme], target, url)  # type: ignore[arg-type]

    def _check_host(self, host: str, port: int) -> None:
        policy = self._policy
        listed = not policy.allow_hosts or any(_matches(host, pattern) for pattern in policy.allow_hosts)
        if not listed or any(_matches(host, pattern) for pattern in policy.deny_hosts):
            raise UrlRefused(f"the host {host} is not one that this worker goes to")
        if port not in policy.ports and (policy.ports or not (policy.allow_private or port in _PORTS.values())):
            raise UrlRefused(f"port {port} of {host} is not one that this worker goes to")

    def _redirected(self, place: _Place, location: str) -> _Place:
        try:
            there = self._place(urljoin(place.url, location))
        except ValueError:
            raise UrlRefused(f"{place} redirects to what is no URL") from None
        if place.scheme == "https" and there.scheme == "http":
            raise UrlRefused(f"{place} redirects to {there}, which is not encrypted")
        return there

    @contextmanager
    def _ask(
        self, method: str, place: _Place, body: bytes | None, headers: Mapping[str, str], deadline: Deadline
    ) -> Iterator[http.client.HTTPResponse]:
        policy = self._policy
        try:
            addresses = resolve(place.host, place.port, self._resolver, deadline.left(policy.connect_s))
            if not all(is_allowed(address, allow_private=policy.allow_private) for address in addresses):
                raise UrlRefused(f"{place} leads to an address that is not public")
            with open_connection(
                place.host,
                place.port,
                addresses,
                deadline,
                context=self._tls if place.scheme == "https" else None,
                connect_s=policy.connect_s,
                read_s=policy.read_s,
            ) as connection:
                connection.request(
                    method, place.target, body, {"User-Agent": "comfy-cpu", "Connection": "close", **headers}
                )
                yield connection.getresponse()
        except TimeoutError:
            raise UrlFailed(f"{place} did not answer in time") from None
        except ssl.SSLCertVerificationError as error:
            raise UrlFailed(f"the certificate of {place} is not good: {error.verify_message}") from None
        except OSError as error:
            raise UrlFailed(f"{place} cannot be reached: {error.strerror or type(error).__name__}") from None
        except (http.client.HTTPException, ValueError) as error:
            raise UrlFailed(f"{place} does not speak proper HTTP: {type(error).__name__}") from None

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._policy.ca_file is not None:
            try:
                context.load_verify_locations(self._policy.ca_file)
            except OSError as error:
                raise UsageError(f"cannot read certificates from {self._policy.ca_file}: {error}") from None
        return context


def _matches(host: str, pattern: str) -> bool:
    pattern = pattern.lower().rstrip(".")
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _last_part(url: str) -> str:
    return PurePosixPath(unquote(urlsplit(url).path)).name


def _read(response: http.client.HTTPResponse, max_bytes: int, place: _Place) -> bytes:
    """The whole body, decompressed.

    We ask for no compression, and take gzip and zlib all the same. What comes out is bounded before it comes out.
    """
    too_large = JobTooLarge(f"{place} gives more than {max_bytes:,} bytes")
    encoding = response.getheader("Content-Encoding", "").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
        raise UrlFailed(f"{place} compresses in a way that was not asked for")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding not in {"", "identity"} else None
    declared = response.length
    if declared is not None and declared > max_bytes:
        raise too_large
    data, received = bytearray(), 0
    while chunk := response.read(_CHUNK):
        received += len(chunk)
        try:
            data += unpack.decompress(chunk, max_bytes + 1 - len(data)) if unpack else chunk
        except zlib.error:
            raise UrlFailed(f"{place} gives what cannot be decompressed") from None
        if len(data) > max_bytes or received > max_bytes:
            raise too_large
    if (declared is not None and received != declared) or (unpack is not None and not unpack.eof):
        raise UrlFailed(f"{place} broke off after {received:,} bytes")
    if unpack is not None and unpack.unused_data:
        raise UrlFailed(f"{place} gives more behind what is compressed")
    return bytes(data)
