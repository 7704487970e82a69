"""`Client`: the one way from a workflow and its inputs to a `Result`, whichever target runs it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from comfy_cpu_client.prepare import FileInput, Prepared, prepare
from comfy_cpu_core.errors import InputError, UsageError
from comfy_cpu_core.plugins import Plugins, get_plugins
from comfy_cpu_core.registry import NodeRegistry, get_registry
from comfy_cpu_core.results import EventSink, Job, JobStatus, KnowsNodes, Result, Target, TargetType

if TYPE_CHECKING:
    from comfy_cpu_client.batch import BatchSummary
    from comfy_cpu_core.workflow import Workflow

__all__ = ["Client", "FileValue", "Run", "read_file", "without_secrets"]

#: What a file input may be: a path, bytes, or bytes with a name.
FileValue = str | Path | bytes | FileInput

#: The largest file that an input may be: beyond it a device, or a mistake, would fill the memory.
MAX_FILE_BYTES = 2**30


@dataclass(frozen=True)
class Run:
    """A run under way.

    Attributes:
        prepared: what was handed to the target.
    """

    prepared: Prepared
    _job: Job

    @property
    def id(self) -> str:
        """The target's name for it."""
        return self._job.id

    def status(self) -> JobStatus:
        """Where it stands now."""
        return self._job.status()

    def wait(self, timeout_s: float | None = None) -> Result:
        """Wait for its end; the result carries the report of the CPU conversion, and warns of gates left out.

        Raises:
            DeadlineExceeded: still under way after `timeout_s` seconds; the run goes on.
        """
        result = self._job.wait(timeout_s)
        prepared = self.prepared
        report = prepared.report
        return replace(
            result,
            changes=result.changes if report is None else report.to_json(),
            warnings=(*prepared.warnings, *result.warnings),
        )

    def cancel(self) -> None:
        """Ask it to end."""
        self._job.cancel()


class Client:
    """Runs workflows on a target.

    Args:
        target: ``embedded`` (in this process), or ``comfyui+http(s)://HOST:8188`` (a ComfyUI server); the plugins that
            are installed decide what else there is.
        options: what the target takes; for ``embedded``: ``models``, the model tree's directory; for a ComfyUI see
            `comfy_cpu_client.comfyui.Settings`.

    A client may be used from several threads. It is a context manager; `close` gives back what the target holds.
    """

    def __init__(self, target: str = "embedded", **options: Any) -> None:
        self.target = target
        self._plugins = get_plugins()
        self._registry: NodeRegistry | None = None
        self._target: Target = _target_type(target, self._plugins).open(target, options)

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

    def prepare(
        self,
        workflow: str | Path | bytes | Mapping[str, Any] | Workflow,
        *,
        inputs: Mapping[str, FileValue] | None = None,
        files: Mapping[str, FileValue] | None = None,
        set: Mapping[str, Any] | None = None,  # noqa: A002  # the name that jobs and the command line use too
        convert: bool = True,
    ) -> Prepared:
        """Read a workflow, set its inputs and convert it for a CPU, without running it.

        A target that knows node classes of its own is asked for them the first time.

        Raises:
            WorkflowError: the workflow cannot be read, or has no such node or input.
            InputError: a file cannot be read.
            TargetError: the target cannot be asked.
        """
        # Imported here because every `comfy-cpu --help` imports this module.
        from comfy_cpu_core.workflow import Workflow, load

        registry = self._known_nodes()
        loaded = workflow if isinstance(workflow, Workflow) else load(workflow, registry.signatures)
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
        inputs: Mapping[str, FileValue] | None = None,
        files: Mapping[str, FileValue] | None = None,
        set: Mapping[str, Any] | None = None,  # noqa: A002
        convert: bool = True,
        timeout_s: float | None = None,
        comfy_org_api_key: str | None = None,
        on_event: EventSink | None = None,
    ) -> Run:
        """Start a run and come back at once.

        Args:
            workflow: a path, the JSON as bytes or as a dict, or a loaded `Workflow`; API or UI format.
            inputs: ``NODE.INPUT`` → a file for it: a path, bytes, or a `FileInput`.
            files: name → the file that the workflow names so already.
            set: ``NODE.INPUT`` → a value for it.
            convert: whether to convert the workflow for a CPU.
            timeout_s: seconds after which the run ends with status ``timed_out``.
            comfy_org_api_key: for ComfyUI's paid nodes; secret.
            on_event: called with every `Progress`, from another thread.

        Raises:
            InputError: the workflow, a value or a file is bad; `WorkflowInvalid` has the errors per node.
            ModelError: a model that the workflow needs is missing.
            TargetError: the target cannot be reached.
        """
        prepared = self.prepare(workflow, inputs=inputs, files=files, set=set, convert=convert)
        request = prepared.request(timeout_s, comfy_org_api_key)
        return Run(prepared, self._target.submit(request, on_event=on_event))

    @property
    def has_idempotency_keys(self) -> bool:
        """Whether the target tells by a key that it was asked to run the same job before."""
        return bool(getattr(self._target, "has_idempotency_keys", False))

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
        return Run(prepared, self._target.submit(request))

    def run(
        self,
        workflow: str | Path | bytes | Mapping[str, Any] | Workflow,
        *,
        inputs: Mapping[str, FileValue] | None = None,
        files: Mapping[str, FileValue] | None = None,
        set: Mapping[str, Any] | None = None,  # noqa: A002
        convert: bool = True,
        timeout_s: float | None = None,
        comfy_org_api_key: str | None = None,
        on_event: EventSink | None = None,
    ) -> Result:
        """Run a workflow and wait for its result; the arguments are those of `submit`.

        What goes wrong while the workflow runs is in the result (``status``, ``errors``). An interrupt (Ctrl-C)
        cancels the run before it is passed on.
        """
        run = self.submit(
            workflow,
            inputs=inputs,
            files=files,
            set=set,
            convert=convert,
            timeout_s=timeout_s,
            comfy_org_api_key=comfy_org_api_key,
            on_event=on_event,
        )
        try:
            return run.wait()
        except BaseException:
            run.cancel()
            raise

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

    def _known_nodes(self) -> NodeRegistry:
        if self._registry is None:
            if isinstance(self._target, KnowsNodes):
                self._registry = NodeRegistry(self._plugins, object_info=self._target.object_info())
            else:
                self._registry = get_registry()
        return self._registry


def _target_type(target: str, plugins: Plugins) -> TargetType:
    scheme = target.partition(":")[0]
    types: dict[str, TargetType] = plugins.unique("comfy_cpu_targets", "scheme", "target")
    if scheme not in types:
        known = ", ".join(types) or "none"
        raise UsageError(
            f"unknown target {without_secrets(target)!r}",
            remedy=f"targets that are installed: {known}"
            + ("" if "embedded" in types else "; `pip install 'comfy-cpu-client[embedded]'` brings embedded"),
        )
    return types[scheme]


def without_secrets(target: str) -> str:
    """A target's name for messages, without what may be a password or a token: user, query, fragment."""
    return re.sub(r"(?<=//)[^/]*@", "", re.split(r"[?#]", target, maxsplit=1)[0])


def read_file(what: str, key: str, value: FileValue) -> FileInput:
    """A file that an input is to have.

    Args:
        what: what messages call it.
        key: what bytes without a name are named after.

    Raises:
        InputError: it cannot be read.
    """
    if isinstance(value, FileInput):
        return value
    if isinstance(value, bytes):
        return FileInput(f"{key.replace(':', '-')}.bin", value)
    path = Path(value)
    try:
        with path.open("rb") as file:  # may be a pipe: its size is known at its end
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{what}: there is no file {path}", remedy="check the path") from None
    except IsADirectoryError:
        raise InputError(f"{what}: {path} is a directory", remedy="name one file") from None
    except OSError as error:
        raise InputError(f"{what}: cannot read {path}: {error.strerror}") from None
    except ValueError:  # a null byte in the path
        raise InputError(f"{what}: {str(path)!r} is not a path", remedy="check the path") from None
    if len(data) > MAX_FILE_BYTES:
        raise InputError(
            f"{what}: {path} has more than {MAX_FILE_BYTES:,} bytes", remedy="give a smaller file: a picture"
        )
    return FileInput(path.name, data)
