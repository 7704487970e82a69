"""A run's own directory: request files in, results out, gone at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from comfy_cpu_core.context import Folders
from comfy_cpu_core.errors import InputError
from comfy_cpu_engine.paths import ANNOTATIONS, check_name

__all__ = ["run_folders"]


@contextmanager
def run_folders(files: Mapping[str, bytes], parent: Path | None = None) -> Iterator[Folders]:
    """Make a directory with ``input``, ``output`` and ``temp``; it is removed at the end of the block.

    Args:
        files: name → bytes, written below ``input``; subfolders are allowed (``faces/a.png``).
        parent: where to make it; None for the system's place for temporary files.

    Raises:
        InputError: a file's name is not safe, or two names exclude each other.
    """
    for name in files:
        _check(name)
    with tempfile.TemporaryDirectory(prefix="comfy-cpu-", dir=parent, ignore_cleanup_errors=True) as directory:
        base = Path(directory).resolve()
        folders = Folders(base / "input", base / "output", base / "temp")
        for folder in (folders.input, folders.output, folders.temp):
            folder.mkdir()
        for name, data in files.items():
            _write(folders.input / name, data, name)
        yield folders


def _check(name: str) -> None:
    remedy = "use a plain name such as photo.png, with subfolders as faces/photo.png"
    try:
        check_name(name)
    except ValueError as error:
        raise InputError(f"the name of the input file {name!r} {error}", remedy=remedy) from None
    if name.endswith(tuple(f"[{annotation}]" for annotation in ANNOTATIONS)):
        raise InputError(f"the name of the input file {name!r} ends in what ComfyUI reads as a folder", remedy=remedy)


def _write(path: Path, data: bytes, name: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(data)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"the input file {name!r} has the name of another file or of its folder") from None
