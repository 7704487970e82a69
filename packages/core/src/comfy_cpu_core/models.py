"""What a model is: where it comes from, which files it has, where they go in the model tree.

The data of each model family lives in its plugin; this module only says what such data looks like. A revision, size
or hash that nobody has checked is None ("unresolved"), never a guess: the first fetch records what it got.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

__all__ = ["ModelFile", "ModelNeed", "ModelSpec"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelFile:
    """One file of a model.

    Attributes:
        path: where the source keeps it, relative to the source.
        target: where it goes, relative to the model tree's root, with ``/``.
        size: bytes, or None if unresolved.
        sha256: in hexadecimal, or None if unresolved.
    """

    path: str
    target: str
    size: int | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.target).parts
        if not parts or self.target.startswith("/") or ".." in parts or "\\" in self.target:
            raise ValueError(f"target {self.target!r} is not a path inside the model tree")
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256 of {self.target!r} is not 64 hexadecimal digits")


@dataclass(frozen=True)
class ModelSpec:
    """One model, as a plugin contributes it (hook ``comfy_cpu_models``).

    Attributes:
        id: short and stable, for the command line: ``ben2-base``.
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
    """

    model_id: str | None
    input: str | None = None
    value: object = None
    reason: str = ""
