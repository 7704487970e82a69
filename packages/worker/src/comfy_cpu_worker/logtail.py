"""The last lines of a log, out of a stream of bytes. Reads nothing itself."""

from __future__ import annotations

import re
from collections import deque

__all__ = ["LogTail"]

#: A longer line is cut: a progress bar without an end, or a program that prints its data.
MAX_LINE = 2000

# Colours, and what would move the cursor of a terminal or fake a line of another log.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class LogTail:
    """Splits what a process writes into lines and keeps the last ones.

    Args:
        keep: how many.
    """

    def __init__(self, keep: int) -> None:
        self._lines: deque[str] = deque(maxlen=keep)
        self._rest = b""

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines, without empty ones; the oldest first."""
        return tuple(self._lines)

    def feed(self, data: bytes) -> list[str]:
        """Take some bytes; gives the lines that they complete. A carriage return ends a line, as progress bars do."""
        *whole, rest = re.split(rb"[\r\n]", self._rest + data)
        self._rest = rest[: MAX_LINE * 4]  # a character has at most four bytes
        return self._keep(whole)

    def finish(self) -> list[str]:
        """Take what is left as the last line."""
        rest, self._rest = self._rest, b""
        return self._keep([rest])

    def _keep(self, raw: list[bytes]) -> list[str]:
        texts = (_CONTROL.sub("", line.decode(errors="replace")).rstrip() for line in raw)
        lines = [text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]} …" for text in texts if text]
        self._lines.extend(lines)
        return lines
