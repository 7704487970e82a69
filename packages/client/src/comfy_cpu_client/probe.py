"""What a bare URL leads to: our worker, or a ComfyUI."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from comfy_cpu_client.errors import TargetUnreachable
from comfy_cpu_client.sessions import SessionPool, ca_bundle, failure_reason
from comfy_cpu_core.errors import TargetError, UsageError

__all__ = ["probe"]

_SECONDS = 10.0
_MAX_BYTES = 1_000_000


def probe(url: str, options: Mapping[str, Any]) -> Literal["worker", "comfyui"]:
    """Ask who is there. No key and no password is sent: both answer this to everybody, or say that they want one.

    Args:
        url: ``http(s)://[USER:PASSWORD@]HOST[:PORT][/PATH]``.
        options: the target's; ``verify`` and ``proxy`` count here, too.

    Raises:
        UsageError: it is no URL.
        TargetUnreachable: nothing answers.
        TargetError: it is neither of the two.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise UsageError("the target is no URL with a host", remedy="write http://HOST:8000 or http://HOST:8188")
    netloc = f"[{host}]" if ":" in host else host
    root = f"{parts.scheme}://{netloc}{f':{port}' if port is not None else ''}"
    pool = SessionPool("a target at a URL", proxy=options.get("proxy"))
    verify: bool | str | Path = options.get("verify", True)
    try:
        status, document = _get(pool, f"{root}/healthz", root, ca_bundle(verify))
        if status == 200 and document.get("service") == "comfy-cpu-worker":
            return "worker"
        path = parts.path.rstrip("/")
        status, document = _get(pool, f"{root}{path}/system_stats", root, ca_bundle(verify))
    finally:
        pool.close()
    # One that wants a login is asked with it later; our worker tells everybody who it is.
    if (status == 200 and "system" in document) or status in {401, 403}:
        return "comfyui"
    raise TargetError(
        f"what answers at {root} is neither a comfy-cpu worker nor a ComfyUI",
        remedy="check the address, or say what it is: worker+http://HOST:8000, comfyui+http://HOST:8188",
    )


def _get(pool: SessionPool, url: str, where: str, verify: bool | str) -> tuple[int, Mapping[str, Any]]:
    import requests

    try:
        with (
            pool.session() as session,
            session.get(
                url,
                auth=lambda request: request,  # nothing of ~/.netrc, either
                verify=verify,
                proxies=pool.proxies,
                timeout=_SECONDS,
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            body = next(response.iter_content(_MAX_BYTES), b"")
    except requests.RequestException as error:
        raise TargetUnreachable(
            f"{where} cannot be reached: {failure_reason(error)}",
            remedy="check the address, and that something listens there",
            sent=False,
        ) from None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    return response.status_code, document if isinstance(document, dict) else {}
