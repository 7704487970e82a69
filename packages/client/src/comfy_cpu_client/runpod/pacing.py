"""How often an endpoint may be asked: RunPod's limits per operation, kept before it has to answer 429. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from comfy_cpu_client.runpod.protocol import Operation

__all__ = ["LIMITS", "WINDOW_SECONDS", "Pacer"]

#: The span that the limits are for.
WINDOW_SECONDS = 10.0

#: Requests per span, of each operation; the others have no limit of their own.
LIMITS: Mapping[Operation, int] = {
    "run": 1000,
    "runsync": 2000,
    "status": 2000,
    "stream": 2000,
    "cancel": 100,
    "purge-queue": 2,
}


class Pacer:
    """Gives requests their turn. Not safe for several threads by itself.

    Args:
        limits: requests per `WINDOW_SECONDS`.
    """

    def __init__(self, limits: Mapping[Operation, int] = LIMITS) -> None:
        self._sent: dict[Operation, deque[float]] = {name: deque(maxlen=limit) for name, limit in limits.items()}

    def reserve(self, operation: Operation, now: float) -> float:
        """Take the next turn; gives how many seconds to wait for it."""
        sent = self._sent.get(operation)
        if sent is None:
            return 0.0
        turn = now
        if len(sent) == sent.maxlen:
            turn = max(now, sent[0] + WINDOW_SECONDS)
        sent.append(turn)
        return turn - now
