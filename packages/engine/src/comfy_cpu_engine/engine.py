"""`Engine`: runs a workflow in this process."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from comfy_cpu_core.context import RunContext, use_run
from comfy_cpu_core.needs import NodeNeed, find_model_file, require_models
from comfy_cpu_core.plugins import Plugins
from comfy_cpu_core.results import EventSink, Progress, Result
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_core.verify import require_right_files
from comfy_cpu_engine.cache import ResultCache
from comfy_cpu_engine.executor import Execution
from comfy_cpu_engine.folders import run_folders
from comfy_cpu_engine.inputs import Hidden
from comfy_cpu_engine.kinds import NodeSource
from comfy_cpu_engine.limits import Limits
from comfy_cpu_engine.outputs import collect
from comfy_cpu_engine.signature import files_digest, signatures
from comfy_cpu_engine.validate import validate

__all__ = ["CACHE_BYTES", "Engine"]

#: How much of earlier results an engine keeps, unless it is told otherwise.
CACHE_BYTES = 256 * 2**20


class Engine:
    """Executes workflows in API format, without ComfyUI and without torch. Safe to use from several threads.

    Args:
        registry: the node classes.
        plugins: asked which models a workflow needs.
        models: the model tree.
        cache_bytes: how much memory results of earlier runs may take; 0 keeps none. A result is used again only for
            a request with the same files, and as long as the models that it needs are the same.
        workdir: where each run makes its directory, which is gone when the run ends; None for the system's place.
    """

    def __init__(
        self,
        registry: NodeSource,
        plugins: Plugins,
        models: ModelTree,
        *,
        cache_bytes: int = CACHE_BYTES,
        workdir: Path | None = None,
    ) -> None:
        self.models = models
        self._registry = registry
        self._plugins = plugins
        self._cache = ResultCache(cache_bytes)
        self._workdir = workdir

    def run(
        self,
        prompt: Mapping[str, Mapping[str, Any]],
        *,
        files: Mapping[str, bytes] | None = None,
        on_event: EventSink | None = None,
        cancel: threading.Event | None = None,
        timeout_s: float | None = None,
        outputs: Collection[str] | None = None,
        extra_pnginfo: Mapping[str, Any] | None = None,
    ) -> Result:
        """Run a workflow to its end.

        A bad request raises before any node runs; whatever happens while nodes run is in the result. Only a result
        with status ``completed`` has outputs: in particular, nothing gets past a safety gate that blocked or failed.

        Args:
            prompt: the workflow in API format; not changed.
            files: name → bytes of the files that the workflow names.
            on_event: called with every `Progress`, in this thread. If it raises, it is not called again, and the
                result has a warning.
            cancel: set it from another thread to end the run with status ``cancelled``.
            timeout_s: seconds after which it ends with status ``timed_out``, as soon as a node looks.
            outputs: run these output nodes alone; None for all.
            extra_pnginfo: what SaveImage writes into its PNGs besides the prompt, as ComfyUI does with
                ``{"workflow": …}``. None, the default, writes no metadata, not even the prompt: it may hold secrets.

        Raises:
            InputError: a file's name is bad.
            WorkflowInvalid: the workflow does not validate; a file that it names is not among `files`.
            ModelMissing: a model that it needs is not there.
            ModelCorrupt: a model's file has another hash than the one that is known for it.
            UsageError: an argument makes no sense.
        """
        files = files or {}
        limits = Limits(cancel, timeout_s)
        sink = _Sink(on_event)
        hidden = Hidden(copy.deepcopy(prompt), extra_pnginfo)  # a node may do to it what it likes
        with run_folders(files, self._workdir) as folders:
            context = RunContext(folders, self.models, emit=sink, check=limits.check)
            with use_run(context):
                plan = validate(prompt, self._registry, hidden=hidden, only=outputs)
                needs = require_models(plan.nodes.values(), self._plugins, self.models)
                require_right_files(needs, self.models)
                base = f"{files_digest(files)} {_stamps(needs, self.models)}"
                start = time.perf_counter()
                outcome = Execution(
                    plan=plan,
                    context=context,
                    hidden=hidden,
                    limits=limits,
                    cache=self._cache,
                    signatures=signatures(plan.nodes, plan.kinds, hidden, base),
                    collect=partial(collect, folders=folders),
                ).run()
                seconds = time.perf_counter() - start
        return Result(
            status=outcome.status,
            outputs=outcome.outputs,
            timings=outcome.timings,
            errors=outcome.errors,
            models=outcome.models,
            warnings=(*plan.warnings, *context.warnings, *outcome.warnings, *sink.warnings),
            execution_seconds=seconds,
        )


def _stamps(needs: Iterable[NodeNeed], tree: ModelTree) -> list[tuple[str, int, int]]:
    """Size and time of every model file that a workflow needs: a model that was replaced gives other results."""
    files = {
        file.target: find_model_file(need.spec, file, tree) for need in needs if need.spec for file in need.spec.files
    }
    stats = {target: path.stat() for target, path in files.items() if path is not None}
    return sorted((target, stat.st_size, stat.st_mtime_ns) for target, stat in stats.items())


class _Sink:
    """Passes events on; a listener that raises must not end the run, but its user should know."""

    def __init__(self, listener: EventSink | None) -> None:
        self._listener = listener
        self.warnings: tuple[str, ...] = ()

    def __call__(self, event: Progress) -> None:
        if self._listener is None:
            return
        try:
            self._listener(event)
        except Exception as error:
            self._listener = None
            self.warnings = (f"progress was no longer reported: {type(error).__name__}: {error}",)
