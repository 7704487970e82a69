"""Somebody's sources at one commit, ComfyUI's and node packs': fetched by git on this machine, kept as archives.

An archive has the files of the commit below their place in the image, with fixed times: the same commit gives the same
bytes. Git itself does not get into the image, nor a history, nor a token.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from comfy_cpu_builder import values
from comfy_cpu_builder.layout import SOURCE_DATE_EPOCH
from comfy_cpu_builder.lock import LockedSource
from comfy_cpu_core.errors import BuildError
from comfy_cpu_core.files import copy_file, place_file, sha256_file

__all__ = ["SourceCache", "find_commit"]

Note = Callable[[str], None]


def find_commit(source: str, reference: str) -> str:
    """The commit that a branch or tag of a repository stands for.

    Raises:
        BuildError: the repository cannot be reached, or has no such reference.
    """
    if values.COMMIT.fullmatch(reference):
        return reference
    listed = _git(["ls-remote", "--", source, reference, f"{reference}^{{}}"], what=source)
    found = {name: commit for commit, _, name in (line.partition("\t") for line in listed.splitlines())}
    for name in (f"refs/tags/{reference}^{{}}", f"refs/tags/{reference}", f"refs/heads/{reference}", reference):
        if name in found:
            return found[name]
    raise BuildError(f"{source} has no {reference!r}", remedy="name a tag, a branch or a commit that it has")


@dataclass(frozen=True)
class SourceCache:
    """Archives of sources by commit, below a directory that need not exist."""

    root: Path

    def require(self, source: LockedSource) -> Path:
        """The archive, checked.

        Raises:
            BuildError: it is not there, or not what it should be.
        """
        path = self._path(source.name, source.commit)
        if not path.is_file():
            raise BuildError(f"the source of {source.name} is not in the cache {self.root}", remedy="`comfy-cpu fetch`")
        if sha256_file(path) != source.sha256:
            path.unlink()
            raise BuildError(
                f"{path} is not what the lock says, and is thrown away",
                remedy="try again; if it stays so, the repository has changed: `comfy-cpu lock`",
            )
        return path

    def get(
        self, name: str, source: str, commit: str, place: str, *, licence: str = "", note: Note = lambda _: None
    ) -> LockedSource:
        """Get the files of a commit, unless they are there; give what the lock says of them.

        Args:
            place: where the files go in the image.

        Raises:
            BuildError: git is not installed, the repository cannot be reached, or has no such commit.
        """
        path = self._path(name, commit)
        if not path.is_file():
            note(f"fetching {name} from {source} at {commit[:12]}")
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="comfy-cpu-source-") as scratch:
                folder = Path(scratch)
                checkout = folder / "checkout"
                _git(["init", "--quiet", str(checkout)], what=name)
                _git(["-C", str(checkout), "fetch", "--quiet", "--depth=1", "--", source, commit], what=source)
                _git(["-C", str(checkout), "checkout", "--quiet", "--detach", "FETCH_HEAD"], what=name)
                shutil.rmtree(checkout / ".git")
                archive = folder / "source.tar"
                pack(checkout, archive, place)
                beside = path.with_name(f".{os.getpid()}-{path.name}")
                try:
                    copy_file(archive, beside)
                    place_file(beside, path)
                finally:
                    beside.unlink(missing_ok=True)
        return LockedSource(name, source, commit, sha256_file(path), licence)

    def _path(self, name: str, commit: str) -> Path:
        return self.root / "sources" / commit / f"{name}.tar"


def pack(folder: Path, archive: Path, place: str) -> None:
    """Write an archive of a folder's files below `place`, the same for the same files."""
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as out:
        for path in [folder, *sorted(folder.rglob("*"))]:
            name = place.strip("/") if path == folder else f"{place.strip('/')}/{path.relative_to(folder).as_posix()}"
            header = out.gettarinfo(path, name)
            header.uid = header.gid = 0
            header.uname = header.gname = ""
            header.mtime = SOURCE_DATE_EPOCH
            header.mode = 0o755 if header.isdir() or header.mode & 0o100 else 0o644
            if header.isreg():
                with path.open("rb") as content:
                    out.addfile(header, content)
            else:
                out.addfile(header)


def _git(arguments: Sequence[str], *, what: str) -> str:
    # No prompt for a password: a repository that wants one is not to be had.
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(["git", *arguments], check=False, capture_output=True, text=True, env=environment)
    except FileNotFoundError:
        raise BuildError("git is not installed, and sources are fetched with it", remedy="install git") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise BuildError(
            f"{what}: {lines[-1] if lines else f'git ended with {done.returncode}'}",
            remedy="is the repository public, and can this machine reach it?",
        )
    return done.stdout
