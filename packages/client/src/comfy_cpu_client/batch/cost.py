"""What jobs cost: a price per vCPU and time, the vCPUs that a job has, and how long it ran. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from comfy_cpu_core.errors import UsageError

__all__ = ["Cost", "Price", "parse_price"]

_SECONDS = {"s": 1, "min": 60, "h": 3600}
_PRICE = re.compile(r"\s*(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+)\s*/\s*(s|min|h)\s*")


@dataclass(frozen=True)
class Price:
    """A price.

    Attributes:
        per_vcpu_second: in any currency.
        vcpus: how many vCPUs a job has.
    """

    per_vcpu_second: float
    vcpus: float = 1.0

    def of(self, execution_seconds: float, completed: int) -> Cost:
        """What so many seconds of execution cost, and each of the inputs that completed.

        Time in a queue costs nothing; a serverless worker's start and its idle time do, and are not in this.
        """
        total = self.per_vcpu_second * self.vcpus * execution_seconds
        return Cost(self, execution_seconds, total, total / completed if completed else None)


@dataclass(frozen=True)
class Cost:
    """What a batch cost, in the price's currency.

    Attributes:
        execution_seconds: of all jobs, those that failed and were tried again included.
        per_completed: the total for each input that completed; None if none did.
    """

    price: Price
    execution_seconds: float
    total: float
    per_completed: float | None


def parse_price(text: str, vcpus: float) -> Price:
    """Parse what ``--price`` takes: ``0.044/h``, ``0.0000122/s``, per vCPU.

    Raises:
        UsageError: it is something else.
    """
    match = _PRICE.fullmatch(text)
    if match is None:
        raise UsageError(
            f"--price {text!r} is not a price per vCPU",
            remedy="write it like 0.044/h or 0.0000122/s, without a currency",
        )
    return Price(float(match[1]) / _SECONDS[match[2]], vcpus)
