"""A build context on disk: a directory that plain ``docker build`` accepts, with the same bytes for the same lock.

Everything has fixed times and modes. It is written beside its place and moved there once it is whole. A model is one
archive: Docker and BuildKit keep the times of files but not those of folders when they copy a directory, and a layer's
digest depends on both.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from comfy_cpu_builder.layout import SOURCE_DATE_EPOCH
from comfy_cpu_core.errors import BuildError, ModelCorrupt, ModelMissing
from comfy_cpu_core.files import copy_file, is_no_space
from comfy_cpu_core.needs import find_model_file

if TYPE_CHECKING:
    from comfy_cpu_builder.packages import WheelCache
    from comfy_cpu_builder.render import Rendered
    from comfy_cpu_builder.sources import SourceCache
    from comfy_cpu_core.models import ModelFile
    from comfy_cpu_core.tree import ModelTree

__all__ = ["write_context"]

#: In a directory that is a context: it may be replaced by another one.
_MARK = ".comfy-cpu-context"

#: Told of a model's file: its target, the bytes that are written, the bytes in all.
Progress = Callable[[str, int, int], None]


def _quiet(target: str, done: int, total: int) -> None:
    pass


def write_context(
    rendered: Rendered,
    directory: Path,
    *,
    tree: ModelTree,
    wheels: WheelCache,
    sources: SourceCache,
    progress: Progress = _quiet,
) -> Path:
    """Write a context; afterwards `directory` is the whole context, or what it was before.

    Args:
        tree: has every model of the lock; each file is hashed while it is copied.

    Raises:
        BuildError: the directory holds something else, a wheel is not in the cache, or the disk is full.
        ModelMissing, ModelCorrupt: a model's file is not there, or not what the lock says.
    """
    _require_free(directory)
    try:
        with _beside(directory) as part:
            for name, text in rendered.files.items():
                _write(part / name, text.encode(), executable=name in rendered.executables)
            for package in rendered.wheels:
                _copy(wheels.require(package), part / "wheels" / package.file)
            for model in rendered.models:
                paths = [(file, find_model_file(model, file, tree)) for file in model.files]
                _write_model(part / "models" / f"{model.id}.tar", model.id, paths, rendered.models_root, progress)
            for baked in rendered.baked:
                paths = [(file, baked.folder / file.target) for file in baked.files]
                _write_model(part / "models" / f"{baked.name}.tar", baked.name, paths, rendered.models_root, progress)
            for source in rendered.sources:
                _copy(sources.require(source), part / "sources" / f"{source.name}.tar")
            _write(part / _MARK, b"A build context of comfy-cpu-builder: it is replaced as a whole.\n")
            _settle(part)
            _swap(part, directory)
    except OSError as error:
        if is_no_space(error):
            raise BuildError(
                f"no space left for the build context in {directory.parent}",
                remedy="make room, or write it elsewhere with --output DIR",
            ) from error
        raise BuildError(f"{error.filename or directory}: {error.strerror or error}") from error
    return directory


def _require_free(directory: Path) -> None:
    if directory.is_dir() and any(directory.iterdir()) and not (directory / _MARK).is_file():
        raise BuildError(
            f"{directory} holds something else", remedy="name an empty directory, or one that is not there"
        )
    if directory.exists() and not directory.is_dir():
        raise BuildError(f"{directory} is no directory", remedy="name an empty directory, or one that is not there")


@contextmanager
def _beside(directory: Path) -> Iterator[Path]:
    directory.parent.mkdir(parents=True, exist_ok=True)
    _sweep(directory)
    part = directory.with_name(f".{directory.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o755)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sweep(directory: Path) -> None:
    """Take away what processes that were killed left beside a directory: it may be gigabytes."""
    leftover = re.compile(rf"\.{re.escape(directory.name)}\.(\d+)\.(?:part|old)")
    for path in directory.parent.iterdir():
        if (match := leftover.fullmatch(path.name)) and not Path("/proc", match[1]).exists():
            shutil.rmtree(path, ignore_errors=True)


def _swap(part: Path, directory: Path) -> None:
    if not directory.exists():
        part.rename(directory)
        return
    old = directory.with_name(f".{directory.name}.{os.getpid()}.old")
    directory.rename(old)
    part.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def _write(path: Path, data: bytes, *, executable: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if executable:
        path.chmod(0o755)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    copy_file(source, target)


def _settle(root: Path) -> None:
    """Give everything its time and its mode, whatever the umask is."""
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            path = Path(folder, name)
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
            os.utime(path, (SOURCE_DATE_EPOCH, SOURCE_DATE_EPOCH))
        Path(folder).chmod(0o755)
        os.utime(folder, (SOURCE_DATE_EPOCH, SOURCE_DATE_EPOCH))


def _write_model(
    archive: Path, name: str, paths: list[tuple[ModelFile, Path | None]], root: str, progress: Progress
) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    seen: set[PurePosixPath] = set()
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as out:
        for file, path in sorted(paths, key=lambda entry: entry[0].target):
            if path is None or not path.is_file():
                raise ModelMissing(f"model {name}: {file.target} is not in the model tree", remedy="`comfy-cpu fetch`")
            place = PurePosixPath(root.lstrip("/")) / file.target
            for folder in reversed(place.parents[:-1]):
                if folder not in seen:
                    seen.add(folder)
                    out.addfile(_header(folder, tarfile.DIRTYPE, 0o755))
            _add_file(out, place, path, name, file, progress)


def _header(path: PurePosixPath, kind: bytes, mode: int, size: int = 0) -> tarfile.TarInfo:
    header = tarfile.TarInfo(path.as_posix())
    header.type, header.mode, header.size, header.mtime = kind, mode, size, SOURCE_DATE_EPOCH
    return header


def _add_file(
    out: tarfile.TarFile, place: PurePosixPath, path: Path, name: str, file: ModelFile, progress: Progress
) -> None:
    size = path.stat().st_size
    with path.open("rb") as content:
        reader = _HashingReader(content, lambda done: progress(file.target, done, size))
        out.addfile(_header(place, tarfile.REGTYPE, 0o644, size), reader)
    if size != file.size or reader.sha256 != file.sha256:
        raise ModelCorrupt(
            f"model {name}: {path} is not what the lock says: {size} bytes, sha256 {reader.sha256}",
            remedy="`comfy-cpu fetch` gets the right one; `comfy-cpu lock` accepts this one",
        )


class _HashingReader:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes], on_read: Callable[[int], None]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._done = 0
        self._on_read = on_read

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        self._done += len(data)
        self._on_read(self._done)
        return data
