"""Jobs that survive the worker: an embedded SQLite database.

Every change of a job's state is one transaction, on the disk before it is answered. A job's document is written without
its secrets. Inputs and outputs have tables of their own, so that a change of state does not write megabytes.

A `Store` belongs to the thread that opened it.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from comfy_cpu_worker.database import Database
from comfy_cpu_worker.errors import JobConflict, JobUnknown, KeyReused, QueueFull
from comfy_cpu_worker.records import JobRecord, JobState, NewJob, Recovered, Started

__all__ = ["CUT_OFF_TWICE", "DATABASE", "SECRETS_LOST", "Store"]

#: The database's name in the state directory.
DATABASE = "jobs.sqlite3"

CUT_OFF_TWICE = "the worker died twice while this job ran; it is not run again"

SECRETS_LOST = (
    "the worker ended before it ran this job, whose secrets (keys) are never written to the disk; submit it again"
)

_VERSION = 1

_SCHEMA = """
CREATE TABLE jobs (
    place INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    cut_off INTEGER NOT NULL DEFAULT 0,
    queued_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    finished_at REAL,
    keep_s REAL NOT NULL,
    delay_ms INTEGER,
    execution_ms INTEGER,
    idempotency_key TEXT UNIQUE,
    digest TEXT NOT NULL,
    has_secrets INTEGER NOT NULL,
    error TEXT
);
CREATE INDEX jobs_by_state ON jobs (state, place);
CREATE TABLE inputs (id TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE, document BLOB NOT NULL);
CREATE TABLE outputs (
    id TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE, size INTEGER NOT NULL, output BLOB NOT NULL
);
"""

_COLUMNS = (
    "id, state, attempts, cut_off, queued_at, expires_at, finished_at, delay_ms, execution_ms, has_secrets, error"
)


class Store:
    """The database.

    Args:
        directory: where it is; must be there, and belong to this process alone (`comfy_cpu_worker.statedir`).

    A database that cannot be read is set aside, and a new one begun: the log says so.

    Raises:
        StorageFailed: the directory is full or cannot be written.
        ComfyCpuError: it was written by a newer comfy-cpu.
    """

    def __init__(self, directory: Path) -> None:
        self._database = Database(directory / DATABASE, _SCHEMA, _VERSION)

    def close(self) -> None:
        """Close it. May be called twice."""
        self._database.close()

    # Going in ---------------------------------------------------------------------------------------------------------

    def add(self, job: NewJob, now: float, limit: int, retry_after_s: float) -> tuple[JobRecord, bool]:
        """Queue a job, or find the one with the same idempotency key; the second value is whether it is new.

        Raises:
            QueueFull: `limit` jobs wait already.
            KeyReused: the key belongs to a job that says something else.
            StorageFailed: it could not be written.
        """
        with self._database.transaction() as db:
            if job.idempotency_key is not None:
                found = db.execute(
                    "SELECT id, digest FROM jobs WHERE idempotency_key = ?", (job.idempotency_key,)
                ).fetchone()
                if found is not None:
                    if found[1] != job.digest:
                        raise KeyReused(
                            f"the idempotency key belongs to job {found[0]}, which is another one",
                            remedy="use a new key for every job, and the same only to submit the same job again",
                        )
                    return self._record(found[0]), False
            self._check_room(limit, retry_after_s)
            db.execute(
                "INSERT INTO jobs (id, state, queued_at, expires_at, keep_s, idempotency_key, digest, has_secrets)"
                " VALUES (?, 'IN_QUEUE', ?, ?, ?, ?, ?, ?)",
                (job.id, now, now + job.ttl_s, job.keep_s, job.idempotency_key, job.digest, job.has_secrets),
            )
            db.execute("INSERT INTO inputs (id, document) VALUES (?, ?)", (job.id, job.document))
            return self._record(job.id), True

    def retry(self, job_id: str, now: float, limit: int, retry_after_s: float) -> JobRecord:
        """Queue a job that FAILED or TIMED_OUT once more, at the end of the queue, with the time to live it had.

        Raises:
            JobUnknown, QueueFull, StorageFailed: see `add`.
            JobConflict: it is in another state.
        """
        with self._database.transaction() as db:
            record = self._record(job_id)
            if record.state not in {"FAILED", "TIMED_OUT"}:
                raise JobConflict(
                    f"job {job_id} is {record.state}", remedy="only a job that FAILED or TIMED_OUT can be run again"
                )
            self._check_room(limit, retry_after_s)
            db.execute("DELETE FROM outputs WHERE id = ?", (job_id,))
            db.execute(
                "UPDATE jobs SET place = (SELECT max(place) + 1 FROM jobs), state = 'IN_QUEUE', cut_off = 0,"
                " expires_at = expires_at - queued_at + ?, queued_at = ?, finished_at = NULL, delay_ms = NULL,"
                " execution_ms = NULL, error = NULL WHERE id = ?",
                (now, now, job_id),
            )
            return self._record(job_id)

    def recover(self, now: float) -> Recovered:
        """Deal with what the worker left when it ended: to be called before anything else.

        A job that ran when the worker died waits again, in its old place, but only once. A job with secrets fails: they
        died with the worker.
        """
        failed: dict[str, str] = {}
        with self._database.transaction() as db:
            cut = db.execute("SELECT id, cut_off FROM jobs WHERE state = 'IN_PROGRESS' ORDER BY place").fetchall()
            failed |= {job_id: CUT_OFF_TWICE for job_id, before in cut if before}
            db.execute("UPDATE jobs SET state = 'IN_QUEUE', cut_off = 1 WHERE state = 'IN_PROGRESS' AND NOT cut_off")
            lost = db.execute("SELECT id FROM jobs WHERE state = 'IN_QUEUE' AND has_secrets").fetchall()
            failed |= {job_id: SECRETS_LOST for (job_id,) in lost}
            # Whoever submits such a job again may use its key again.
            db.execute("UPDATE jobs SET idempotency_key = NULL WHERE state = 'IN_QUEUE' AND has_secrets")
            for job_id, error in failed.items():
                self._end(db, job_id, "FAILED", error, now)
            waiting = db.execute("SELECT id, queued_at FROM jobs WHERE state = 'IN_QUEUE'").fetchall()
        return Recovered(dict(waiting), [job_id for job_id, _ in cut if job_id not in failed], failed)

    # Running ----------------------------------------------------------------------------------------------------------

    def start_next(self) -> Started | None:
        """Take the job that has waited longest, or None; it is IN_PROGRESS from now on."""
        with self._database.transaction() as db:
            found = db.execute(
                "SELECT jobs.id, document FROM jobs JOIN inputs USING (id)"
                " WHERE state = 'IN_QUEUE' ORDER BY place LIMIT 1"
            ).fetchone()
            if found is None:
                return None
            db.execute("UPDATE jobs SET state = 'IN_PROGRESS', attempts = attempts + 1 WHERE id = ?", (found[0],))
            return Started(self._record(found[0]), found[1])

    def finish(self, record: JobRecord) -> bool:
        """Record how the job that ran ended; False if it was cancelled meanwhile, which counts."""
        with self._database.transaction() as db:
            if self._record(record.id).state != "IN_PROGRESS":
                return False
            if record.output is not None:
                db.execute(
                    "INSERT INTO outputs (id, size, output) VALUES (?, ?, ?)",
                    (record.id, len(record.output), record.output),
                )
            db.execute(
                "UPDATE jobs SET delay_ms = ?, execution_ms = ? WHERE id = ?",
                (record.delay_ms, record.execution_ms, record.id),
            )
            self._end(db, record.id, record.state, record.error, record.finished_at)
            return True

    def hand_back(self, job_id: str) -> None:
        """Put the job that runs back into its place in the queue; it is not counted as cut off."""
        with self._database.transaction() as db:
            db.execute("UPDATE jobs SET state = 'IN_QUEUE' WHERE id = ? AND state = 'IN_PROGRESS'", (job_id,))

    def cancel(self, job_id: str, error: str, now: float) -> JobState:
        """End a job that waits or runs, at once; give its state before. A job that ended stays as it is.

        Raises:
            JobUnknown: there is none of that id.
        """
        with self._database.transaction() as db:
            before = self._record(job_id)
            if not before.ended:
                self._end(db, job_id, "CANCELLED", error, now)
            return before.state

    def purge(self, error: str, now: float) -> list[str]:
        """End every job that waits; give their ids."""
        with self._database.transaction() as db:
            waiting = [row[0] for row in db.execute("SELECT id FROM jobs WHERE state = 'IN_QUEUE'").fetchall()]
            for job_id in waiting:
                self._end(db, job_id, "CANCELLED", error, now)
            return waiting

    def expire(self, now: float) -> list[str]:
        """End every job that waits and whose time to live is over; give their ids."""
        query = "SELECT id FROM jobs WHERE state = 'IN_QUEUE' AND expires_at <= ?"
        if self._database.read(query, now) == []:
            return []
        with self._database.transaction() as db:
            expired = [row[0] for row in db.execute(query, (now,)).fetchall()]
            for job_id in expired:
                self._end(db, job_id, "TIMED_OUT", "its time to live (policy.ttl) ended while it waited", now)
            return expired

    # Reading ----------------------------------------------------------------------------------------------------------

    def get(self, job_id: str, *, output: bool = True) -> JobRecord:
        """What is kept of a job.

        Raises:
            JobUnknown: there is none of that id.
        """
        return self._record(job_id, output=output)

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state that occurs."""
        return dict(self._database.read("SELECT state, count(*) FROM jobs GROUP BY state"))

    # Clearing up ------------------------------------------------------------------------------------------------------

    def sweep(self, now: float, keep_bytes: int) -> list[str]:
        """Forget jobs whose results need not be kept any longer, and the oldest where outputs take too much room.

        Gives their ids. Pages that became free go back to the file system, some at a time.
        """
        old = [row[0] for row in self._database.read("SELECT id FROM jobs WHERE finished_at + keep_s <= ?", now)]
        sizes = self._database.read(
            "SELECT outputs.id, size FROM outputs JOIN jobs USING (id) WHERE finished_at + keep_s > ?"
            " ORDER BY finished_at DESC, place DESC",
            now,
        )
        kept = 0
        for number, (job_id, size) in enumerate(sizes):
            kept += size
            if kept > keep_bytes and number:  # the last one is kept in any case: somebody waits for it
                old.append(job_id)
        if old:
            with self._database.transaction() as db:
                db.executemany("DELETE FROM jobs WHERE id = ?", [(job_id,) for job_id in old])
        self._database.shrink()
        return old

    # Inside -----------------------------------------------------------------------------------------------------------

    def _check_room(self, limit: int, retry_after_s: float) -> None:
        ((waiting,),) = self._database.read("SELECT count(*) FROM jobs WHERE state = 'IN_QUEUE'")
        if waiting >= limit:
            raise QueueFull(
                f"the queue is full: {waiting} jobs wait",
                retry_after_s=retry_after_s,
                remedy="try again later, or start the worker with a longer queue (--queue)",
            )

    def _end(self, db: sqlite3.Connection, job_id: str, state: JobState, error: str | None, now: float | None) -> None:
        db.execute("UPDATE jobs SET state = ?, error = ?, finished_at = ? WHERE id = ?", (state, error, now, job_id))
        if state not in {"FAILED", "TIMED_OUT"}:  # those may be asked for again
            db.execute("DELETE FROM inputs WHERE id = ?", (job_id,))

    def _record(self, job_id: str, *, output: bool = False) -> JobRecord:
        rows = self._database.read(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", job_id)  # noqa: S608
        if not rows:
            raise JobUnknown(
                f"there is no job {job_id[:100]!r}", remedy="results are kept for a time; submit the job again"
            )
        values = dict(zip(_COLUMNS.split(", "), rows[0], strict=True))
        values.update(cut_off=bool(values["cut_off"]), has_secrets=bool(values["has_secrets"]))
        found = self._database.read("SELECT output FROM outputs WHERE id = ?", job_id) if output else []
        return JobRecord(**values, output=found[0][0] if found else None)
