"""From a target's name to the target."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from comfy_cpu_core.errors import UsageError
from comfy_cpu_core.plugins import Plugins
from comfy_cpu_core.results import EventSink, Job, Target, TargetType

__all__ = ["KeepsJobs", "open_target", "without_secrets"]


@runtime_checkable
class KeepsJobs(Protocol):
    """A target that keeps jobs, so that another process can ask for them."""

    def attach(self, job_id: str, *, on_event: EventSink | None = None) -> Job:
        """Follow a job that was submitted before."""

    def retry(self, job_id: str, *, on_event: EventSink | None = None) -> Job:
        """Have a job run again that failed or timed out, and follow it."""

    def purge(self) -> int:
        """End every job that waits; gives how many there were."""


def open_target(name: str, options: Mapping[str, Any], plugins: Plugins) -> Target:
    """Open a target.

    Args:
        name: ``embedded``, ``runpod://ID``, ``worker+http://HOST:8000``, ``comfyui+http://HOST:8188``, or a bare URL,
            which is asked what it is.

    Raises:
        UsageError: there is no such target, or an option makes no sense.
        TargetError: nothing answers at a bare URL.
    """
    types: dict[str, TargetType] = plugins.unique("comfy_cpu_targets", "scheme", "target")
    scheme = name.partition(":")[0]
    if scheme in {"http", "https"} and scheme not in types:
        from comfy_cpu_client.probe import probe

        name = f"{probe(name, options)}+{name}"
        scheme = name.partition(":")[0]
    if scheme not in types:
        known = ", ".join(types) or "none"
        raise UsageError(
            f"unknown target {without_secrets(name)!r}",
            remedy=f"targets that are installed: {known}"
            + ("" if "embedded" in types else "; `pip install 'comfy-cpu-client[embedded]'` brings embedded"),
        )
    return types[scheme].open(name, options)


def without_secrets(target: str) -> str:
    """A target for messages, without what may be a password or a token: user, query, fragment."""
    return re.sub(r"(?<=//)[^/]*@", "", re.split(r"[?#]", target, maxsplit=1)[0])
