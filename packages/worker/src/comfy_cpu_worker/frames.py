"""Messages on a stream of bytes: a JSON header and binary blobs, no pickle. Reads and writes nothing itself.

A message on the wire: the four bytes of `MAGIC`, the header's length (32 bits, big-endian), the header (JSON:
``{"kind", "body", "blobs"}``, the last with the blobs' lengths), the blobs one after the other.

::

    decoder = Decoder()
    decoder.receive(data)
    while (message := decoder.next_message()) is not None:
        ...
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["DEFAULT_LIMITS", "Decoder", "FrameError", "FrameLimits", "Message", "encode"]

MAGIC = b"CCF1"

_PREFIX = struct.Struct("!4sI")


class FrameError(ValueError):
    """The stream, or what is to go onto it, is no such message. The stream is of no more use."""


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        kind: what it is about.
        body: JSON.
        blobs: bytes, to which the body refers by their position.
    """

    kind: str
    body: Mapping[str, Any] = field(default_factory=dict)
    blobs: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class FrameLimits:
    """How large a message may be; beyond that it is a mistake, or not a message.

    Attributes:
        header_bytes: length of the header.
        blobs: number of blobs.
        blob_bytes: length of all blobs together.
    """

    header_bytes: int = 64 * 2**20
    blobs: int = 10_000
    blob_bytes: int = 4 * 2**30


DEFAULT_LIMITS = FrameLimits()


def encode(message: Message, limits: FrameLimits = DEFAULT_LIMITS) -> list[bytes]:
    """A message as it goes onto the wire, in parts, so that no blob is copied.

    Raises:
        FrameError: it is over a limit, or its body is not JSON.
    """
    sizes = [len(blob) for blob in message.blobs]
    try:
        header = json.dumps({"kind": message.kind, "body": message.body, "blobs": sizes}).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise FrameError(f"the body of a message {message.kind!r} is not JSON: {error}") from None
    if len(header) > limits.header_bytes:
        raise FrameError(f"a header of {len(header):,} bytes; {limits.header_bytes:,} are allowed")
    _check_sizes(sizes, limits)
    return [_PREFIX.pack(MAGIC, len(header)) + header, *message.blobs]


class Decoder:
    """Takes bytes as they come and gives the messages that they make.

    Args:
        limits: a message that is announced as larger is an error before any of it is kept.
    """

    def __init__(self, limits: FrameLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._header: _Header | None = None
        self._blobs: list[bytes] = []

    @property
    def in_the_middle(self) -> bool:
        """Whether a message has begun that is not complete."""
        return bool(self._buffer) or self._header is not None

    def receive(self, data: bytes) -> None:
        """Take some bytes."""
        self._buffer += data

    def next_message(self) -> Message | None:
        """The next message that is complete, or None.

        Raises:
            FrameError: what comes next is no message, or over a limit.
        """
        if self._header is None:
            self._header = self._take_header()
            if self._header is None:
                return None
        sizes = self._header.sizes
        while len(self._blobs) < len(sizes):
            blob = self._take(0, sizes[len(self._blobs)])
            if blob is None:
                return None
            self._blobs.append(blob)
        message = Message(self._header.kind, self._header.body, tuple(self._blobs))
        self._header, self._blobs = None, []
        return message

    def _take_header(self) -> _Header | None:
        start = bytes(self._buffer[: len(MAGIC)])
        if start != MAGIC[: len(start)]:
            raise FrameError(f"the stream has {start!r} where a message should begin")
        if len(self._buffer) < _PREFIX.size:
            return None
        _, length = _PREFIX.unpack_from(self._buffer)
        if length > self._limits.header_bytes:
            raise FrameError(f"a header of {length:,} bytes is announced; {self._limits.header_bytes:,} are allowed")
        text = self._take(_PREFIX.size, length)
        return _parse_header(text, self._limits) if text is not None else None

    def _take(self, skip: int, length: int) -> bytes | None:
        """Cut `length` bytes behind the first `skip` off the buffer, and those with them; None if they are not there."""
        end = skip + length
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            taken = bytes(view[skip:end])
        del self._buffer[:end]
        return taken


@dataclass(frozen=True)
class _Header:
    kind: str
    body: Mapping[str, Any]
    sizes: list[int]


def _parse_header(text: bytes, limits: FrameLimits) -> _Header:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise FrameError("a header is not JSON") from None
    match document:
        case {"kind": str(kind), "body": dict(body), "blobs": list(sizes)} if all(_is_size(size) for size in sizes):
            _check_sizes(sizes, limits)
            return _Header(kind, body, sizes)
    raise FrameError("a header is not of the form {kind, body, blobs}")


def _is_size(value: object) -> bool:
    return type(value) is int and value >= 0


def _check_sizes(sizes: list[int], limits: FrameLimits) -> None:
    if len(sizes) > limits.blobs:
        raise FrameError(f"a message with {len(sizes):,} blobs; {limits.blobs:,} are allowed")
    if sum(sizes) > limits.blob_bytes:
        raise FrameError(f"a message with blobs of {sum(sizes):,} bytes; {limits.blob_bytes:,} are allowed")
