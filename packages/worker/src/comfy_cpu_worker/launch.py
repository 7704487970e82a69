"""Becomes a supervised process: does what must be done in the new process, then runs its command in its place.

Run by its path, so that nothing but the standard library is imported (20 ms in all)::

    python -I -S launch.py PARENT_PID MEMORY_BYTES COMMAND…

The process is then killed as soon as its parent is gone, however that ended; is the first one that the kernel picks when
memory runs out, so that the parent stays and can tell what happened; and cannot allocate more than MEMORY_BYTES (0: no
limit).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

#: From <linux/prctl.h>.
PR_SET_PDEATHSIG = 1

#: Added to the kernel's badness of a process, in thousandths of the memory.
OOM_SCORE = "500"

NOT_STARTED = 127


def main() -> None:
    """Run the command; comes back only by ending the process."""
    parent, memory, *command = sys.argv[1:]
    # The signal comes when the thread that started this process ends: `SupervisedProcess` keeps that one waiting.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0):
        sys.exit(f"cannot ask to end with the parent: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(parent):
        sys.exit("the parent is gone already")
    with contextlib.suppress(OSError):  # a sandbox may not have it
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")
    if int(memory):
        # Private writable memory. RLIMIT_AS would also count mapped model files and what thread stacks only reserve.
        resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by this Python; the command would inherit that
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606  # a list, no shell
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main()
