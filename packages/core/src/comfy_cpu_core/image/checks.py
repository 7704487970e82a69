"""What is looked at in a finished image, and what is found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_cpu_core.image.engines import CommandOutput, ImageInfo

__all__ = ["Finding", "ImageCheck", "ImageFacts", "WorkflowRun"]


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        ok: whether it is as it should be.
        message: one line: what was found; where it is not ok, what is wrong and with what.
        value: the measured value, for programs; None if there is none.
    """

    ok: bool
    message: str
    value: float | str | None = None


@dataclass(frozen=True)
class WorkflowRun:
    """One run of a baked workflow inside the image.

    Attributes:
        workflow: its name.
        result: what the worker or the command line said: `comfy_cpu_core.results.Result.to_json` in spirit; its
            ``outputs`` have ``media_type``, ``size``, ``sha256`` and ``problem`` (why a picture is none, or empty).
        seconds: wall time of the job.
        problem: why it could not be run at all, or empty.
    """

    workflow: str
    result: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class ImageFacts:
    """Everything that was read of an image and of the container that ran it; checks only look at this.

    Attributes:
        info: what the engine says of the image.
        manifest: what the image says of itself (``/opt/comfy-cpu/image.json``): target, models with hashes, workflows,
            node classes. Where a lock is at hand its models are here.
        probe: what was found inside, see `comfy_cpu_builder.verify`.
        outputs: what the commands of each check gave, by the check's name, in the order of its commands.
        runs: one for each workflow.
        started: whether a container was started at all; if not, there are no runs, no log and no times.
        log: what the container printed.
        start_seconds: from starting the container until the worker was ready; None if it never was.
        start_problem: why it never was ready, or empty.
        peak_memory_bytes: the most memory that the container used; None if not known.
        limits: the spec's ``[limits]``.
        price_per_hour_usd: what an hour of such a machine costs; None if not given.
    """

    info: ImageInfo
    manifest: Mapping[str, Any]
    probe: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, tuple[CommandOutput, ...]] = field(default_factory=dict)
    runs: tuple[WorkflowRun, ...] = ()
    started: bool = True
    log: str = ""
    start_seconds: float | None = None
    start_problem: str = ""
    peak_memory_bytes: int | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    price_per_hour_usd: float | None = None


@dataclass(frozen=True)
class ImageCheck:
    """A check of a finished image (hook ``comfy_cpu_checks``).

    Attributes:
        name: short and unique: ``models``. Checks are carried out in the order of their names.
        summary: one line: what it makes sure of.
        run: looks at the facts and gives what it found; a check that has nothing to say of an image gives nothing.
        commands: argument lists that are run inside a container of the image first, with the network off and as the
            image's user; their outputs are in `ImageFacts.outputs` under the check's name.
    """

    name: str
    summary: str
    run: Callable[[ImageFacts], Iterable[Finding]]
    commands: tuple[tuple[str, ...], ...] = ()
