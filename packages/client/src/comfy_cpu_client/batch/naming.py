"""What the outputs of an input are called: the same every time, safe everywhere, and never those of another. Pure."""

from __future__ import annotations

import hashlib
import re

__all__ = ["digest_of", "folder_name"]

# Everything else is trouble for some file system, shell or URL.
_UNSAFE = re.compile(r"[^\w.\-]+", re.ASCII)

#: What the readable part keeps: with the hash and an output's own name it stays below 255 bytes.
_STEM_LENGTH = 60
#: 64 bits: among a billion inputs, two with the same hash are one chance in forty.
_HASH_LENGTH = 16


def digest_of(kind: str, document: str) -> str:
    """The hash by which an input is known again.

    Args:
        kind: ``file`` or ``row``.
        document: the input's JSON, in canonical form.
    """
    return hashlib.sha256(f"{kind}\n{document}".encode()).hexdigest()


def folder_name(label: str, digest: str) -> str:
    """The name of an input's folder: readable, then part of its hash: ``cat.jpg`` → ``cat-2f6b1a…``.

    Two inputs differ in their hash; what their files are called, and where they are, may be the same.
    """
    stem = label.rpartition(".")[0] or label
    readable = _UNSAFE.sub("_", stem).strip("._-")[:_STEM_LENGTH].rstrip("._-")
    return f"{readable or 'input'}-{digest[:_HASH_LENGTH]}"
