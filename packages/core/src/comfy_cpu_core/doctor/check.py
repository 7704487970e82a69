"""`Check`: one finding of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Check", "State", "format_bytes", "one_line"]

#: ok: as it should be. note: works, but worth knowing, or optional and not there. missing: something that a user will
#: want is not there or does not work. problem: the shipped background-removal workflow cannot run.
State = Literal["ok", "note", "missing", "problem"]


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at, short.
        state: see `State`.
        detail: what was found, one line.
        remedy: what to do about it, one line; empty where nothing needs to be done.
    """

    name: str
    state: State
    detail: str
    remedy: str = ""


def format_bytes(count: int) -> str:
    """Bytes for a person: ``7.8 GiB``, ``512 MiB``."""
    mib = count / (1 << 20)
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def one_line(text: object) -> str:
    """Text that may come from elsewhere (an exception of a plugin), without line breaks."""
    return " ".join(str(text).split())
