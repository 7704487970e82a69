"""A picture to try a workflow with, where the spec names none: something round in front of something else."""

from __future__ import annotations

import struct
import zlib

__all__ = ["sample_picture"]

_SIDE = 512


def sample_picture(side: int = _SIDE) -> bytes:
    """A PNG, RGB, the same at every call: a warm disc in the middle, a cool gradient behind it."""
    rows = []
    centre, radius = side / 2, side / 3
    for y in range(side):
        row = bytearray([0])  # PNG: this row is not filtered
        for x in range(side):
            if (x - centre) ** 2 + (y - centre) ** 2 < radius**2:
                row += bytes((210, 150 - 60 * y // side, 90))
            else:
                row += bytes((30 + 60 * x // side, 60 + 80 * y // side, 140))
        rows.append(bytes(row))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
