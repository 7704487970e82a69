"""Who runs us: our engine, a ComfyUI, or nobody in particular. The one module that knows.

Every function asks anew: first for the run of our engine that the caller belongs to, then for a ComfyUI in this
process (its modules are looked up where they are loaded already, never imported), and falls back to plain defaults.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from comfy_cpu_core.context import current_run
from comfy_cpu_core.errors import DeadlineExceeded, Interrupted, NodeError
from comfy_cpu_core.results import ModelUse, Progress
from comfy_cpu_core.tree import ModelTree, default_models_dir

__all__ = [
    "MODEL_FOLDERS",
    "Steps",
    "check_interrupt",
    "checked_by",
    "fetch_hint",
    "free_comfyui_memory",
    "input_directory",
    "interruptions",
    "model_used",
    "models",
    "node_error",
    "output_directory",
    "progress",
    "temp_directory",
    "warn",
]

#: The top-level folders of the model tree that nodes read from.
MODEL_FOLDERS = ("ben2_onnx", "birefnet_onnx", "birefnet_hr", "LLM", "llm", "Nudenet")

_check: ContextVar[Callable[[], None] | None] = ContextVar("comfy_cpu_check", default=None)

_log = logging.getLogger("comfy_cpu")


def output_directory() -> Path:
    """Where pictures that are kept go; ``output`` in the current directory if nobody runs us."""
    if run := current_run():
        return run.folders.output
    if comfyui := _loaded("folder_paths"):
        return Path(comfyui.get_output_directory())
    return Path("output").absolute()


def temp_directory() -> Path:
    """Where previews go."""
    if run := current_run():
        return run.folders.temp
    if comfyui := _loaded("folder_paths"):
        return Path(comfyui.get_temp_directory())
    return Path(tempfile.gettempdir()) / "comfy-cpu"


def input_directory() -> Path:
    """Where pictures are read from; ``input`` in the current directory if nobody runs us."""
    if run := current_run():
        return run.folders.input
    if comfyui := _loaded("folder_paths"):
        return Path(comfyui.get_input_directory())
    return Path("input").absolute()


def models() -> ModelTree:
    """The model tree: the run's, ComfyUI's ``models`` (and what its extra_model_paths.yaml adds), or the user's own."""
    if run := current_run():
        return run.models
    if comfyui := _loaded("folder_paths"):
        registered = comfyui.folder_names_and_paths
        places = ((name, tuple(map(Path, registered[name][0]))) for name in MODEL_FOLDERS if name in registered)
        return ModelTree(Path(comfyui.models_dir), tuple(places))
    return ModelTree(default_models_dir(os.environ))


def fetch_hint(*model_ids: str) -> str:
    """What to do about models that are missing: the command that fetches them into the tree that is looked at."""
    return f"fetch it with `comfy-cpu models fetch {' '.join(model_ids)} --models {shlex.quote(str(models().root))}`"


class Steps:
    """Progress inside a node, and the place where an interrupt ends it."""

    def __init__(self, total: int) -> None:
        self._done = 0
        self._total = total
        comfyui = None if current_run() else _loaded("comfy.utils")
        self._bar = comfyui.ProgressBar(total) if comfyui else None

    def step(self, count: int = 1) -> None:
        """One more step is done, or several at once.

        Raises:
            Interrupted, DeadlineExceeded: the run should end (inside a ComfyUI: its own exception).
        """
        self._done += count
        if run := current_run():
            run.emit(Progress("step", run.node_id, run.class_type, value=self._done, total=self._total))
        elif self._bar:
            self._bar.update_absolute(self._done, self._total)
        check_interrupt()


def progress(total: int) -> Steps:
    """Tell whoever runs us that `total` steps are to be done."""
    return Steps(total)


def check_interrupt() -> None:
    """Raise if the run should end.

    Raises:
        Interrupted, DeadlineExceeded: the run should end (inside a ComfyUI: its own exception).
    """
    if (check := _check.get()) is not None:
        check()
    elif run := current_run():
        run.check()
    elif comfyui := _loaded("comfy.model_management"):
        comfyui.throw_exception_if_processing_interrupted()


@contextmanager
def checked_by(check: Callable[[], None]) -> Iterator[None]:
    """Let `check` decide in this block whether work should end, and not the run that began it.

    For work that outlives its run. A ComfyUI forgets a wish to stop once somebody has seen it: work of an earlier run
    must not take that of the current one.
    """
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def interruptions() -> tuple[type[BaseException], ...]:
    """What `check_interrupt` may raise: for code that turns a library's exceptions into errors of its own."""
    comfyui = _loaded("comfy.model_management")
    return (Interrupted, DeadlineExceeded, *((comfyui.InterruptProcessingException,) if comfyui else ()))


def warn(message: str) -> None:
    """Tell the user something: in the run's warnings, or in the log."""
    if run := current_run():
        run.warn(message)
    else:
        _log.warning(message)


def model_used(use: ModelUse, stand_in: str) -> None:
    """Note a model in the results of the run, once; and say it loudly, whoever runs us, if it only imitates the real one.

    Args:
        stand_in: what a stand-in of this kind lacks, for the warning.
    """
    run = current_run()
    if run is not None and not any(known.name == use.name for known in run.model_uses):
        run.model_uses.append(use)
    if use.stand_in:
        warn(f"{use.name} is a STAND-IN: {stand_in}")


def node_error(message: str, *, remedy: str | None = None) -> NodeError:
    """An error of the node that is running, with its id and class where they are known."""
    run = current_run()
    return NodeError(
        message,
        node_id=run.node_id if run else None,
        class_type=run.class_type if run else None,
        remedy=remedy,
    )


def free_comfyui_memory(*, unload_models: bool) -> None:
    """Let a ComfyUI that runs us drop its caches, and its models if asked to; does nothing elsewhere."""
    comfyui = None if current_run() else _loaded("comfy.model_management")
    if comfyui is None:
        return
    if unload_models:
        comfyui.unload_all_models()
    comfyui.soft_empty_cache()


def _loaded(module: str) -> Any:
    return sys.modules.get(module)
