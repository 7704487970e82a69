"""Where a queue of jobs is, and how to get in: read once from a target's name and options. Secrets show in no repr."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from comfy_cpu_core.errors import UsageError

__all__ = ["RUNPOD_URL", "SCHEMES", "Endpoint", "parse_endpoints"]

#: RunPod's own queue API; ``RUNPOD_ENDPOINT_BASE_URL``, which its SDK reads too, names another.
RUNPOD_URL = "https://api.runpod.ai/v2"

SCHEMES = ("runpod", "worker+http", "worker+https")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_SECRET = re.compile(r"[!-~]{1,1000}")


@dataclass(frozen=True)
class Endpoint:
    """A queue of jobs.

    Attributes:
        kind: ``runpod``, or ``worker`` for our own, which takes idempotency keys: there a job may be sent twice.
        url: what the operations' paths are added to, without a slash at its end; fit for messages.
        token: the bearer token or API key, or None; secret.
    """

    kind: Literal["runpod", "worker"]
    url: str
    token: str | None = field(default=None, repr=False)

    @property
    def keyed(self) -> bool:
        """Whether two submissions with the same idempotency key are one job there."""
        return self.kind == "worker"

    @property
    def where(self) -> str:
        """What messages call it."""
        if self.kind == "worker":
            return f"the worker at {self.url}"
        return f"the RunPod endpoint {self.url.rpartition('/')[2]}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers that let a request in; secret."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}


def parse_endpoints(
    name: str,
    *,
    api_key: str | None = None,
    token: str | None = None,
    base_url: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[Endpoint, ...]:
    """Read a target's name: ``runpod://ID[,ID…]`` or ``worker+http(s)://HOST[:PORT][/v2/ID]``.

    Args:
        api_key: RunPod's; None for ``RUNPOD_API_KEY`` of `environ`.
        token: our worker's; None for ``COMFY_CPU_TOKEN`` of `environ`, else it has none.
        base_url: where RunPod's API is; None for ``RUNPOD_ENDPOINT_BASE_URL`` of `environ`, else `RUNPOD_URL`.
        environ: the environment; None for an empty one.

    Raises:
        UsageError: it is no such name, or the key is missing. The message repeats nothing that may be secret.
    """
    environ = environ or {}
    if name.startswith("runpod:"):
        base = (base_url or environ.get("RUNPOD_ENDPOINT_BASE_URL") or RUNPOD_URL).rstrip("/")
        key = api_key or environ.get("RUNPOD_API_KEY")
        return _runpod(name, base, key)
    return (_worker(name, token or environ.get("COMFY_CPU_TOKEN") or None),)


def _runpod(name: str, base: str, key: str | None) -> tuple[Endpoint, ...]:
    remedy = "write runpod://ENDPOINT_ID, or runpod://FIRST,SECOND to have one to fall back on"
    ids = name.removeprefix("runpod://").split(",") if name.startswith("runpod://") else []
    if not ids or not all(map(_ID.fullmatch, ids)):
        raise UsageError("the RunPod target names no endpoint id, or something that is none", remedy=remedy)
    parts = _split(base, "RUNPOD_ENDPOINT_BASE_URL")
    if not key:
        raise UsageError(
            "there is no API key for RunPod",
            remedy="set RUNPOD_API_KEY; the console makes keys under Settings, API Keys",
        )
    if not _SECRET.fullmatch(key):
        raise UsageError("the API key for RunPod is not one line of printable characters without spaces")
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise UsageError(
            f"the API key for RunPod would go to {parts.hostname} without encryption",
            remedy="use https in RUNPOD_ENDPOINT_BASE_URL; for a worker of your own, write worker+http://HOST:PORT",
        )
    return tuple(Endpoint("runpod", f"{base}/{endpoint_id}", key) for endpoint_id in dict.fromkeys(ids))


def _worker(name: str, token: str | None) -> Endpoint:
    if not name.startswith(("worker+http://", "worker+https://")):
        raise UsageError("the address of the worker is no URL", remedy="write worker+http://HOST:8000")
    parts = _split(name.removeprefix("worker+"), "the address of the worker")
    if token is not None and not _SECRET.fullmatch(token):
        raise UsageError("the worker's token is not one line of printable characters without spaces")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = f":{parts.port}" if parts.port is not None else ""
    # A lone slash is the root: there RunPod's SDK serves the same API when it is started with --rp_serve_api.
    path = parts.path.rstrip("/") if parts.path else "/v2/local"
    return Endpoint("worker", f"{parts.scheme}://{host}{port}{path}", token)


def _split(url: str, what: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise UsageError(f"{what} is no URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError(f"{what} is no URL with a host", remedy="write it like https://HOST or http://HOST:PORT")
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError(
            f"{what} has a user, a ? or a # in it", remedy="leave them out; a token is an option or a variable"
        )
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
