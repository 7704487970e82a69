"""What can go wrong between the client and a target that is another process.

::

    TargetError
    ├── TargetUnreachable   there was no answer: nothing listens there, the connection broke, it took too long
    └── TargetRefused       it answered with a status that means no (`status`)
"""

from __future__ import annotations

from comfy_cpu_core.errors import TargetError

__all__ = ["TargetRefused", "TargetUnreachable"]


class TargetUnreachable(TargetError):
    """There was no answer.

    Attributes:
        sent: whether the target may have got the request all the same; False if it certainly has not.
    """

    def __init__(self, message: str, *, remedy: str | None = None, sent: bool = True) -> None:
        super().__init__(message, remedy=remedy)
        self.sent = sent


class TargetRefused(TargetError):
    """The target answered that it will not.

    Attributes:
        status: the HTTP status: 401 without the right password or token, 403 where these do not allow it, 404 where
            something else than the target is at that address.
    """

    def __init__(self, message: str, *, status: int, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status

    @property
    def transient(self) -> bool:
        """Whether it may be otherwise in a moment: the target is busy, or in trouble."""
        return self.status >= 500 or self.status in {408, 425, 429}
