"""What a node may ask of whoever runs it.

A node runs in our engine or inside a ComfyUI. In the engine it finds its folders, the model tree, a place for its
progress and the user's wish to stop in the `RunContext` of the run that it belongs to. The context travels in a
`contextvars.ContextVar`, so that two runs in one process never see each other's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from comfy_cpu_core.results import EventSink, ModelUse, Progress
from comfy_cpu_core.tree import ModelTree

__all__ = ["Folders", "RunContext", "current_run", "use_run"]


@dataclass(frozen=True)
class Folders:
    """ComfyUI's three directories: where LoadImage reads, where SaveImage writes, where previews go."""

    input: Path
    output: Path
    temp: Path


def _ignore(event: Progress) -> None:
    pass


@dataclass
class RunContext:
    """One run, as its nodes see it.

    Attributes:
        folders: where files are read and written.
        models: the model tree.
        emit: takes progress events.
        check: raises `Interrupted` or `DeadlineExceeded` when the run should end; long work calls it often.
        node_id, class_type: the node that is running.
        model_uses: every model that the run used; runtimes add to it.
        warnings: what the user should know; nodes add to it.
    """

    folders: Folders
    models: ModelTree
    emit: EventSink = _ignore
    check: Callable[[], None] = lambda: None
    node_id: str | None = None
    class_type: str | None = None
    model_uses: list[ModelUse] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def warn(self, message: str) -> None:
        """Tell the user something, once."""
        if message not in self.warnings:
            self.warnings.append(message)
            self.emit(Progress("notice", self.node_id, self.class_type, message=message))


_current: ContextVar[RunContext | None] = ContextVar("comfy_cpu_run", default=None)


def current_run() -> RunContext | None:
    """The run that this code belongs to, or None outside our engine (inside a ComfyUI, or in a script)."""
    return _current.get()


@contextmanager
def use_run(context: RunContext) -> Iterator[RunContext]:
    """Make `context` the current run for the code in this block."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
