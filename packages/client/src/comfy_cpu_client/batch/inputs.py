"""The inputs of a batch: from a directory, a glob, files, and tables (CSV, JSONL), one after the other.

A table's row is an input of its own::

    id,image,1.mask,set.4.sensitivity            {"id": "one", "image": "one.jpg", "set": {"4.sensitivity": 0.8}}
    one,one.jpg,one-mask.png,0.8                 {"image": "two.jpg", "1.mask": "m.png", "set.4.sensitivity": 0.7}

``NODE.INPUT`` names a file, relative to the table; ``image`` is the file for the workflow's one LoadImage. A value (``set``)
is JSON, or a text where it is no JSON. Other columns without a dot belong to the user and are left alone.
"""

from __future__ import annotations

import csv
import glob
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from comfy_cpu_client.batch.naming import digest_of, folder_name
from comfy_cpu_client.prepare import sole_input
from comfy_cpu_core.errors import InputError, WorkflowError
from comfy_cpu_core.workflow import Workflow

__all__ = ["BatchInput", "InputReader"]

#: What a directory is searched for; a glob finds other files.
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


@dataclass(frozen=True)
class BatchInput:
    """One input.

    Attributes:
        kind: ``file``: named twice it is one input; ``row``: each is an input, even if two say the same.
        label: what people call it: the file's name, a row's id.
        files: ``NODE.INPUT`` → the absolute path of the file for it.
        values: ``NODE.INPUT`` → the value for it.
        order: inputs run in the order of this: number of the source, place inside it.
    """

    kind: Literal["file", "row"]
    label: str
    files: Mapping[str, str]
    values: Mapping[str, Any] = field(default_factory=dict)
    order: tuple[int, str] = (0, "")

    @property
    def document(self) -> str:
        """Files and values as JSON, in canonical form; ASCII, so that file names may be any bytes."""
        return json.dumps({"files": dict(self.files), "values": dict(self.values)}, sort_keys=True)

    @property
    def digest(self) -> str:
        """The hash by which it is known again."""
        return digest_of(self.kind, self.document)

    @property
    def folder(self) -> str:
        """The name of its folder of outputs."""
        return folder_name(self.label, self.digest)


class InputReader:
    """Reads the inputs that a workflow is to be run with.

    Args:
        workflow: tells which inputs there are.
        key: the ``NODE.INPUT`` that files are for; None: the workflow's one LoadImage.
    """

    def __init__(self, workflow: Workflow, key: str | None = None) -> None:
        self._workflow = workflow
        self._given = key
        self._checked: set[str] = set()
        if key is not None:
            self._check(key, "--input")

    def read(self, sources: Sequence[str | Path]) -> Iterator[BatchInput]:
        """The inputs of all sources, one after the other; those of a directory in no order (see `BatchInput.order`).

        Raises:
            InputError: a source is not there, has nothing in it, or a row makes no sense; the message says which.
        """
        for number, source in enumerate(sources):
            text = os.fspath(source)
            path = Path(text).expanduser()
            found = False
            for entry in self._source(text, path, number):
                found = True
                yield entry
            if not found:
                raise InputError(f"no inputs in {text}", remedy=self._remedy(path))

    def _source(self, text: str, path: Path, number: int) -> Iterator[BatchInput]:
        try:
            if path.is_dir():
                return self._directory(path, number)
            if path.exists():
                reader = self._tables().get(path.suffix.lower())
                if reader is None:
                    return iter([self._file(path, number)])
                return self._table(path, number, reader)
        except (OSError, ValueError) as error:
            raise _cannot_read(text, error) from None
        if glob.has_magic(text):
            matches = (Path(match) for match in glob.iglob(os.path.expanduser(text), recursive=True))  # noqa: PTH111, PTH207  # streamed, and absolute patterns too
            return (self._file(match, number) for match in matches if match.is_file())
        raise InputError(f"there is no file or directory {text}", remedy="check the path")

    def _remedy(self, path: Path) -> str:
        if path.is_dir():
            return f"it has no pictures ({', '.join(sorted(PICTURES))}); name other files by a glob: '{path}/*.ext'"
        return "check the path" if glob.has_magic(str(path)) else "write one row for each input"

    def _directory(self, path: Path, number: int) -> Iterator[BatchInput]:
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    name = entry.name
                    if not name.startswith(".") and Path(name).suffix.lower() in PICTURES and entry.is_file():
                        yield self._file(Path(entry.path), number)
        except OSError as error:
            raise _cannot_read(str(path), error) from None

    def _file(self, path: Path, number: int) -> BatchInput:
        absolute = os.path.abspath(path)  # noqa: PTH100  # links stay: the name is the user's
        return BatchInput("file", _printable(path.name), {self._key(): absolute}, order=(number, _printable(absolute)))

    def _tables(self) -> Mapping[str, Callable[[TextIO], Iterator[tuple[int, Mapping[str, Any]]]]]:
        return {".csv": _csv_rows, ".jsonl": _json_rows, ".ndjson": _json_rows}

    def _table(
        self, path: Path, number: int, rows: Callable[[TextIO], Iterator[tuple[int, Mapping[str, Any]]]]
    ) -> Iterator[BatchInput]:
        line = 0
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                for line, row in rows(file):
                    yield self._row(row, path, number, line)
        except OSError as error:
            raise _cannot_read(str(path), error) from None
        except InputError as error:
            where = "" if str(error).startswith(str(path)) else f"{path}, line {line}: "
            raise InputError(f"{where}{error}", remedy=error.remedy) from None
        except (ValueError, RecursionError, csv.Error) as error:
            raise InputError(f"{path}, after line {line}: {error}", remedy="mend the row") from None

    def _row(self, row: Mapping[str, Any], path: Path, number: int, line: int) -> BatchInput:
        files: dict[str, str] = {}
        values: dict[str, Any] = {}
        label = f"{path.stem}-{line}"
        for column, cell in row.items():
            if column == "id":
                label = str(cell)
            elif column == "image":
                files[self._key()] = _path(cell, column, path)
            elif column in {"set", "inputs"} and isinstance(cell, Mapping):
                for key, value in cell.items():
                    self._check(key, column)
                    if column == "set":
                        values[key] = value
                    else:
                        files[key] = _path(value, key, path)
            elif column.startswith("set."):
                key = column.removeprefix("set.")
                self._check(key, column)
                values[key] = cell
            elif "." in column:
                self._check(column, column)
                files[column] = _path(cell, column, path)
        if not files and not values:
            raise InputError(
                "the row names no file and no value", remedy="columns are NODE.INPUT, set.NODE.INPUT, image and id"
            )
        return BatchInput("row", _printable(label), files, values, (number, f"{line:012}"))

    def _key(self) -> str:
        if self._given is None:
            self._given = sole_input(self._workflow)
        return self._given

    def _check(self, key: str, where: str) -> None:
        """Check that the workflow has such an input, once for each."""
        if key in self._checked:
            return
        try:
            self._workflow.with_input(key, "")
        except WorkflowError as error:
            raise InputError(f"{where}: {error}", remedy=error.remedy) from None
        self._checked.add(key)


def _csv_rows(file: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(file, strict=True)
    for row in reader:
        if None in row:
            raise ValueError("the row has more cells than there are columns")
        # An empty cell leaves the workflow as it is.
        cells = {column.strip(): cell for column, cell in row.items() if cell not in {None, ""}}
        if cells:
            yield (
                reader.line_num,
                {column: _value(cell) if column.startswith("set.") else cell for column, cell in cells.items()},
            )


def _json_rows(file: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        row = json.loads(text)
        if not isinstance(row, dict):
            raise ValueError(f"line {line} is not a JSON object")
        yield line, {column: cell for column, cell in row.items() if cell is not None or column.startswith("set.")}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _path(cell: Any, column: str, table: Path) -> str:
    if not isinstance(cell, str) or not cell or "\0" in cell:
        raise InputError(f"{column} is {cell!r:.80}, not a file name", remedy="name a file, relative to the table")
    return os.path.abspath(table.parent / Path(cell).expanduser())  # noqa: PTH100


def _printable(text: str) -> str:
    """A name that may hold any bytes, as text that can be stored and shown."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _cannot_read(text: str, error: Exception) -> InputError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return InputError(f"cannot read {text!r}: {reason}", remedy="check the path")
