"""The SQLite file below the worker's store: opened with care, changed in transactions, its errors ours."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from comfy_cpu_core.errors import ComfyCpuError
from comfy_cpu_worker.errors import StorageFailed

__all__ = ["Database"]

log = logging.getLogger(__name__)

#: Pages that are given back to the file system at a time: 16 MB.
_VACUUM_PAGES = 4096

#: A larger file is not looked through when it is opened: that would hold up the start for seconds.
_CHECKED_BYTES = 256 * 2**20

#: What the write-ahead log keeps of its size when it begins anew.
_WAL_BYTES = 32 * 2**20


class Database:
    """A database that one process uses, in the thread that opened it.

    Args:
        path: its file; the directory must be there.
        schema: the SQL that makes its tables.
        version: the schema's; kept in the file.

    A file that cannot be read is set aside, and a new one begun: the log says so.

    Raises:
        StorageFailed: the directory is full or cannot be written.
        ComfyCpuError: the file was written by a newer comfy-cpu.
    """

    def __init__(self, path: Path, schema: str, version: int) -> None:
        self._path = path
        self._schema = schema
        self._version = version
        with self._translated():
            try:
                self._db = self._open()
            except sqlite3.DatabaseError as error:
                if not _is_unreadable(error):
                    raise
                aside = self._set_aside()
                log.error("%s cannot be read (%s): it is now %s, and a new one begins", path, error, aside.name)
                self._db = self._open()

    def read(self, query: str, *values: Any) -> list[Any]:
        """The rows of a query that changes nothing.

        Raises:
            StorageFailed: it cannot be read.
        """
        with self._translated():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Change it: all of the block is on the disk behind it, or nothing.

        Raises:
            StorageFailed: it cannot be written.
        """
        with self._translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite may have rolled it back already
                    with suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                raise

    def shrink(self) -> None:
        """Give pages that are free back to the file system, some at a time."""
        with self._translated():
            # Not `execute`: it takes one step, which frees one page.
            self._db.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")

    def close(self) -> None:
        """Close it. May be called twice."""
        with suppress(sqlite3.Error):
            self._db.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            what = "is full" if full else f"fails: {error}"
            remedy = (
                "make room on that disk" if full else "see that it can be written, or name another with --state DIR"
            )
            raise StorageFailed(f"the state directory {self._path.parent} {what}", remedy=remedy) from error

    def _open(self) -> sqlite3.Connection:
        # Made here and not by SQLite, which would let the umask decide; its other files take the mode from this one.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self._path, isolation_level=None)
        try:
            # No other process uses it: so SQLite needs no shared memory, which a full disk could turn into a SIGBUS.
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            db.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > self._version:
                raise ComfyCpuError(
                    f"{self._path} was written by a newer comfy-cpu",
                    remedy="update comfy-cpu, or name another directory with --state DIR",
                )
            if version == 0:
                db.executescript(f"BEGIN; {self._schema} PRAGMA user_version = {self._version}; COMMIT;")
            if self._path.stat().st_size <= _CHECKED_BYTES:
                (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
                if verdict != "ok":
                    raise sqlite3.DatabaseError(verdict)
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self) -> Path:
        aside = self._path.with_name(f"{self._path.name}.unreadable")
        self._path.replace(aside)
        for suffix in ("-wal", "-shm", "-journal"):
            self._path.with_name(f"{self._path.name}{suffix}").unlink(missing_ok=True)
        return aside


def _is_unreadable(error: sqlite3.DatabaseError) -> bool:
    """Whether the file itself is at fault, not the disk."""
    code = getattr(error, "sqlite_errorcode", None)
    # Without a code it is the verdict above; SQLITE_ERROR: the tables are somebody else's.
    return code is None or code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
