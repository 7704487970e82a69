"""Writing a result's outputs into a directory, without losing what is there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from comfy_cpu_core.errors import InputError
from comfy_cpu_core.results import Output

__all__ = ["SavedOutput", "save_outputs"]


@dataclass(frozen=True)
class SavedOutput:
    """An output and the file that it was written to."""

    output: Output
    path: Path


def save_outputs(outputs: Iterable[Output], directory: Path) -> list[SavedOutput]:
    """Write outputs under their own names into a directory (made if need be), in the subfolders that nodes chose.

    Whatever a name or a subfolder says, nothing is written outside the directory. A file that is there already is never overwritten: a number is added to the name, unless the bytes are the same.

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
        raise InputError(
            f"cannot write to {error.filename or directory}: {error.strerror}",
            remedy="name a directory that you may write to with --output",
        ) from None
    return saved


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
            with path.open("xb") as file:
                file.write(data)
            return path
        except FileExistsError:
            if path.is_file() and path.read_bytes() == data:
                return path
            number += 1
