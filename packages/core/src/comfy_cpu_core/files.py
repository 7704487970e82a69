"""Files on disk, handled with care: hashed with progress, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["copy_file", "is_no_space", "place_file", "sha256_file", "write_json"]

#: Bytes read at a time: large enough that SHA-256 dominates, small enough that a progress bar moves.
_CHUNK = 4 * 1024 * 1024

#: Called with the bytes done so far and the bytes in all.
ByteProgress = Callable[[int, int], None]


def _ignore(done: int, total: int) -> None:
    pass


def is_no_space(error: OSError) -> bool:
    """Whether a write failed because the disk, the quota or the largest allowed file is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sha256_file(path: Path, progress: ByteProgress = _ignore) -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    done = 0
    with path.open("rb", buffering=0) as file:
        total = os.fstat(file.fileno()).st_size
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            done += count
            progress(done, total)
    return digest.hexdigest()


def copy_file(source: Path, destination: Path, progress: ByteProgress = _ignore) -> None:
    """Copy a file's content, not its mode or times. `destination` may be half there if this is interrupted.

    Raises:
        OSError: one of the two cannot be read or written.
    """
    done = 0
    with source.open("rb") as reader, destination.open("wb") as writer:
        total = os.fstat(reader.fileno()).st_size
        while chunk := reader.read(_CHUNK):
            writer.write(chunk)
            done += len(chunk)
            progress(done, total)


def place_file(staged: Path, final: Path) -> None:
    """Move a finished file to its place: afterwards `final` is the whole new file, or what it was before.

    The content is on the disk before the name is. A folder of the tree may be a link to another file system; then
    the file is copied beside its place first.

    Raises:
        OSError: the place cannot be written.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    _sync(staged)
    try:
        staged.replace(final)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = final.with_name(f".{final.name}.comfy-cpu-part")
        try:
            copy_file(staged, beside)
            _sync(beside)
            beside.replace(final)
        finally:
            beside.unlink(missing_ok=True)
        staged.unlink()
    _sync(final.parent)


def write_json(path: Path, value: Any, *, sort_keys: bool = True) -> None:
    """Write a small JSON file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}")
    try:
        beside.write_text(json.dumps(value, indent=2, sort_keys=sort_keys) + "\n", encoding="utf-8")
        place_file(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
