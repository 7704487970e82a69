"""HTTP to addresses that strangers name, without going where it must not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["UrlPolicy"]


@dataclass(frozen=True)
class UrlPolicy:
    """Where a URL of a job may lead, and how long it may take.

    Attributes:
        allow_hosts: hosts that are allowed; empty for all that are public. ``*.example.com`` stands for all below it.
        deny_hosts: hosts that are not, whatever `allow_hosts` says.
        ports: ports that are allowed; empty for all.
        allow_private: whether addresses of private networks and of this machine are allowed, too: for networks where
            everybody who may send jobs is trusted. Link-local and metadata addresses never are.
        redirects: how many are followed.
        connect_s, read_s: seconds to wait for a connection, and for the next bytes.
        total_s: seconds for everything, redirects too.
        ca_file: certificates to trust besides the system's.
    """

    allow_hosts: tuple[str, ...] = ()
    deny_hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = (80, 443)
    allow_private: bool = False
    redirects: int = 3
    connect_s: float = 5.0
    read_s: float = 15.0
    total_s: float = 60.0
    ca_file: Path | None = None
