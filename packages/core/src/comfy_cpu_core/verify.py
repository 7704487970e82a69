"""Is what lies in the model tree what it should be?

A file is compared with its plugin's data, and where that leaves size or hash open, with the record of the fetch that
brought it. Where neither knows a hash, the file is ``unrecorded``: nothing speaks against it, and nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from comfy_cpu_core.errors import ModelCorrupt
from comfy_cpu_core.fetchers import FetchProgress
from comfy_cpu_core.files import sha256_file
from comfy_cpu_core.models import STATE_FOLDER, ModelFile, ModelSpec
from comfy_cpu_core.needs import NodeNeed, find_model_file
from comfy_cpu_core.records import HashCache, pin, read_record
from comfy_cpu_core.tree import ModelTree

__all__ = ["FileCheck", "ModelState", "model_state", "require_right_files", "staging_folder", "verify_model"]

FileState = Literal["ok", "missing", "wrong size", "wrong hash", "unreadable", "unrecorded", "unchecked"]

#: ``verified``: every file has the right hash, as far as it was hashed before and has not changed since.
#: ``present``: every file is there with the right size. ``installed``: part of an installed Python package.
#: ``partial``: some files, or the beginning of one. ``wrong``: a size, or a hash known from before, does not fit.
ModelState = Literal["verified", "present", "installed", "partial", "missing", "wrong"]


def _ignore(target: str, done: int, total: int | None) -> None:
    pass


@dataclass(frozen=True)
class FileCheck:
    """What came of checking one file.

    Attributes:
        target: its path in the tree.
        state: ``unrecorded`` if nothing is known to compare with, ``unchecked`` if the size fits and the hash was
            not computed.
        path: the file that was found, in the tree or in an installed package; None if missing.
        size, sha256: what was found, as far as it was looked at.
        expected_size, expected_sha256: what should be there, None if unresolved.
        detail: why it is unreadable.
    """

    target: str
    state: FileState
    path: Path | None = None
    size: int | None = None
    sha256: str | None = None
    expected_size: int | None = None
    expected_sha256: str | None = None
    detail: str = ""

    @property
    def wrong(self) -> bool:
        """Whether the file is there, but is not what it should be."""
        return self.state in ("wrong size", "wrong hash", "unreadable")

    def describe(self) -> str:
        """What is wrong with it, for a sentence that begins with the file."""
        match self.state:
            case "wrong size":
                return f"has {self.size} bytes instead of {self.expected_size}"
            case "wrong hash":
                return f"has sha256 {self.sha256} instead of {self.expected_sha256}"
            case "unreadable":
                return f"cannot be read ({self.detail})"
        return f"is {self.state}"


def verify_model(
    spec: ModelSpec,
    tree: ModelTree,
    *,
    progress: FetchProgress = _ignore,
    full: bool = False,
    installed: bool = True,
) -> list[FileCheck]:
    """Check every file of a model, in the order of its data.

    Args:
        progress: told of every file that is hashed.
        full: hash again what was hashed before and has not changed since.
        installed: whether the file of an installed package will do where the tree has none.

    Raises:
        ModelCorrupt: the model's record cannot be read.
    """
    cache = HashCache(tree, spec.id)

    def hash_of(file: ModelFile, path: Path) -> str:
        known = None if full else cache.get(path)
        if known is not None:
            return known
        sha256 = sha256_file(path, lambda done, total: progress(file.target, done, total))
        cache.put(path, sha256)
        return sha256

    return _check(spec, tree, hash_of, installed=installed)


def model_state(spec: ModelSpec, tree: ModelTree) -> ModelState:
    """Where a model stands, without hashing anything.

    Raises:
        ModelCorrupt: the model's record cannot be read.
    """
    cache = HashCache(tree, spec.id)
    checks = _check(spec, tree, lambda _, path: cache.get(path), installed=False)
    states = {check.state for check in checks}
    if any(check.wrong for check in checks):
        return "wrong"
    if states == {"ok"}:
        return "verified"
    if "missing" not in states:
        return "present"
    if spec.scheme == "package" and all(find_model_file(spec, f, tree) for f in spec.files):
        return "installed"
    staged = staging_folder(tree, spec.id)
    begun = staged.is_dir() and any(path.is_file() for path in staged.rglob("*"))
    return "partial" if begun or states != {"missing"} else "missing"


def require_right_files(needs: Iterable[NodeNeed], tree: ModelTree) -> None:
    """Make sure before a run that no file that it needs has a hash other than the one that is known for it.

    A file whose hash nobody knows passes, and so does one that is missing (`comfy_cpu_core.needs.require_models` looks
    for those). A file is hashed once, and again after it changed.

    Raises:
        ModelCorrupt: a file is not what it should be; the error names node, class and file.
    """
    for need in needs:
        if need.spec is None:
            continue
        cache = HashCache(tree, need.spec.id)

        def hash_of(file: ModelFile, path: Path, cache: HashCache = cache) -> str:
            sha256 = cache.get(path)
            if sha256 is None:
                stat = path.stat()
                sha256 = _hash_in_this_process(path, stat.st_size, stat.st_mtime_ns)
                cache.put(path, sha256)
            return sha256

        for check in _check(need.spec, tree, hash_of, installed=True):
            if check.wrong and check.expected_sha256 is not None:
                raise ModelCorrupt(
                    f"node {need.node_id} ({need.class_type}): model file {check.path or check.target} "
                    f"{check.describe()}",
                    remedy=f"`comfy-cpu models fetch {need.spec.id} --force` gets it again",
                )


@lru_cache(maxsize=256)
def _hash_in_this_process(path: Path, size: int, mtime_ns: int) -> str:
    """A file's hash, kept for as long as size and time stay: a tree that cannot be written keeps no hashes itself."""
    return sha256_file(path)


def staging_folder(tree: ModelTree, model_id: str) -> Path:
    """Where the files of a model lie while they are being fetched."""
    return tree.root / STATE_FOLDER / "staging" / model_id


def _check(
    spec: ModelSpec, tree: ModelTree, hash_of: Callable[[ModelFile, Path], str | None], *, installed: bool
) -> list[FileCheck]:
    pinned = pin(spec, read_record(tree, spec.id))
    checks = []
    for file in pinned.files:
        path = next((tree.path(place) for place in file.places if tree.has(place)), None)
        if path is None and installed:
            path = find_model_file(spec, file, tree)
        checks.append(_check_file(file, path, hash_of))
    return checks


def _check_file(file: ModelFile, path: Path | None, hash_of: Callable[[ModelFile, Path], str | None]) -> FileCheck:
    size: int | None = None
    sha256: str | None = None
    detail = ""
    state: FileState
    if path is None:
        state = "missing"
    else:
        try:
            size = path.stat().st_size
            if file.size not in (None, size):
                state = "wrong size"
            elif file.sha256 is None:
                state = "unrecorded"
            else:
                sha256 = hash_of(file, path)
                state = "unchecked" if sha256 is None else "ok" if sha256 == file.sha256 else "wrong hash"
        except OSError as error:
            state, detail = "unreadable", error.strerror or type(error).__name__
    return FileCheck(file.target, state, path, size, sha256, file.size, file.sha256, detail)
