"""What can go wrong between the client and a target that is another process.

::

    TargetError
    ├── TargetUnreachable   there was no answer: nothing listens there, the connection broke, it took too long
    ├── TargetRefused       it answered with a status that means no (`status`)
    │   └── TargetBusy          not now: too many requests, or it starts or ends (`retry_after_s`)
    ├── SubmissionUnknown   nobody can tell whether it accepted the job: it may run (`ambiguous`)
    └── JobLost             it accepted the job and no longer knows it (`job_id`)
"""

from __future__ import annotations

from typing import ClassVar

from comfy_cpu_core.errors import TargetError

__all__ = ["JobLost", "SubmissionUnknown", "TargetBusy", "TargetRefused", "TargetUnreachable"]


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


class TargetBusy(TargetRefused):
    """The target answered: not now.

    Attributes:
        retry_after_s: in how many seconds it wants to be asked again; None if it did not say.
    """

    def __init__(
        self, message: str, *, status: int, retry_after_s: float | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message, status=status, remedy=remedy)
        self.retry_after_s = retry_after_s


class SubmissionUnknown(TargetError):
    """A job was sent and the answer was lost: it may run, or not. It is not sent again, since it could run twice."""

    ambiguous: ClassVar[bool] = True


class JobLost(TargetError):
    """The target accepted a job and no longer knows it: its result was kept too long, or the target forgot it.

    Attributes:
        job_id: the target's name for it.
    """

    def __init__(self, message: str, *, job_id: str, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.job_id = job_id
