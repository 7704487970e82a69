"""What a run takes and gives, whichever target carries it out.

Targets (``embedded``, a ComfyUI, a worker, RunPod) differ in how they run a workflow; these types are what they
have in common, and all that a caller sees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_args, runtime_checkable

from comfy_cpu_core.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "EventSink",
    "Job",
    "JobStatus",
    "KnowsNodes",
    "ModelUse",
    "NodeFailure",
    "NodeTiming",
    "Output",
    "OutputFolder",
    "Progress",
    "Result",
    "RunRequest",
    "Status",
    "Target",
    "TargetType",
]

Status = Literal["completed", "blocked", "failed", "cancelled", "timed_out"]
JobStatus = Literal["queued", "running", "completed", "blocked", "failed", "cancelled", "timed_out"]
OutputKind = Literal["image", "mask", "text", "json", "audio", "video", "file"]
OutputFolder = Literal["output", "temp"]


@dataclass(frozen=True)
class Output:
    """One thing that an output node made.

    Attributes:
        node_id, class_type: the node that made it.
        kind: what it is.
        filename: the name that the node gave it: one path component, never a path.
        subfolder: where the node put it below its folder, with ``/``; usually empty.
        folder: ``output`` (kept) or ``temp`` (a preview), as ComfyUI names them.
        media_type: for example ``image/png``.
        data: the bytes.
    """

    node_id: str
    class_type: str
    kind: OutputKind
    filename: str
    media_type: str
    data: bytes = field(repr=False)
    subfolder: str = ""
    folder: OutputFolder = "output"

    @cached_property
    def sha256(self) -> str:
        """The hash of `data`, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def text(self) -> str:
        """`data` as text (UTF-8)."""
        return self.data.decode()

    def save(self, path: str | Path) -> Path:
        """Write `data` to a file, or under its own name into a directory that exists; give back the file's path."""
        path = Path(path)
        if path.is_dir():
            path = path / PurePosixPath(self.filename).name
        path.write_bytes(self.data)
        return path

    def describe(self) -> dict[str, Any]:
        """Everything but the bytes, as JSON can hold it."""
        return {
            "node_id": self.node_id,
            "class_type": self.class_type,
            "kind": self.kind,
            "filename": self.filename,
            "subfolder": self.subfolder,
            "folder": self.folder,
            "media_type": self.media_type,
            "size": len(self.data),
            "sha256": self.sha256,
        }


@dataclass(frozen=True)
class NodeTiming:
    """How long a node took, in seconds. A cached node was not run again."""

    node_id: str
    class_type: str
    seconds: float
    cached: bool = False


@dataclass(frozen=True)
class NodeFailure:
    """Why a run did not complete.

    Attributes:
        code: a stable word for programs: ``node_failed``, ``invalid``, ``blocked``, ``model``, ``deadline``, ….
        message: one line.
        details: a traceback or more lines, may be empty.
        remedy: what to do, or None.
    """

    code: str
    message: str
    node_id: str | None = None
    class_type: str | None = None
    details: str = ""
    remedy: str | None = None


@dataclass(frozen=True)
class ModelUse:
    """A model that a run used.

    Attributes:
        name: the file's path inside the model tree.
        runtime: ``openvino``, ``onnxruntime``, … with its version.
        precision: what it computed in: ``bf16``, ``f32``, ….
        threads: how many threads it was given.
        stand_in: True for a model that only imitates the real one (see the demo).
        load_seconds: how long loading took in this run; 0 if it was in memory already.
    """

    name: str
    runtime: str
    precision: str
    threads: int
    stand_in: bool = False
    load_seconds: float = 0.0


@dataclass(frozen=True)
class Progress:
    """Something that happened during a run.

    Attributes:
        kind: ``started`` and ``finished`` for a node, ``step`` for progress inside one, ``cached`` for a node that
            need not run, ``notice`` for a message to the user.
        value, total: steps done, of how many, for ``step``.
        done, nodes: nodes that are finished, of how many.
        message: for ``notice``.
    """

    kind: Literal["started", "step", "finished", "cached", "notice"]
    node_id: str | None = None
    class_type: str | None = None
    value: float = 0
    total: float = 0
    done: int = 0
    nodes: int = 0
    message: str = ""


EventSink = Callable[[Progress], None]


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        status: ``completed``, ``blocked`` (a safety gate), ``failed``, ``cancelled`` or ``timed_out``.
        outputs: what the output nodes made, in the order in which they ran.
        timings: one per node that ran or was answered from the cache, in that order.
        errors: empty only if the status is ``completed``.
        models: the models that were used.
        changes: the report of the CPU conversion (`comfy_cpu_core.convert.Report.to_json`), None if none was made.
        warnings: what the user should know.
        queue_seconds, execution_seconds: time spent waiting and running.
        estimated_cost: what the execution cost, where the target was told what a second costs; in that currency.
    """

    status: Status
    outputs: Sequence[Output] = ()
    timings: Sequence[NodeTiming] = ()
    errors: Sequence[NodeFailure] = ()
    models: Sequence[ModelUse] = ()
    changes: Mapping[str, Any] | None = None
    warnings: Sequence[str] = ()
    queue_seconds: float = 0.0
    execution_seconds: float = 0.0
    estimated_cost: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the run completed."""
        return self.status == "completed"

    @property
    def images(self) -> list[Output]:
        """The outputs that are pictures."""
        return [output for output in self.outputs if output.kind == "image"]

    @property
    def stand_in(self) -> bool:
        """Whether a stand-in took the place of a real model: such a result is good for a demonstration only."""
        return any(model.stand_in for model in self.models)

    def to_json(self) -> dict[str, Any]:
        """The result without the outputs' bytes, as JSON can hold it. Fields are only ever added."""
        return {
            "status": self.status,
            "stand_in": self.stand_in,
            "outputs": [output.describe() for output in self.outputs],
            "timings": [vars(timing) for timing in self.timings],
            "errors": [vars(error) for error in self.errors],
            "models": [vars(model) for model in self.models],
            "changes": dict(self.changes) if self.changes is not None else None,
            "warnings": list(self.warnings),
            "queue_seconds": self.queue_seconds,
            "execution_seconds": self.execution_seconds,
            "estimated_cost": self.estimated_cost,
        }

    @classmethod
    def from_json(cls, document: Any, data: Iterable[bytes] = ()) -> Result:
        """The inverse of `to_json`.

        Fields that are unknown are ignored, and so are those that follow from others (``stand_in``, an output's
        ``size`` and ``sha256``); one that is missing gets its default, if it has one.

        Args:
            document: what `to_json` gave, after any way through JSON.
            data: the bytes of each output, in the order of ``outputs``.

        Raises:
            InputError: the document is not such a result; the message names the field. Or there are more or fewer
                `data` than outputs.
        """
        described = _list(document, "outputs")
        blobs = list(data)
        if len(blobs) != len(described):
            raise InputError(f"result: {len(described)} outputs are described, but there are {len(blobs)}")
        changes = _object(document, "result").get("changes")
        return _read(
            cls,
            document,
            "result",
            outputs=tuple(
                _read(Output, output, f"result.outputs[{index}]", data=blob)
                for index, (output, blob) in enumerate(zip(described, blobs, strict=True))
            ),
            timings=_read_all(NodeTiming, document, "timings"),
            errors=_read_all(NodeFailure, document, "errors"),
            models=_read_all(ModelUse, document, "models"),
            changes=changes if changes is None else dict(_object(changes, "result.changes")),
            warnings=tuple(_value("str", text, "result.warnings") for text in _list(document, "warnings")),
        )


_Read = TypeVar("_Read", bound="DataclassInstance")

#: How this module writes the types of fields that JSON holds → what the values may be, and what a message calls them.
_JSON_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a text"),
    "str | None": ((str, type(None)), "a text or null"),
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "float | None": ((int, float, type(None)), "a number or null"),
}
_JSON_WORDS: dict[str, tuple[str, ...]] = {
    "Status": get_args(Status),
    "OutputKind": get_args(OutputKind),
    "OutputFolder": get_args(OutputFolder),
}


def _read(kind: type[_Read], document: Any, path: str, **given: Any) -> _Read:
    """An instance of a dataclass of this module: fields in `given` as they are, the others from a JSON object."""
    known = _object(document, path)
    values = dict(given)
    for spec in fields(kind):
        if spec.name in given:
            continue
        if spec.name in known:
            values[spec.name] = _value(str(spec.type), known[spec.name], f"{path}.{spec.name}")
        elif spec.default is MISSING:
            raise InputError(f"{path}.{spec.name} is missing")
    return kind(**values)


def _read_all(kind: type[_Read], document: Any, name: str) -> tuple[_Read, ...]:
    return tuple(_read(kind, item, f"result.{name}[{index}]") for index, item in enumerate(_list(document, name)))


def _value(kind: str, value: Any, path: str) -> Any:
    if words := _JSON_WORDS.get(kind):
        if value not in words:
            raise InputError(f"{path} is {value!r:.80}, not one of {', '.join(words)}")
        return value
    types, what = _JSON_TYPES[kind]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise InputError(f"{path} is {value!r:.80}, not {what}")
    return value


def _object(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{path} is {value!r:.80}, not an object")
    return value


def _list(document: Any, name: str) -> Sequence[Any]:
    value = _object(document, "result").get(name, ())
    if not isinstance(value, list | tuple):
        raise InputError(f"result.{name} is {value!r:.80}, not a list")
    return value


@dataclass(frozen=True)
class RunRequest:
    """What a target is asked to run.

    Attributes:
        prompt: the workflow in API format: node id → ``{"class_type": str, "inputs": {…}}``.
        files: name → bytes of every file that the workflow names as an input; a target makes them available to
            LoadImage and its kin under that name.
        timeout_s: seconds after which the run ends as ``timed_out``; None for no limit.
        comfy_org_api_key: for ComfyUI's paid nodes; secret; a target that has none of them ignores it.
        idempotency_key: two requests with the same key are one run, at a target that knows such keys (our worker); None
            for a new one.
    """

    prompt: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    timeout_s: float | None = None
    comfy_org_api_key: str | None = field(default=None, repr=False)
    idempotency_key: str | None = field(default=None, repr=False)


@runtime_checkable
class Job(Protocol):
    """A run that was handed to a target."""

    @property
    def id(self) -> str:
        """The target's name for it."""

    def status(self) -> JobStatus:
        """Where it stands now."""

    def wait(self, timeout_s: float | None = None) -> Result:
        """Wait for its end.

        Raises:
            DeadlineExceeded: it was still under way after `timeout_s` seconds; the job goes on.
        """

    def cancel(self) -> None:
        """Ask it to end; `wait` then gives a result with status ``cancelled``. Does nothing after the end."""


@runtime_checkable
class Target(Protocol):
    """A place where workflows run. Safe to use from several threads."""

    def submit(self, request: RunRequest, *, on_event: EventSink | None = None) -> Job:
        """Start a run. `on_event` is called from another thread."""

    def health(self) -> Mapping[str, Any]:
        """Whether it can run something, and what it says of itself; at least ``{"ready": bool}``."""

    def close(self) -> None:
        """Give back what it holds. May be called twice."""


@runtime_checkable
class KnowsNodes(Protocol):
    """A target that can tell which node classes it has, which may be others than those of this process's plugins."""

    def object_info(self) -> Mapping[str, Any]:
        """What a ComfyUI answers under ``/object_info``: class_type → what the class takes and gives.

        Raises:
            TargetError: it cannot be had.
        """


@dataclass(frozen=True)
class TargetType:
    """A kind of target that a plugin contributes (hook ``comfy_cpu_targets``).

    Attributes:
        scheme: what a target's name starts with: ``embedded``, ``runpod``, ….
        open: makes a target from the whole name (``embedded``, ``runpod://ID``) and options
            (for ``embedded``: ``models``, the model tree's directory).
        summary: one line for ``--help``.
    """

    scheme: str
    open: Callable[[str, Mapping[str, Any]], Target]
    summary: str
