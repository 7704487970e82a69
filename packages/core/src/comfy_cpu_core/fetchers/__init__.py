"""What a fetcher is: the part that knows how to get a model's files from one kind of source.

Beside it lie the three that core brings: `hub` (``hf:``), `package` (``package:``) and `file` (``file:``). Each is
imported only when a source asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from comfy_cpu_core.models import ModelFile, ModelSpec

__all__ = ["FetchProgress", "FetchedFile", "Fetcher", "FetcherType", "ResolvedModel"]

#: Called with the file's target, the bytes that are there now, and the bytes in all (None if not known).
FetchProgress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class ResolvedModel:
    """A model as its source has it now.

    Attributes:
        revision: the commit that the source's revision stands for.
        files: the spec's files with size and hash filled in as far as the source tells them.
    """

    revision: str | None
    files: tuple[ModelFile, ...]


@dataclass(frozen=True)
class FetchedFile:
    """A file that was fetched to a staging place, not yet in the model tree.

    Attributes:
        path: where it lies; the caller checks its hash and moves it.
        move: whether the caller may move it away; False if it belongs to somebody else and must be copied.
    """

    path: Path
    move: bool = True


class Fetcher(Protocol):
    """Gets a model's files from one kind of source."""

    def resolve(self, spec: ModelSpec) -> ResolvedModel:
        """Ask the source what it has.

        Raises:
            HubError: the source cannot be reached or refuses.
            ModelError: the source does not have the model.
        """

    def fetch(
        self, spec: ModelSpec, resolved: ResolvedModel, file: ModelFile, staging: Path, progress: FetchProgress
    ) -> FetchedFile:
        """Get one file into `staging`; go on where an interrupted fetch of the same file stopped.

        Raises:
            HubError: the source cannot be reached, refuses, or breaks off.
            ModelError: the source does not have the file.
        """


@dataclass(frozen=True)
class FetcherType:
    """A kind of source that a plugin contributes (hook ``comfy_cpu_fetchers``).

    Attributes:
        scheme: what the sources' URIs start with: ``hf``, ``package``, ``file``.
        open: makes a fetcher; called once per command, imports what it needs.
        online: whether it needs the network.
    """

    scheme: str
    open: Callable[[], Fetcher]
    online: bool
    summary: str = ""
