"""What it means when an endpoint, or what stands before it, says no. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from comfy_cpu_client.errors import TargetBusy, TargetRefused
from comfy_cpu_client.runpod.address import Endpoint
from comfy_cpu_client.runpod.protocol import Operation

__all__ = ["LONGEST_WAIT_S", "refusal", "retry_after"]

#: A longer ``Retry-After`` counts as this.
LONGEST_WAIT_S = 300.0

_BUSY = frozenset({429, 503})


def refusal(
    endpoint: Endpoint, operation: Operation, status: int, headers: Mapping[str, str], body: bytes
) -> TargetRefused:
    """The error for an answer that is not 200.

    Args:
        headers: by name in lower case.
        body: as much of it as there is.
    """
    where = endpoint.where
    said, remedy = _said(body)
    reason = f": {said}" if said else ""
    if status in _BUSY:
        what = "is asked too often" if status == 429 and endpoint.kind == "runpod" else "takes no more at the moment"
        return TargetBusy(
            f"{where} {what} ({status}){reason}",
            status=status,
            retry_after_s=retry_after(headers.get("retry-after")),
            remedy=remedy or "try again later, or with less at once",
        )
    key = (
        "RUNPOD_API_KEY" if endpoint.kind == "runpod" else "the token (COMFY_CPU_TOKEN where the worker runs, and here)"
    )
    hint: str | None
    match status:
        case 401 if endpoint.token is None:
            what, hint = f"{where} wants a token (401)", "set COMFY_CPU_TOKEN, or give the option token"
        case 401:
            what, hint = f"{where} does not take this key (401)", f"check {key}"
        case 402:
            what, hint = f"{where} wants to be paid first (402){reason}", "look at the balance in RunPod's console"
        case 403:
            what = f"{where} does not allow this (403){reason}"
            hint = f"ask for what {key} may do" if endpoint.kind == "runpod" else remedy
        case 404 if operation in {"status", "stream", "cancel", "retry"}:
            what, hint = f"{where} knows no such job (404)", "results are kept for a time only: run it again"
        case 404:
            what = f"{where} is not there (404)"
            hint = "check the endpoint's id, and that the key belongs to the same account"
            if endpoint.kind == "worker":
                hint = "is a `comfy-cpu serve` at that address?"
        case 413:
            what, hint = f"{where} takes no job of this size (413)", remedy or "send smaller files"
        case _ if 300 <= status < 400:
            what, hint = f"{where} sends elsewhere ({status})", "give the address that it leads to"
        case _ if status >= 500:
            what, hint = f"{where} failed ({status}){reason}", remedy or "look into its log, or try again"
        case _:
            what, hint = f"{where} refuses the job ({status}){reason}", remedy
    return TargetRefused(what, status=status, remedy=hint)


def retry_after(value: str | None) -> float | None:
    """The seconds of a header ``Retry-After``; None if there is none, or it is a date: the clocks may differ."""
    text = (value or "").strip()
    if not (text.isascii() and text.replace(".", "", 1).isdigit()):
        return None
    return min(float(text), LONGEST_WAIT_S)


def _said(body: bytes) -> tuple[str, str | None]:
    """What an error's body says, in one line, and its remedy."""
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return "", None
    if not isinstance(document, dict):
        return "", None
    says = next((document[key] for key in ("error", "message", "detail", "title") if document.get(key)), "")
    remedy = document.get("remedy")
    text = " ".join(says.split())[:500] if isinstance(says, str) else ""
    return text, remedy if isinstance(remedy, str) else None
