"""`Client`: the one way from a workflow and its inputs to a `Result`, whichever target runs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from comfy_cpu_client.prepare import Prepared, prepare, sole_input
from comfy_cpu_client.run import ProgressLog, Run
from comfy_cpu_client.targets import KeepsJobs, open_target, without_secrets
from comfy_cpu_client.values import FileValue, read_file
from comfy_cpu_core.errors import UsageError
from comfy_cpu_core.plugins import get_plugins
from comfy_cpu_core.registry import NodeRegistry, get_registry
from comfy_cpu_core.results import EventSink, KnowsNodes, Progress, Result, Target

if TYPE_CHECKING:
    from comfy_cpu_client.batch import BatchSummary
    from comfy_cpu_core.nodes import NodeSignature
    from comfy_cpu_core.workflow import Workflow

__all__ = ["Client", "FileValue", "Run", "read_file", "without_secrets"]


class Client:
    """Runs workflows on a target.

    Args:
        target: ``embedded`` (in this process), ``comfyui+http(s)://HOST:8188`` (a ComfyUI server),
            ``worker+http(s)://HOST:8000`` (a `comfy-cpu serve`), ``runpod://ENDPOINT_ID``, or a bare URL, which is asked
            what it is; the plugins that are installed decide what else there is.
        options: what the target takes; for ``embedded``: ``models``, the model tree's directory; for a ComfyUI see
            `comfy_cpu_client.comfyui.Settings`, for RunPod and a worker `comfy_cpu_client.runpod.QueueSettings`.

    A client may be used from several threads. It is a context manager; `close` gives back what the target holds.
    """

    def __init__(self, target: str = "embedded", **options: Any) -> None:
        self.target = target
        self._plugins = get_plugins()
        self._registry: NodeRegistry | None = None
        self._target: Target = open_target(target, options, self._plugins)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({without_secrets(self.target)!r})"

    def close(self) -> None:
        """Give back what the target holds. May be called twice."""
        self._target.close()

    def health(self) -> Mapping[str, Any]:
        """Whether the target can run something."""
        return self._target.health()

    def signatures(self) -> Mapping[str, NodeSignature]:
        """class_type → what it takes and gives, of every node class that can be told of before a run.

        A target that knows node classes of its own is asked for them the first time.

        Raises:
            TargetError: the target cannot be asked.
        """
        return self._known_nodes().signatures

    def prepare(
        self,
        workflow: str | Path | bytes | Mapping[str, Any] | Workflow,
        *,
        inputs: Mapping[str, FileValue] | FileValue | None = None,
        files: Mapping[str, FileValue] | None = None,
        set: Mapping[str, Any] | None = None,  # noqa: A002  # the name that jobs and the command line use too
        convert: bool = True,
    ) -> Prepared:
        """Read a workflow, set its inputs and convert it for a CPU, without running it.

        Raises:
            WorkflowError: the workflow cannot be read, or has no such node or input.
            InputError: a file cannot be read.
            TargetError: see `signatures`.
        """
        # Imported here because every `comfy-cpu --help` imports this module.
        from comfy_cpu_core.workflow import Workflow, load

        registry = self._known_nodes()
        loaded = workflow if isinstance(workflow, Workflow) else load(workflow, registry.signatures)
        if inputs is not None and not isinstance(inputs, Mapping):
            inputs = {sole_input(loaded): inputs}
        return prepare(
            loaded,
            inputs={key: read_file(f"input {key}", key, value) for key, value in (inputs or {}).items()},
            files={name: read_file(f"file {name}", name, value).data for name, value in (files or {}).items()},
            values=set or {},
            plugins=self._plugins,
            registry=registry,
            convert=convert,
        )

    def submit(
        self,
        workflow: str | Path | bytes | Mapping[str, Any] | Workflow,
        *,
        inputs: Mapping[str, FileValue] | FileValue | None = None,
        files: Mapping[str, FileValue] | None = None,
        set: Mapping[str, Any] | None = None,  # noqa: A002
        convert: bool = True,
        timeout_s: float | None = None,
        comfy_org_api_key: str | None = None,
        idempotency_key: str | None = None,
        on_event: EventSink | None = None,
    ) -> Run:
        """Start a run and come back when the target has it, or is to be asked again because it is busy.

        Args:
            workflow: a path, the JSON as bytes or as a dict, or a loaded `Workflow`; API or UI format.
            inputs: ``NODE.INPUT`` → a file for it: a path, bytes, a `FileInput`, a picture of Pillow, or an array. If the
                workflow has one LoadImage, its file may stand here alone.
            files: name → the file that the workflow names so already.
            set: ``NODE.INPUT`` → a value for it.
            convert: whether to convert the workflow for a CPU.
            timeout_s: seconds after which the run ends with status ``timed_out``.
            comfy_org_api_key: for ComfyUI's paid nodes; secret.
            idempotency_key: two runs with the same key are one, at a target that knows such keys (our worker).
            on_event: called with every `Progress`, from another thread.

        Raises:
            InputError: the workflow, a value or a file is bad; `WorkflowInvalid` has the errors per node.
            ModelError: a model that the workflow needs is missing.
            TargetError: the target cannot be reached.
        """
        prepared = self.prepare(workflow, inputs=inputs, files=files, set=set, convert=convert)
        log = ProgressLog(on_event)
        request = prepared.request(timeout_s, comfy_org_api_key, idempotency_key)
        return Run(self._target.submit(request, on_event=log), prepared, log)

    @property
    def has_idempotency_keys(self) -> bool:
        """Whether the target tells by a key that it was asked to run the same job before."""
        return bool(getattr(self._target, "has_idempotency_keys", False))

    def run(
        self,
        workflow: str | Path | bytes | Mapping[str, Any] | Workflow,
        *,
        inputs: Mapping[str, FileValue] | FileValue | None = None,
        files: Mapping[str, FileValue] | None = None,
        set: Mapping[str, Any] | None = None,  # noqa: A002
        convert: bool = True,
        timeout_s: float | None = None,
        comfy_org_api_key: str | None = None,
        idempotency_key: str | None = None,
        on_event: EventSink | None = None,
    ) -> Result:
        """Run a workflow and wait for its result; the arguments are those of `submit`.

        What goes wrong while the workflow runs is in the result (``status``, ``errors``). An interrupt (Ctrl-C)
        cancels the run before it is passed on.
        """
        prepared = self.prepare(workflow, inputs=inputs, files=files, set=set, convert=convert)
        request = prepared.request(timeout_s, comfy_org_api_key, idempotency_key)
        # Where nobody wants to know of the progress, a target need not ask for it.
        run = Run(self._target.submit(request, on_event=on_event), prepared)
        try:
            return run.wait()
        except BaseException:
            run.cancel()
            raise

    @property
    def keeps_runs(self) -> bool:
        """Whether `attach` can follow a run that another process submitted."""
        return isinstance(self._target, KeepsJobs)

    def submit_prepared(
        self,
        prepared: Prepared,
        *,
        timeout_s: float | None = None,
        comfy_org_api_key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Run:
        """Start a run of what `prepare` gave; see `submit`."""
        request = prepared.request(timeout_s, comfy_org_api_key, idempotency_key)
        return Run(self._target.submit(request), prepared)

    def batch(
        self,
        workflow: str | Path | bytes | Mapping[str, Any] | Workflow,
        inputs: Sequence[str | Path] = (),
        *,
        output: str | Path,
        **settings: Any,
    ) -> BatchSummary:
        """Run a workflow once for each of many inputs on this target; see `comfy_cpu_client.batch.run_batch`."""
        from comfy_cpu_client.batch import run_batch

        return run_batch(workflow, inputs, output=output, targets=[self], **settings)

    def stream(
        self, workflow: str | Path | bytes | Mapping[str, Any] | Workflow, **arguments: Any
    ) -> Iterator[Progress]:
        """Start a run and give its progress as it comes, until it has ended; the arguments are those of `submit`.

        For the result as well: ``run = client.submit(…)``, then ``run.stream()`` and ``run.wait()``.
        """
        return self.submit(workflow, **arguments).stream()

    def attach(self, job_id: str, *, on_event: EventSink | None = None) -> Run:
        """Follow a run that was submitted before, by this process or another one: `Run.id` is its name.

        Raises:
            UsageError: the target keeps no runs.
        """
        log = ProgressLog(on_event)
        return Run(self._queue().attach(job_id, on_event=log), None, log)

    def retry(self, job_id: str, *, on_event: EventSink | None = None) -> Run:
        """Have the target run again what failed or timed out there, under the same name, and follow it.

        Raises:
            UsageError: the target keeps no runs.
            TargetError: it does not do it.
        """
        log = ProgressLog(on_event)
        return Run(self._queue().retry(job_id, on_event=log), None, log)

    def purge(self) -> int:
        """End every run that waits in the target's queue, of whoever it is; gives how many there were.

        Raises:
            UsageError: the target keeps no runs.
            TargetError: it does not do it.
        """
        return self._queue().purge()

    def _queue(self) -> KeepsJobs:
        if not isinstance(self._target, KeepsJobs):
            raise UsageError(
                f"the target {without_secrets(self.target)} keeps no runs", remedy="use runpod:// or worker+http://"
            )
        return self._target

    def _known_nodes(self) -> NodeRegistry:
        if self._registry is None:
            if isinstance(self._target, KnowsNodes):
                self._registry = NodeRegistry(self._plugins, object_info=self._target.object_info())
            else:
                self._registry = get_registry()
        return self._registry
