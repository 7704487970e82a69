"""Writing a result's outputs into a directory, without losing what is there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from comfy_cpu_core.errors import InputError
from comfy_cpu_core.results import Output

__all__ = ["SavedOutput", "check_directory", "save_outputs"]


@dataclass(frozen=True)
class SavedOutput:
    """An output and the file that it was written to."""

    output: Output
    path: Path


def check_directory(directory: Path) -> None:
    """Check that outputs can go into a directory, before minutes are spent on them. Makes nothing.

    Raises:
        InputError: it, or the place where it would be made, is no directory or cannot be written.
    """
    try:
        there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
        is_directory = there.is_dir()
    except OSError as error:
        raise _cannot_write(directory, error.strerror) from None
    if not is_directory:
        raise _cannot_write(directory, f"{there} is not a directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise _cannot_write(directory, f"{there} is read-only")


def save_outputs(outputs: Iterable[Output], directory: Path) -> list[SavedOutput]:
    """Write outputs under their own names into a directory (made if need be), in the subfolders that nodes chose.

    Whatever a name or a subfolder says, nothing is written outside the directory. A file that is there already is never
    overwritten: a number is added to the name, unless the bytes are the same.

    Raises:
        InputError: the directory or a file in it cannot be written.
    """
    saved: list[SavedOutput] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for output in outputs:
            path = _write(_subfolder(directory, output), PurePosixPath(output.filename).name or "output", output.data)
            saved.append(SavedOutput(output, path))
    except OSError as error:
        raise _cannot_write(error.filename or directory, error.strerror) from None
    return saved


def _cannot_write(path: object, reason: str | None) -> InputError:
    return InputError(
        f"cannot write to {path}: {reason}", remedy="name a directory that you may write to with --output"
    )


def _subfolder(directory: Path, output: Output) -> Path:
    parts = [part for part in PurePosixPath(output.subfolder).parts if part not in {"/", "..", "."}]
    folder = directory.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(directory: Path, name: str, data: bytes) -> Path:
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
    number = 1
    while True:
        path = directory / (name if number == 1 else f"{stem}-{number}{suffix}")
        try:
            file = path.open("xb")
        except FileExistsError:
            if path.is_file() and path.read_bytes() == data:
                return path
            number += 1
            continue
        try:
            with file:
                file.write(data)
        except BaseException:  # half a picture must not pass for one
            path.unlink(missing_ok=True)
            raise
        return path
