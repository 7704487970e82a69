"""What holds for every test."""

from __future__ import annotations

import signal

# Under nohup, or begun with & by a script, a process inherits signals that are ignored, and so would every process that
# a test starts and then wants to end.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
