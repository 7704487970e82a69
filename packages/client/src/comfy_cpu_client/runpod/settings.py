"""What a target with a queue of jobs takes as options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from comfy_cpu_core.errors import UsageError

__all__ = ["QueueSettings"]

#: What is a number of something above 0, if it is given.
_AMOUNTS = (
    "queue_limit_s", "ttl_s", "connect_timeout_s", "read_timeout_s", "patience_s", "run_bytes", "sync_bytes",
)  # fmt: skip


@dataclass(frozen=True)
class QueueSettings:
    """The options of ``runpod://`` and ``worker+http(s)://``.

    Attributes:
        api_key: RunPod's; secret. Default: ``RUNPOD_API_KEY``.
        token: our worker's; secret. Default: ``COMFY_CPU_TOKEN``.
        base_url: where RunPod's API is. Default: ``RUNPOD_ENDPOINT_BASE_URL``, else RunPod itself.
        fallback: more targets of these kinds, in the order in which they are tried where one does not take a job.
        queue_limit_s: how long a job may wait in the queue; then it is cancelled, and the run has timed out.
        ttl_s: how long a job may live, waiting and running (``policy.ttl``); None for the endpoint's default, a day.
        low_priority: whether a job must not make RunPod start more workers (``policy.lowPriority``).
        webhook: where the endpoint sends the job's last status; may hold secrets.
        sync: whether to wait for the result in the request that brings the job (``runsync``): ``auto`` where earlier
            jobs were over within two seconds, or where the job is too large for ``run``.
        stream: whether to ask for progress with requests of its own (``stream``); None: at our worker. Without it,
            progress is what the job's status says.
        previews: whether to have temporary pictures (PreviewImage) sent, too, as every other target gives them.
        price_per_second: what a second of execution costs, in any currency, for `Result.estimated_cost`.
        patience_s: how long the endpoint may be away, once it may have the job; ten times that if it says that it is
            busy.
        run_bytes, sync_bytes: the largest body that it takes.
        verify: False to trust any certificate, or a file or directory of CA certificates; True for those that
            ``REQUESTS_CA_BUNDLE`` names, or certifi's.
        proxy: the URL of a proxy; None for what the environment says (``HTTPS_PROXY``, ``NO_PROXY``, …); False for none.
        connect_timeout_s: how long a connection may take.
        read_timeout_s: how long an answer may stand still.
    """

    api_key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    base_url: str | None = None
    fallback: tuple[str, ...] = ()
    queue_limit_s: float | None = None
    ttl_s: float | None = None
    low_priority: bool = False
    webhook: str | None = field(default=None, repr=False)
    sync: Literal["auto"] | bool = "auto"
    stream: bool | None = None
    previews: bool = True
    price_per_second: float | None = None
    patience_s: float = 60.0
    run_bytes: int = 10_000_000
    sync_bytes: int = 20_000_000
    verify: bool | str | Path = True
    proxy: str | Literal[False] | None = field(default=None, repr=False)
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> QueueSettings:
        """Read a target's options.

        Raises:
            UsageError: there is no such option, or its value makes no sense.
        """
        known = cls.__dataclass_fields__
        if strange := set(options) - set(known):
            raise UsageError(f"this target has no option {min(strange)!r}; it has {', '.join(sorted(known))}")
        fallback = options.get("fallback", ())
        fallback = (fallback,) if isinstance(fallback, str) else tuple(fallback)
        settings = cls(**{**options, "fallback": fallback})
        for name in _AMOUNTS:
            value = getattr(settings, name)
            if value is not None and not (_is_number(value) and value > 0):
                raise UsageError(f"the option {name} is {value!r}, not a number above 0")
        price = settings.price_per_second
        if price is not None and not (_is_number(price) and price >= 0):
            raise UsageError(f"the option price_per_second is {price!r}, not a price")
        if settings.sync not in {"auto", True, False}:
            raise UsageError(f"the option sync is {settings.sync!r}, not true, false or 'auto'")
        if settings.webhook is not None and not settings.webhook.startswith(("https://", "http://")):
            raise UsageError("the option webhook is not a URL that begins with https:// or http://")
        return settings


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
