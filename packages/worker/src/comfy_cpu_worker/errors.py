"""What can go wrong with a job before it runs.

::

    ComfyCpuError
    └── WorkerError
        ├── JobRejected          the job makes no sense, or asks for what is not allowed (HTTP 400)
        │   ├── JobTooLarge          its body, a file or a picture is over a limit (413)
        │   └── UrlRefused           a URL leads where this worker does not go (400)
        │       └── UrlFailed            what is there could not be had
        ├── QueueFull            the queue holds as many jobs as it may (429, `retry_after_s`)
        │   └── ShuttingDown         the worker ends and takes no more jobs (503)
        ├── JobUnknown           no job of that id, or its result is no longer kept (404)
        ├── JobConflict          the job's state does not allow it (409)
        ├── KeyReused            an idempotency key that belongs to another job (422)
        ├── StorageFailed        the state directory is full or cannot be written: the job is not accepted (507)
        ├── NotAllowed           the token is missing or wrong (401), or the host or origin is not allowed (403)
        └── DeliveryFailed       the outputs could not be delivered: S3 refused, or they are over the limit
"""

from __future__ import annotations

from typing import ClassVar

from comfy_cpu_core.errors import ComfyCpuError

__all__ = [
    "DeliveryFailed",
    "JobConflict",
    "JobRejected",
    "JobTooLarge",
    "JobUnknown",
    "KeyReused",
    "NotAllowed",
    "QueueFull",
    "ShuttingDown",
    "StorageFailed",
    "UrlFailed",
    "UrlRefused",
    "WorkerError",
]


class WorkerError(ComfyCpuError):
    """Base of the worker's errors.

    Attributes:
        status: the HTTP status that the local API answers with.
        code: a stable word for programs.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "worker"


class JobRejected(WorkerError):
    """The job makes no sense, or asks for what is not allowed."""

    exit_code = 3
    status = 400
    code = "input"


class JobTooLarge(JobRejected):
    """A body, a file or a picture is over a limit."""

    status = 413
    code = "too_large"


class UrlRefused(JobRejected):
    """A URL leads where this worker does not go."""

    code = "url_refused"


class UrlFailed(UrlRefused):
    """What a URL leads to could not be had, or did not arrive: another try may help."""

    code = "url_failed"


class QueueFull(WorkerError):
    """The queue holds as many jobs as it may.

    Attributes:
        retry_after_s: when it may be worth another try, in seconds.
    """

    status = 429
    code = "queue_full"

    def __init__(self, message: str, *, retry_after_s: float, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_s = retry_after_s


class ShuttingDown(QueueFull):
    """The worker ends: it finishes what runs and takes no more jobs."""

    status = 503
    code = "shutting_down"


class JobUnknown(WorkerError):
    """There is no job of that id, or its result is no longer kept."""

    status = 404
    code = "unknown_job"


class JobConflict(WorkerError):
    """The job is in a state that does not allow what was asked."""

    status = 409
    code = "conflict"


class KeyReused(WorkerError):
    """The idempotency key belongs to another job."""

    status = 422
    code = "key_reused"


class StorageFailed(WorkerError):
    """The state directory is full, or cannot be written: nothing was accepted or changed."""

    status = 507
    code = "storage"


class NotAllowed(WorkerError):
    """The token is missing or wrong (401), or the host or the origin is not allowed (403)."""

    code = "not_allowed"

    def __init__(self, message: str, *, status: int, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.http_status = status


class DeliveryFailed(WorkerError):
    """The outputs were made but could not be delivered."""

    exit_code = 7
    code = "delivery"
