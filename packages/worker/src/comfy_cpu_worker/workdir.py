"""A directory for the files of a process that may die at any moment, and so may the one that made the directory.

Each is locked by its maker for as long as that lives. `sweep` removes those whose maker is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

__all__ = ["WorkDirectory", "sweep"]

_PREFIX = "comfy-cpu-worker-"
_LOCK = "owner.lock"


class WorkDirectory:
    """A new directory that this process holds until `remove`.

    Args:
        parent: where to make it; None for the system's place for temporary files.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, parent: Path | None = None) -> None:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        # Under another name until it is locked, so that no other worker sweeps it away.
        self.path = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=parent)).resolve()
        self._lock: int | None = None
        try:
            self._lock = _open_lock(self.path)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self.path = self.path.rename(self.path.with_name(self.path.name[1:]))
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove it and all that is in it, as far as that is possible. May be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def sweep(parent: Path | None = None) -> None:
    """Remove the directories that workers left behind when they were killed."""
    for path in (parent or Path(tempfile.gettempdir())).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or another worker was faster
            lock = _open_lock(path)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _open_lock(directory: Path) -> int:
    return os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
