"""The directory in which a worker keeps its jobs: found, made, and locked against a second worker."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from comfy_cpu_core.errors import UsageError

__all__ = ["StateDirectory", "default_state_dir"]

log = logging.getLogger(__name__)

_LOCK = "lock"


def default_state_dir(environ: Mapping[str, str], port: int) -> Path:
    """Where a worker on that port keeps its jobs if nobody says otherwise: each port has a directory of its own.

    ``comfy-cpu/worker/port-8000`` below ``XDG_STATE_HOME`` (``~/.local/state``).
    """
    state = environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "comfy-cpu" / "worker" / f"port-{port}"


class StateDirectory:
    """A directory that belongs to this process until `close`.

    Attributes:
        path: where it is.
        temporary: whether it goes away with the process.
    """

    def __init__(self, path: Path, *, temporary: bool = False) -> None:
        """Make and lock it.

        Raises:
            UsageError: another worker has it, or it cannot be made or written.
        """
        self.path = path
        self.temporary = temporary
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(
                f"the state directory {path} cannot be written: {error.strerror}",
                remedy="name another with --state DIR",
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._lock, 20, 0).decode("ascii", "replace").strip()
            os.close(self._lock)
            raise UsageError(
                f"the state directory {path} is in use by another worker{f' (pid {holder})' if holder else ''}"
                if isinstance(error, BlockingIOError)
                else f"the state directory {path} cannot be locked: {error.strerror}",
                remedy="end that worker, or name another directory with --state DIR",
            ) from None
        with suppress(OSError):  # who holds it is only for the message above
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    @classmethod
    def open(cls, named: Path | None, default: Path | None) -> StateDirectory:
        """Open the directory that was named, else the default, else (None, or it cannot be written) a temporary one.

        Raises:
            UsageError: the one that was named cannot be used, or another worker has the default.
        """
        if named is not None:
            return cls(named)
        if default is not None:
            if _writable(default):
                return cls(default)
            log.warning("%s cannot be written: jobs that are accepted do not survive this worker", default)
        return cls(Path(tempfile.mkdtemp(prefix="comfy-cpu-worker-")), temporary=True)

    def close(self) -> None:
        """Give it back; a temporary one is removed."""
        if self.temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _writable(path: Path) -> bool:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(path, os.W_OK | os.X_OK)
