"""HTTP over a socket to an address that was chosen before, every wait of which is bounded.

`http.client` waits for each piece of an answer anew: a server that sends a byte now and then would hold it for ever.
Here every single read and write also looks at a deadline for the whole.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["Deadline", "Resolver", "open_connection", "resolve", "system_resolver"]

#: Gives the addresses of a host, as text. Raises OSError if there are none.
Resolver = Callable[[str, int], Sequence[str]]

#: Bytes that are sent at a time.
_CHUNK = 64 * 1024

#: Seconds between two looks at who waits.
_LOOK_S = 0.25

#: Addresses of a host that are tried.
_ADDRESSES = 4


class Deadline:
    """When something has to be over.

    Args:
        seconds: from now.
        cancel: set it from another thread to have it over at once, as soon as it is looked at.
    """

    def __init__(self, seconds: float, cancel: threading.Event | None = None) -> None:
        self._end = time.monotonic() + seconds
        self._cancel = cancel

    @property
    def over(self) -> bool:
        """Whether its time has come."""
        return time.monotonic() >= self._end

    def within(self, seconds: float) -> Deadline:
        """The earlier one of this, and that many seconds from now."""
        return Deadline(min(seconds, self._end - time.monotonic()), self._cancel)

    def pause(self, seconds: float) -> None:
        """Wait, unless it is cancelled meanwhile.

        Raises:
            TimeoutError: there is no time left behind it.
        """
        seconds = self.left(seconds)
        if self._cancel is None:
            time.sleep(seconds)
        else:
            self._cancel.wait(seconds)
        self.left(seconds)

    def left(self, at_most: float) -> float:
        """Seconds that the next step may take.

        Raises:
            TimeoutError: none are left.
        """
        seconds = self._end - time.monotonic()
        if seconds <= 0 or (self._cancel is not None and self._cancel.is_set()):
            raise TimeoutError
        return min(seconds, at_most)


def system_resolver(host: str, port: int) -> list[str]:
    """What the system says: ``/etc/hosts``, DNS, and whatever else it is set up to ask."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def resolve(host: str, port: int, resolver: Resolver, seconds: float) -> list[str]:
    """Ask a resolver, but no longer than some seconds: the system's has limits of its own, which are longer.

    Raises:
        OSError: there is no such host, or (`TimeoutError`) no answer.
    """
    answers: SimpleQueue[Sequence[str] | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(resolver(host, port))
        except Exception as error:
            answers.put(error)

    # Nothing can end getaddrinfo. The thread is a daemon, so that it holds up nobody.
    threading.Thread(target=ask, name="comfy-cpu-resolver", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if isinstance(answer, OSError):
        raise answer
    if isinstance(answer, Exception):  # a label that is too long is a UnicodeError
        raise OSError("there is no such host") from None
    return list(answer)[:_ADDRESSES]


@contextmanager
def open_connection(
    host: str,
    port: int,
    addresses: Sequence[str],
    deadline: Deadline,
    *,
    context: ssl.SSLContext | None,
    connect_s: float,
    read_s: float,
) -> Iterator[http.client.HTTPConnection]:
    """Connect to one of some addresses; closed at the end of the block.

    Args:
        host: for the ``Host`` header and the certificate.
        context: for TLS; None for plain HTTP.
        connect_s: seconds for one connection, and again for TLS.
        read_s: seconds to wait for anything to arrive, or to be taken.

    Raises:
        OSError: no address takes the connection (of several errors, the last), or the certificate is not good.
    """
    sock = _connect(port, addresses, deadline, connect_s)
    try:
        if context is not None:
            sock.settimeout(deadline.left(connect_s))
            sock = context.wrap_socket(sock, server_hostname=host)
        connection = http.client.HTTPConnection(host, port)
        connection.default_port = 80 if context is None else 443
        connection.sock = cast(socket.socket, _Wire(sock, deadline, read_s))
        yield connection
    finally:
        sock.close()


def _connect(port: int, addresses: Sequence[str], deadline: Deadline, connect_s: float) -> socket.socket:
    problem: OSError = OSError("the host has no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout=deadline.left(connect_s))
        except OSError as error:
            problem = error
    raise problem


class _Wire:
    """A socket, as far as `http.client` uses one. Closing it does nothing: that is up to who opened it."""

    def __init__(self, sock: socket.socket, deadline: Deadline, read_s: float) -> None:
        self._sock = sock
        self._deadline = deadline
        self._read_s = read_s

    def sendall(self, data: ReadableBuffer) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _CHUNK):
            self._sock.settimeout(self._deadline.left(self._read_s))
            self._sock.sendall(view[start : start + _CHUNK])

    def receive(self, buffer: WriteableBuffer) -> int:
        quiet = Deadline(self._read_s)
        while True:
            # In short waits, so that it is noticed when nobody wants the answer any more.
            self._sock.settimeout(self._deadline.left(quiet.left(_LOOK_S)))
            with suppress(TimeoutError):
                return self._sock.recv_into(buffer)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self))

    def close(self) -> None:
        pass


class _Reader(io.RawIOBase):
    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._wire.receive(buffer)
