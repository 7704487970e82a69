"""Models that are data files of an installed Python package: ``package:NAME``.

The package is found without importing it: some load a model or half of PyTorch when they are imported.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata, util
from pathlib import Path, PurePosixPath

from comfy_cpu_core.errors import ModelError
from comfy_cpu_core.fetchers import FetchedFile, FetchProgress, ResolvedModel
from comfy_cpu_core.models import ModelFile, ModelSpec

__all__ = ["PackageFetcher", "package_file"]


def package_file(name: str, path: str) -> Path | None:
    """A data file of an installed package, or None if the package or the file is not there.

    Args:
        name: the package's import name, without dots.
        path: the file, relative to the package's directory, with ``/``.
    """
    folder = _folder(name)
    if folder is None:
        return None
    found = folder.joinpath(*PurePosixPath(path).parts)
    return found if found.is_file() else None


class PackageFetcher:
    """Finds the files in the installed package; the caller copies them."""

    def resolve(self, spec: ModelSpec) -> ResolvedModel:
        """The installed version as the revision, and the files' sizes.

        A spec that pins every hash accepts any version that has these files; one that does not pins the version.

        Raises:
            ModelError: the package is not installed, has another version, or lacks a file.
        """
        name = spec.source.partition(":")[2]
        distribution = _distribution(name)
        if _folder(name) is None:
            raise ModelError(
                f"model {spec.id} is part of the Python package {name!r}, which is not installed",
                remedy=f"install it: `pip install {distribution}`",
            )
        version = _version(distribution)
        if spec.revision not in (None, version) and any(file.sha256 is None for file in spec.files):
            raise ModelError(
                f"model {spec.id} is from {distribution} {spec.revision}, but {version or 'an unknown version'} is "
                "installed and there is no hash to compare with",
                remedy=f"install {distribution}=={spec.revision}, or take what is there now with --force",
            )
        files = []
        for file in spec.files:
            found = package_file(name, file.path)
            if found is None:
                raise ModelError(
                    f"model {spec.id}: {distribution} {version or ''} has no file {file.path}",
                    remedy=f"reinstall it: `pip install --force-reinstall {distribution}`",
                )
            files.append(replace(file, size=found.stat().st_size, sha256=None))
        return ResolvedModel(version, tuple(files))

    def fetch(
        self, spec: ModelSpec, resolved: ResolvedModel, file: ModelFile, staging: Path, progress: FetchProgress
    ) -> FetchedFile:
        """The package's own file, which must stay where it is.

        Raises:
            ModelError: it went away since `resolve`.
        """
        found = package_file(spec.source.partition(":")[2], file.path)
        if found is None:
            raise ModelError(f"model {spec.id}: {file.path} is not in its package any more")
        return FetchedFile(found, move=False)


def _folder(name: str) -> Path | None:
    if not name.isidentifier():
        return None
    try:
        spec = util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _distribution(name: str) -> str:
    """The distribution that brings the package, or the package's name where nobody knows."""
    return next(iter(metadata.packages_distributions().get(name, ())), name)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
