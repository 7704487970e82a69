"""What a model is: where it comes from, which files it has, where they go in the model tree.

The data of each model family lives in its plugin; this module only says what such data looks like. A revision, size
or hash that nobody has checked is None ("unresolved"), never a guess: the first fetch records what it got.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

__all__ = ["STATE_FOLDER", "ModelFile", "ModelNeed", "ModelSpec"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

#: Where the model tree keeps what comfy-cpu itself notes down: records, locks, unfinished downloads.
STATE_FOLDER = ".comfy-cpu"


def _stays_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and "\\" not in path and "\0" not in path


@dataclass(frozen=True)
class ModelFile:
    """One file of a model.

    Attributes:
        path: where the source keeps it, relative to the source.
        target: where it goes, relative to the model tree's root, with ``/``.
        size: bytes, or None if unresolved.
        sha256: in hexadecimal, or None if unresolved.
        also: other places in the tree where it may lie: packs do not agree on a folder's name.
    """

    path: str
    target: str
    size: int | None = None
    sha256: str | None = None
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for place in self.places:
            if not _stays_inside(place) or PurePosixPath(place).parts[0] == STATE_FOLDER:
                raise ValueError(f"target {place!r} is not a path inside the model tree")
        if not _stays_inside(self.path):
            raise ValueError(f"path {self.path!r} is not a path inside the source")
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256 of {self.target!r} is not 64 hexadecimal digits")

    @property
    def places(self) -> tuple[str, ...]:
        """Where it may lie, the place where it goes first."""
        return (self.target, *self.also)


@dataclass(frozen=True)
class ModelSpec:
    """One model, as a plugin contributes it (hook ``comfy_cpu_models``).

    Attributes:
        id: short and stable, for the command line: ``ben2-base``. Letters, digits, ``.``, ``_`` and ``-``.
        source: a URI that a fetcher understands: ``hf:OWNER/NAME``, ``package:NAME`` (data of an installed Python
            package), ``file:///DIRECTORY``.
        revision: the source's commit, or None if unresolved.
        files: what it is made of.
        licence: an SPDX identifier, or a plain sentence where none fits.
        notice: what a user must know before using it (a licence in doubt, a size), or empty.
    """

    id: str
    source: str
    files: tuple[ModelFile, ...]
    licence: str
    revision: str | None = None
    notice: str = ""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(f"model id {self.id!r} has other characters than letters, digits, '.', '_' and '-'")
        if not self.files:
            raise ValueError(f"model {self.id!r} has no files")
        if len({f.target for f in self.files}) != len(self.files):
            raise ValueError(f"model {self.id!r} has two files with the same target")

    @property
    def scheme(self) -> str:
        """The part of the source before the first colon."""
        return self.source.partition(":")[0]

    @property
    def resolved(self) -> bool:
        """Whether revision, sizes and hashes are all known."""
        return self.revision is not None and all(f.size is not None and f.sha256 is not None for f in self.files)

    @property
    def size(self) -> int | None:
        """The sum of the files' sizes in bytes, or None if one is unresolved."""
        sizes = [f.size for f in self.files]
        return None if None in sizes else sum(s for s in sizes if s is not None)


@dataclass(frozen=True)
class ModelNeed:
    """A model that a node of a workflow needs (hook ``comfy_cpu_models_for_node``).

    Attributes:
        model_id: the id of a `ModelSpec`, or None where no known model fits.
        input: the node's input that names it, or None if the class implies it.
        value: what that input says.
        reason: one line, where `model_id` is None: why nothing fits, and what the user can do.
        target: where `model_id` is None: the file that meets the need if the user puts it into the model tree, as a
            path in the tree; None if no file would.
        fetched_by_node: whether the node itself fetches the model when it runs, so that a run may begin without it.
    """

    model_id: str | None
    input: str | None = None
    value: object = None
    reason: str = ""
    target: str | None = None
    fetched_by_node: bool = False

    def __post_init__(self) -> None:
        if self.target is not None and not _stays_inside(self.target):
            raise ValueError(f"target {self.target!r} is not a path inside the model tree")
