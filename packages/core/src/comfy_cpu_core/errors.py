"""What can go wrong, as one tree of exceptions.

::

    ComfyCpuError                 exit code 1
    ├── UsageError                2   the command or the call does not make sense
    ├── InputError                3   a workflow, a configuration or an input file is bad
    │   ├── WorkflowError             the workflow cannot be read or converted
    │   └── WorkflowInvalid           it was read, but its nodes do not validate (`node_errors`)
    ├── ModelError                4   a model file or the Hub
    │   ├── ModelMissing              not in the model tree
    │   ├── ModelCorrupt              truncated, wrong hash, unreadable
    │   └── HubError                  the Hub answered with an error, or not at all
    ├── BuildError                5   building or verifying an image
    ├── NodeError                 6   a node failed while it ran
    ├── TargetError               7   a target is unreachable or refused
    │   └── DeadlineExceeded          it did not answer in time
    ├── ContentBlocked            8   a safety gate blocked the content (also a ValueError)
    └── Interrupted             130   cancelled by the user

Every error carries one line that says what is wrong (``str(error)``) and, where there is one, a line that says what
to do about it (``error.remedy``). Secrets never go into either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "BuildError",
    "ComfyCpuError",
    "ContentBlocked",
    "DeadlineExceeded",
    "HubError",
    "InputError",
    "Interrupted",
    "ModelCorrupt",
    "ModelError",
    "ModelMissing",
    "NodeError",
    "TargetError",
    "UsageError",
    "WorkflowError",
    "WorkflowInvalid",
]


class ComfyCpuError(Exception):
    """Base of every error that comfy-cpu raises on purpose.

    Attributes:
        remedy: one line that says what to do, or None.
        exit_code: what the command line exits with.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(_one_line(message))
        self.remedy = _one_line(remedy) if remedy else None


def _one_line(text: str) -> str:
    # Messages quote ids and values of files, which may hold line breaks.
    return " ".join(text.splitlines())


class UsageError(ComfyCpuError):
    """The command line or a call does not make sense; an unknown target too."""

    exit_code = 2


class InputError(ComfyCpuError):
    """A workflow, a configuration or an input file is bad."""

    exit_code = 3


class WorkflowError(InputError):
    """A workflow cannot be read, or not be brought into API format.

    Attributes:
        node_id: the node that is at fault, where there is one.
    """

    def __init__(self, message: str, *, remedy: str | None = None, node_id: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.node_id = node_id


class WorkflowInvalid(InputError):
    """A workflow's nodes do not validate.

    Attributes:
        node_errors: node id → ``{"class_type": str, "dependent_outputs": [id], "errors": [{"type", "message",
            "details", "extra_info"}]}``, the shape in which ComfyUI's POST /prompt answers under that name.
        error: ``{"type", "message", "details", "extra_info"}`` of the workflow as a whole (``prompt_no_outputs``,
            ``prompt_outputs_failed_validation``, …), as ComfyUI answers it under ``error``.
    """

    def __init__(
        self,
        message: str,
        *,
        node_errors: Mapping[str, Mapping[str, Any]] | None = None,
        error: Mapping[str, Any] | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.node_errors = dict(node_errors or {})
        self.error = dict(error or {})


class ModelError(ComfyCpuError):
    """A model file, or the place that it comes from."""

    exit_code = 4


class ModelMissing(ModelError):
    """A model is not in the model tree."""


class ModelCorrupt(ModelError):
    """A model file is truncated, has the wrong hash, or cannot be read."""


class HubError(ModelError):
    """The Hub answered with an error, or did not answer.

    Attributes:
        status: the HTTP status, or None where there was no answer.
    """

    def __init__(self, message: str, *, remedy: str | None = None, status: int | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status


class BuildError(ComfyCpuError):
    """Building or verifying an image failed."""

    exit_code = 5


class NodeError(ComfyCpuError):
    """A node failed while it ran.

    Attributes:
        node_id, class_type: which node.
        details: the traceback, as text.
    """

    exit_code = 6

    def __init__(
        self,
        message: str,
        *,
        node_id: str | None = None,
        class_type: str | None = None,
        details: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.node_id = node_id
        self.class_type = class_type
        self.details = details


class TargetError(ComfyCpuError):
    """A target is unreachable, or refused the request."""

    exit_code = 7


class DeadlineExceeded(TargetError):
    """A run did not end before its deadline."""


class ContentBlocked(ComfyCpuError, ValueError):
    """A safety gate blocked the content: an outcome of its own, apart from a failure.

    It is a ValueError too, because existing ComfyUI front ends know a block by that.
    """

    exit_code = 8


class Interrupted(ComfyCpuError):
    """The user cancelled the run."""

    exit_code = 130
