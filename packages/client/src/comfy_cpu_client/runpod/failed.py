"""What a failed request means for the job that it was to submit. Pure."""

from __future__ import annotations

from typing import Literal

from comfy_cpu_client.errors import TargetRefused, TargetUnreachable
from comfy_cpu_core.errors import TargetError

__all__ = ["Fate", "fate_of"]

#: ``rejected``: the job is at fault, and it was not accepted. ``refused``: it was not accepted, nor will another be there.
#: ``later``: it was not accepted, and may be later. ``unknown``: it may have been accepted.
Fate = Literal["rejected", "refused", "later", "unknown"]

# What says something about the endpoint or the key, and nothing about the job.
_NOT_HERE = frozenset({401, 402, 403, 404})
# Our worker answers so only where it took nothing: it ends, or its disk is full. In front of RunPod's API there are
# gateways, which may answer 503 where the job has passed.
_NOT_NOW = frozenset({503, 507})


def fate_of(error: TargetError, *, keyed: bool) -> Fate:
    """What became of a job whose submission failed with `error`.

    Args:
        keyed: whether the endpoint is our worker.
    """
    if isinstance(error, TargetUnreachable):
        return "unknown" if error.sent else "later"
    if not isinstance(error, TargetRefused):
        return "unknown"  # an answer that makes no sense: the job may be there all the same
    if error.status == 429 or (keyed and error.status in _NOT_NOW):
        return "later"
    if error.status in _NOT_HERE or 300 <= error.status < 400:
        return "refused"
    if not error.transient:
        return "rejected"
    return "unknown"
