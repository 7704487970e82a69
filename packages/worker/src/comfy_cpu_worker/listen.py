"""The socket that the API listens on, bound before anything slow begins."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from pathlib import Path

from comfy_cpu_core.errors import UsageError
from comfy_cpu_worker.hosts import is_loopback

__all__ = ["check_exposure", "open_sockets", "url_of"]

_BACKLOG = 1024


def check_exposure(host: str, *, token: bool, allowed: bool) -> None:
    """See that nobody is let in by mistake.

    Raises:
        UsageError: the worker would listen beyond this machine, without a token, and nobody said that it may.
    """
    if not (is_loopback(host) or token or allowed):
        raise UsageError(
            f"listening on {host} lets everybody who can reach this machine run jobs",
            remedy="set a token (COMFY_CPU_TOKEN or --token-file), listen on 127.0.0.1, or say --allow-remote",
        )


def open_sockets(host: str, port: int) -> list[socket.socket]:
    """Listen on every address that a host name stands for; with port 0, on the same free port on each.

    Raises:
        UsageError: the name means nothing here, or the port cannot be had; the message says who has it, if it can.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot listen on {host}: {reason}", remedy="name an address of this machine") from None
    sockets: list[socket.socket] = []
    for family, _, _, _, address in dict.fromkeys(found):
        number = sockets[0].getsockname()[1] if sockets and port == 0 else port
        try:
            sockets.append(_listen(family, (address[0], number, *address[2:])))
        except OSError as error:
            for opened in sockets:
                opened.close()
            raise _cannot_listen(host, number, error) from None
    return sockets


def url_of(host: str, sockets: list[socket.socket]) -> str:
    """The URL to type into a browser on this machine."""
    port = sockets[0].getsockname()[1]
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{name}:{port}"


def _listen(family: int, address: tuple[str | int, ...]) -> socket.socket:
    # With the protocol named, asyncio knows accepted connections for TCP and sends small answers at once (TCP_NODELAY):
    # a client that keeps its connection would else wait 40 ms for the second half of each.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _cannot_listen(host: str, port: int, error: OSError) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"port {port} of {host} is taken{_by_whom(port)}", remedy="end that program, or take another --port"
        )
    if error.errno == errno.EACCES:
        return UsageError(f"port {port} needs more rights", remedy="take a --port of 1024 or more")
    return UsageError(
        f"cannot listen on {host}, port {port}: {error.strerror}", remedy="name an address of this machine with --host"
    )


def _by_whom(port: int) -> str:
    """by …, as far as it can be told."""
    service = _ask(port)
    holder = _process_of(port)
    if service:
        return f" by a {service}{f' (pid {holder[0]})' if holder else ''}"
    return f" by {holder[1]} (pid {holder[0]})" if holder else ""


def _ask(port: int) -> str | None:
    """What kind of service answers there, if it is one that we know."""
    import json
    from http.client import HTTPException
    from urllib.request import ProxyHandler, build_opener

    opener = build_opener(ProxyHandler({}))
    for path, key, name in (("healthz", "service", "comfy-cpu worker"), ("system_stats", "system", "ComfyUI")):
        with (
            suppress(OSError, HTTPException, ValueError),
            opener.open(f"http://127.0.0.1:{port}/{path}", timeout=0.5) as answer,
        ):
            if key in json.loads(answer.read(65536)):
                return name
    return None


def _process_of(port: int) -> tuple[int, str] | None:
    """Pid and name of the process that listens on a port, if it is one that we may look at."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                local, state, inode = (fields := line.split())[1], fields[3], fields[9]
                if state == "0A" and int(local.rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{inode}]")
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                if str(descriptor.readlink()) in inodes:
                    return int(process.name), (process / "comm").read_text().strip()
    return None
