"""Models that lie in a directory: ``file:///DIRECTORY``, a mounted volume or a mirror of one's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import url2pathname

from comfy_cpu_core.errors import ModelError
from comfy_cpu_core.fetchers import FetchedFile, FetchProgress, ResolvedModel
from comfy_cpu_core.models import ModelFile, ModelSpec

__all__ = ["FileFetcher"]


class FileFetcher:
    """Finds the files in the directory; the caller copies them. A directory has no revision and states no hash."""

    def resolve(self, spec: ModelSpec) -> ResolvedModel:
        """The files' sizes.

        Raises:
            ModelError: the source is not a local directory, or lacks a file.
        """
        files = tuple(replace(f, size=_find(spec, f).stat().st_size, sha256=None) for f in spec.files)
        return ResolvedModel(None, files)

    def fetch(
        self, spec: ModelSpec, resolved: ResolvedModel, file: ModelFile, staging: Path, progress: FetchProgress
    ) -> FetchedFile:
        """The directory's own file, which must stay where it is.

        Raises:
            ModelError: it went away since `resolve`.
        """
        return FetchedFile(_find(spec, file), move=False)


def _find(spec: ModelSpec, file: ModelFile) -> Path:
    parts = urlsplit(spec.source)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ModelError(
            f"model {spec.id}: {spec.source!r} is not a directory of this machine", remedy="write file:///DIRECTORY"
        )
    folder = Path(url2pathname(parts.path))
    found = folder.joinpath(*PurePosixPath(file.path).parts)
    if not found.is_file():
        raise ModelError(
            f"model {spec.id}: there is no file {file.path} in {folder}",
            remedy="is the volume mounted?" if not folder.is_dir() else None,
        )
    return found
