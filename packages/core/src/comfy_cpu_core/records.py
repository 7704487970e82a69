"""Records: what a fetch got, noted down inside the model tree, one small JSON file per model.

A plugin that does not know a model's revision or hashes leaves them open. The first fetch records what it got;
from then on that record takes the place of the missing values, so that a change at the source does not go unseen.
Beside the records lie hashes of files that were hashed before, so that a second check of gigabytes is quick.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from comfy_cpu_core.errors import ModelCorrupt
from comfy_cpu_core.files import write_json
from comfy_cpu_core.models import STATE_FOLDER, ModelFile, ModelSpec
from comfy_cpu_core.tree import ModelTree

__all__ = ["HashCache", "Record", "RecordedFile", "pin", "read_record", "record_path", "write_record"]

_FORMAT = 1


@dataclass(frozen=True)
class RecordedFile:
    """One file as it was fetched: where the source keeps it, its size in bytes, its SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """What the last fetch of a model got.

    Attributes:
        model: the model's id.
        source: the source's URI at that time.
        asked: the revision that the plugin named at that time, or None.
        revision: the commit that it was, or None where the source has none.
        fetched_at: ISO 8601, UTC.
        files: by the file's target in the tree; a fetch that was cut off has recorded only some.
    """

    model: str
    source: str
    asked: str | None
    revision: str | None
    fetched_at: str
    files: Mapping[str, RecordedFile] = field(default_factory=dict)

    def applies_to(self, spec: ModelSpec) -> bool:
        """Whether it is about the same source and revision; a plugin may have moved on since."""
        return self.source == spec.source and (spec.revision is None or spec.revision in (self.asked, self.revision))

    def with_file(self, file: ModelFile, *, size: int, sha256: str) -> Record:
        """The record with one more file, dated now."""
        files = {**self.files, file.target: RecordedFile(file.path, size, sha256)}
        return replace(self, files=files, fetched_at=datetime.now(UTC).isoformat(timespec="seconds"))


def record_path(tree: ModelTree, model_id: str) -> Path:
    """Where a model's record is or would be."""
    return tree.root / STATE_FOLDER / "records" / f"{model_id}.json"


def read_record(tree: ModelTree, model_id: str) -> Record | None:
    """The record of a model, or None if it was never fetched into this tree.

    Raises:
        ModelCorrupt: there is one, but it cannot be read: nothing is guessed.
    """
    path = record_path(tree, model_id)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != _FORMAT:
            raise ValueError(f"format {data['format']!r} is not known here")
        return Record(
            model=str(data["model"]),
            source=str(data["source"]),
            asked=_text_or_none(data["asked"]),
            revision=_text_or_none(data["revision"]),
            fetched_at=str(data["fetched_at"]),
            files={
                str(target): RecordedFile(str(f["path"]), int(f["size"]), str(f["sha256"]))
                for target, f in data["files"].items()
            },
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelCorrupt(
            f"the record {path} of model {model_id} cannot be read: {str(error) or type(error).__name__}",
            remedy="delete that file; the next `comfy-cpu models fetch` writes it anew",
        ) from error


def write_record(tree: ModelTree, record: Record) -> Path:
    """Write a model's record, whole or not at all; give back its path.

    Raises:
        OSError: the tree cannot be written.
    """
    path = record_path(tree, record.model)
    write_json(path, {"format": _FORMAT, **asdict(record)})
    return path


def pin(spec: ModelSpec, record: Record | None) -> ModelSpec:
    """The spec with what it leaves open filled in from the record. What the spec says always wins."""
    if record is None or not record.applies_to(spec):
        return spec
    files = []
    for file in spec.files:
        known = record.files.get(file.target)
        if known is None or known.path != file.path:
            files.append(file)
            continue
        files.append(
            replace(
                file,
                size=known.size if file.size is None else file.size,
                sha256=known.sha256 if file.sha256 is None else file.sha256,
            )
        )
    return replace(spec, revision=record.revision if spec.revision is None else spec.revision, files=tuple(files))


class HashCache:
    """SHA-256 of files that were hashed before, as long as size and time of change are the same.

    It saves time and is no proof: whoever changes a file and sets its time back is only caught by a full check.
    """

    def __init__(self, tree: ModelTree, model_id: str) -> None:
        self._root = tree.root
        self._path = tree.root / STATE_FOLDER / "hashes" / f"{model_id}.json"
        self._known: dict[str, Any] = {}
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if isinstance(known, dict):
            self._known = known

    def get(self, path: Path) -> str | None:
        """The hash of that file if it has not changed since, else None."""
        match self._known.get(self._key(path)):
            case [int(size), int(mtime), str(sha256)]:
                stat = path.stat()
                return sha256 if (stat.st_size, stat.st_mtime_ns) == (size, mtime) else None
        return None

    def put(self, path: Path, sha256: str) -> None:
        """Note the hash of that file as it is now. A tree that is not there or cannot be written goes without."""
        stat = path.stat()
        self._known[self._key(path)] = [stat.st_size, stat.st_mtime_ns, sha256]
        if not self._root.is_dir():
            return
        try:
            write_json(self._path, self._known)
        except OSError:
            return

    def _key(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix() if path.is_relative_to(self._root) else path.as_posix()


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)
