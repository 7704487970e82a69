"""The journal of a batch: which inputs there are, what is under way, what came of each. An SQLite file that survives.

A process that is killed leaves it whole, whenever that happens: every change is one transaction, and what is started is
written down before it is started. That an input has no more than one result is a rule of the schema.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from comfy_cpu_client.batch.inputs import BatchInput
from comfy_cpu_core.errors import ComfyCpuError, InputError, UsageError

__all__ = ["JOURNAL", "Journal", "Record", "Recovered", "Waiting"]

#: The file's name in the output directory.
JOURNAL = "batch.sqlite3"

_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE inputs (
    place INTEGER PRIMARY KEY,
    digest TEXT NOT NULL,
    occurrence INTEGER NOT NULL,
    label TEXT NOT NULL,
    folder TEXT NOT NULL UNIQUE,
    document TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'ended')),
    generation INTEGER NOT NULL DEFAULT 1,
    failures INTEGER NOT NULL DEFAULT 0,
    cut_off INTEGER NOT NULL DEFAULT 0,
    target TEXT,
    job TEXT,
    UNIQUE (digest, occurrence)
);
CREATE INDEX inputs_waiting ON inputs (place) WHERE state = 'waiting';
CREATE INDEX inputs_running ON inputs (place) WHERE state = 'running';
CREATE TABLE results (
    place INTEGER PRIMARY KEY REFERENCES inputs,
    session INTEGER NOT NULL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    remedy TEXT,
    target TEXT,
    job TEXT,
    outputs TEXT NOT NULL,
    stand_in INTEGER NOT NULL,
    queue_seconds REAL,
    execution_seconds REAL,
    active_at REAL NOT NULL,
    finished_at REAL NOT NULL
);
CREATE VIEW failed AS SELECT place FROM results WHERE status NOT IN ('completed', 'blocked');
CREATE TABLE attempts (
    place INTEGER NOT NULL REFERENCES inputs,
    target TEXT,
    job TEXT,
    outcome TEXT NOT NULL,
    message TEXT NOT NULL,
    execution_seconds REAL,
    ended_at REAL NOT NULL
);
CREATE INDEX attempts_place ON attempts (place);
CREATE TABLE warnings (message TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (number INTEGER PRIMARY KEY, began_at REAL NOT NULL, active_s REAL NOT NULL DEFAULT 0);
"""

_CUT_OFF_MESSAGE = "the batch's process died while the job was under way, more often than --cut-offs allows"
_CUT_OFF_REMEDY = "if it was not this input that killed it, run again with --retry-failed"


@dataclass(frozen=True)
class Waiting:
    """An input that waits.

    Attributes:
        place: its number.
        generation: counts the jobs that it has had; a job that may still be there is asked for again under the same number.
        failures: how often it was tried in vain.
        target: where its last job was, if that may still be there; else None.
        job: what the target called that job, if it said so.
        folder: the name of its folder of outputs.
        files: ``NODE.INPUT`` → path.
        values: ``NODE.INPUT`` → value.
    """

    place: int
    generation: int
    failures: int
    target: str | None
    job: str | None
    label: str
    folder: str
    files: Mapping[str, str]
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """What came of an input, or of one try.

    Attributes:
        status, reason, message, remedy: see `Verdict`.
        job: the target's name for the job, if it got that far.
        outputs: the paths of its outputs, relative to the output directory.
        queue_seconds, execution_seconds: what the target said; None if it said nothing.
        warnings: what the target warned of.
    """

    status: str
    reason: str = ""
    message: str = ""
    remedy: str | None = None
    target: str | None = None
    job: str | None = None
    outputs: Sequence[str] = ()
    stand_in: bool = False
    queue_seconds: float | None = None
    execution_seconds: float | None = None
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Recovered:
    """What a killed process left: how many jobs wait again, and how many were cut off too often."""

    again: int = 0
    failed: int = 0


class Journal:
    """The journal in a directory; for one process at a time, in the thread that opened it.

    Args:
        directory: the batch's output directory; must be there.
        clock: seconds, monotonic.

    Raises:
        UsageError: another process has it open.
        InputError: it cannot be read or written.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = directory / JOURNAL
        self._clock = clock
        self._session = 0
        self._began = 0.0
        self._before_s = 0.0
        with self._translated():
            self._db = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it. May be called twice."""
        with suppress(sqlite3.Error):
            self._db.close()

    def read(self, query: str, *values: Any) -> list[Any]:
        """The rows of a query that changes nothing."""
        with self._translated():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Change it: all of the block is on the disk behind it, or nothing.

        Raises:
            InputError: it cannot be written.
        """
        with self._translated():
            try:
                # An interrupt may come anywhere, even between the beginning of a block and its first line.
                self._roll_back()
                self._db.execute("BEGIN IMMEDIATE")
                yield
                if self._session:
                    self._db.execute(
                        "UPDATE sessions SET active_s = ? WHERE number = ?",
                        (self._clock() - self._began, self._session),
                    )
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._roll_back()
                raise

    # Beginning --------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """What tells this batch from all others."""
        ((value,),) = self.read("SELECT value FROM meta WHERE key = 'id'")
        return str(value)

    def begin(self, settings: Mapping[str, str], *, restart: bool = False) -> Recovered:
        """Begin a session, and deal with what a killed process left.

        A job that was under way waits again and is counted, but not more often than ``settings["cut_offs"]`` says.

        Args:
            settings: what must be as it was when the batch began (``cut_offs`` may change); name → value.
            restart: forget everything first.

        Raises:
            UsageError: a setting has changed.
        """
        with self.transaction():
            if restart:
                for table in ("warnings", "attempts", "results", "inputs", "sessions", "meta"):
                    self._db.execute(f"DELETE FROM {table}")  # noqa: S608
            known = dict(self._db.execute("SELECT key, value FROM meta").fetchall())
            fixed = {key: value for key, value in settings.items() if key != "cut_offs"}
            for key, value in fixed.items():
                if known and known.get(key) != value:
                    raise UsageError(
                        f"{key} changed since the batch in {self.path.parent} began",
                        remedy="go on as it began, name another --output, or begin anew with --restart",
                    )
            if not known:
                self._db.executemany("INSERT INTO meta VALUES (?, ?)", [("id", uuid.uuid4().hex), *fixed.items()])
            ((self._before_s,),) = self._db.execute("SELECT coalesce(sum(active_s), 0) FROM sessions").fetchall()
            self._began = self._clock()
            self._session = int(
                self._db.execute("INSERT INTO sessions (began_at) VALUES (?)", (time.time(),)).lastrowid or 0
            )
            return self._recover(int(settings.get("cut_offs", "1")))

    def add(self, inputs: Iterable[BatchInput]) -> int:
        """Add the inputs that are not there yet, all or none; gives how many those were.

        They are put into order on the disk: however many there are, memory does not grow.
        """
        with self.transaction():
            self._db.execute(
                "CREATE TEMP TABLE staged (kind TEXT, source INTEGER, rank TEXT, digest TEXT, label TEXT, folder TEXT,"
                " document TEXT)"
            )
            self._db.executemany(
                "INSERT INTO staged VALUES (?, ?, ?, ?, ?, ?, ?)",
                ((one.kind, *one.order, one.digest, one.label, one.folder, one.document) for one in inputs),
            )
            # The same file named twice is one input; of two rows that say the same, each is one.
            added = self._db.execute(
                "INSERT OR IGNORE INTO inputs (digest, occurrence, label, folder, document)"
                " SELECT digest, number, label, CASE WHEN number > 1 THEN folder || '-' || number ELSE folder END,"
                " document FROM (SELECT *, CASE kind WHEN 'row' THEN row_number() OVER"
                " (PARTITION BY digest ORDER BY source, rank) ELSE 1 END AS number FROM staged)"
                " ORDER BY source, rank"
            ).rowcount
            self._db.execute("DROP TABLE staged")
        return added

    def forget_failed(self) -> int:
        """Let every input wait again whose result is a failure; gives how many those were."""
        with self.transaction():
            self._db.execute(
                "INSERT INTO attempts SELECT place, target, job, reason, message, execution_seconds, finished_at"
                " FROM results WHERE place IN failed"
            )
            count = self._db.execute(
                "UPDATE inputs SET state = 'waiting', failures = 0, cut_off = 0, generation = generation + 1,"
                " target = NULL, job = NULL WHERE place IN failed"
            ).rowcount
            self._db.execute("DELETE FROM results WHERE place IN failed")
        return count

    # Under way (inside a transaction) -----------------------------------------------------------------------------------

    def waiting(self, after: int, limit: int) -> list[Waiting]:
        """The next inputs that wait, by place."""
        rows = self.read(
            "SELECT place, generation, failures, target, job, label, folder, document FROM inputs"
            " WHERE state = 'waiting' AND place > ? ORDER BY place LIMIT ?",
            after,
            limit,
        )
        return [Waiting(*row[:7], **json.loads(row[7])) for row in rows]

    def start(self, place: int, target: str) -> None:
        """Write down that a job is about to be started."""
        self._db.execute("UPDATE inputs SET state = 'running', target = ? WHERE place = ?", (target, place))

    def note_job(self, place: int, job: str) -> None:
        """Write down what the target calls the job: whoever goes on with a killed batch can follow it."""
        self._db.execute("UPDATE inputs SET job = ? WHERE place = ?", (job, place))

    def finish(self, place: int, record: Record) -> None:
        """Write down an input's result."""
        self._db.execute("UPDATE inputs SET state = 'ended' WHERE place = ?", (place,))
        self._db.execute(
            "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                place,
                self._session,
                record.status,
                record.reason,
                record.message,
                record.remedy,
                record.target,
                record.job,
                json.dumps(list(record.outputs), ensure_ascii=False),
                record.stand_in,
                record.queue_seconds,
                record.execution_seconds,
                self._before_s + self._clock() - self._began,
                time.time(),
            ),
        )
        self._db.executemany(
            "INSERT INTO warnings VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1",
            [(message,) for message in dict.fromkeys(record.warnings)],
        )

    def retry(self, place: int, record: Record, *, same: bool, counts: bool = True) -> None:
        """Write down that a try failed and the input waits again.

        Args:
            same: its job may be there, and is to be asked for under the same number.
            counts: whether the try counts as a failure.
        """
        self._attempt(place, record)
        self._db.execute(
            "UPDATE inputs SET state = 'waiting', failures = failures + ?, generation = generation + ?,"
            " target = CASE WHEN ? THEN target END, job = NULL WHERE place = ?",
            (counts, not same, same, place),
        )

    def hand_back(self, place: int, *, started: bool) -> None:
        """Let an input wait again, as if nothing had been; `started`: there was a job, and it was cancelled."""
        self._db.execute(
            "UPDATE inputs SET state = 'waiting', generation = generation + ?, target = CASE WHEN ? THEN NULL ELSE"
            " target END, job = CASE WHEN ? THEN NULL ELSE job END WHERE place = ?",
            (started, started, started, place),
        )

    # Reading ----------------------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """How many inputs wait, run, and ended in each status; and ``inputs``, how many there are."""
        states = dict(self.read("SELECT state, count(*) FROM inputs GROUP BY state"))
        statuses = dict(self.read("SELECT status, count(*) FROM results GROUP BY status"))
        return {
            "inputs": sum(states.values()),
            "waiting": states.get("waiting", 0),
            "running": states.get("running", 0),
            **{status: statuses.get(status, 0) for status in _STATUSES},
        }

    # Inside -----------------------------------------------------------------------------------------------------------

    def _roll_back(self) -> None:
        if self._db.in_transaction:  # SQLite may have rolled it back already
            self._db.execute("ROLLBACK")

    def _recover(self, cut_offs: int) -> Recovered:
        again = failed = 0
        rows = self._db.execute("SELECT place, target, cut_off FROM inputs WHERE state = 'running'").fetchall()
        for place, target, before in rows:
            cut = Record("failed", "cut_off", _CUT_OFF_MESSAGE, _CUT_OFF_REMEDY, target)
            self._attempt(place, cut)
            self._db.execute("UPDATE inputs SET cut_off = cut_off + 1, state = 'waiting' WHERE place = ?", (place,))
            if before >= cut_offs:
                self.finish(place, cut)
                failed += 1
            else:
                again += 1
        return Recovered(again, failed)

    def _attempt(self, place: int, record: Record) -> None:
        self._db.execute(
            "INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                place,
                record.target,
                record.job,
                record.reason,
                record.message,
                record.execution_seconds,
                time.time(),
            ),
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_BUSY:
                raise UsageError(
                    f"another process runs the batch in {self.path.parent}",
                    remedy="wait for it, or name another --output",
                ) from None
            if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
                what, remedy = f"cannot be read: {error}", "move it away and begin anew, or name another --output"
            elif code == sqlite3.SQLITE_FULL:
                what, remedy = "cannot be written: the disk is full", "make room, and run the same command again"
            else:
                what, remedy = f"cannot be used: {error}", "name an --output that you may write to"
            raise InputError(f"the journal {self.path} {what}", remedy=remedy) from error

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, timeout=0)
        try:
            # Held as long as the file is open: a second process gets SQLITE_BUSY. The lock dies with its process.
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA temp_store = FILE")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise ComfyCpuError(
                    f"{self.path} was written by a newer comfy-cpu", remedy="update comfy-cpu, or name another --output"
                )
            if version == 0:
                db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        except BaseException:
            db.close()
            raise
        return db


_STATUSES = ("completed", "blocked", "failed", "cancelled", "timed_out")
