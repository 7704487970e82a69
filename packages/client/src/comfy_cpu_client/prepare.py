"""From what a caller gives (a workflow, files, values) to what a target runs. Reads no file, opens nothing."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from comfy_cpu_core.errors import WorkflowError
from comfy_cpu_core.plugins import Plugins
from comfy_cpu_core.registry import NodeRegistry
from comfy_cpu_core.results import RunRequest

if TYPE_CHECKING:
    from comfy_cpu_core.convert import Report
    from comfy_cpu_core.workflow import Workflow

__all__ = ["FileInput", "Prepared", "add_files", "prepare", "sole_input"]

# What a target may find in a file's name: everything else is replaced, since the name ends up in paths and JSON there.
_UNSAFE = re.compile(r"[^\w.\- ]+")


@dataclass(frozen=True)
class FileInput:
    """A file for a node's input.

    Attributes:
        name: what to call it; only its last component counts.
        data: its bytes.
    """

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Prepared:
    """A workflow that is ready to run.

    Attributes:
        workflow: with the values set, converted for a CPU.
        files: the files by the name under which the workflow names them.
        report: what the CPU conversion changed; None if it was left out.
        warnings: what the result should warn of: safety gates that are muted or bypassed.
    """

    workflow: Workflow
    files: Mapping[str, bytes] = field(repr=False)
    report: Report | None
    warnings: tuple[str, ...] = ()

    def request(
        self,
        timeout_s: float | None = None,
        comfy_org_api_key: str | None = None,
        idempotency_key: str | None = None,
    ) -> RunRequest:
        """The request for a target; the arguments are those of `RunRequest`."""
        return RunRequest(self.workflow.to_prompt(), self.files, timeout_s, comfy_org_api_key, idempotency_key)


def sole_input(workflow: Workflow) -> str:
    """``NODE.INPUT`` of the only picture that a workflow takes: a file for it needs no name.

    Raises:
        WorkflowError: it has none, or several; the message names them.
    """
    keys = [f"{node_id}.image" for node_id, node in workflow.nodes.items() if node.class_type == "LoadImage"]
    if len(keys) == 1:
        return keys[0]
    raise WorkflowError(
        f"{workflow.name}: there {'are several LoadImage' if keys else 'is no LoadImage'}, so a file needs the name of "
        "its input",
        remedy=f"one of {', '.join(keys)}: --input {keys[0]}=FILE, or inputs={{{keys[0]!r}: …}} in Python"
        if keys
        else "name the input: --input NODE.INPUT=FILE",
    )


def prepare(
    workflow: Workflow,
    *,
    inputs: Mapping[str, FileInput],
    values: Mapping[str, Any],
    plugins: Plugins,
    registry: NodeRegistry,
    files: Mapping[str, bytes] | None = None,
    convert: bool = True,
) -> Prepared:
    """Set a workflow's inputs and convert it for a CPU.

    Args:
        workflow: as loaded; not changed.
        inputs: ``NODE.INPUT`` → the file whose name that input gets.
        values: ``NODE.INPUT`` → the value that it gets.
        files: name → bytes of files that the workflow names already. They keep their names; a file of `inputs` gets
            another if its own is taken.
        convert: leave out the conversion with False.

    Raises:
        WorkflowError: a node or an input that the workflow does not have.
    """
    uploads = dict(files or {})
    names = _name_files(inputs, uploads)
    edited = workflow.with_inputs({**values, **names})
    from comfy_cpu_core.convert import gates_left_out, to_cpu

    warnings = gates_left_out(workflow)
    if not convert:
        return Prepared(edited, uploads, None, warnings)
    converted, report = to_cpu(edited, plugins, registry)
    return Prepared(converted, uploads, report, warnings)


def add_files(prepared: Prepared, inputs: Mapping[str, FileInput]) -> Prepared:
    """Give a workflow that is prepared already more files: for many runs that differ in nothing else.

    Raises:
        WorkflowError: a node or an input that the workflow does not have.
    """
    uploads = dict(prepared.files)
    names = _name_files(inputs, uploads)
    return replace(prepared, workflow=prepared.workflow.with_inputs(names), files=uploads)


def _name_files(inputs: Mapping[str, FileInput], uploads: dict[str, bytes]) -> dict[str, str]:
    """Put files into `uploads`; gives the name of each by its input."""
    names: dict[str, str] = {}
    for key, file in inputs.items():
        name = _upload_name(file, uploads)
        uploads[name] = file.data
        names[key] = name
    return names


def _upload_name(file: FileInput, taken: Mapping[str, bytes]) -> str:
    """A safe name for an upload; two different files never share one, the same file twice does."""
    last = PureWindowsPath(PurePosixPath(file.name).name).name
    name = _UNSAFE.sub("_", last).strip(". ") or "input"
    return next(candidate for candidate in _names(name, file.data) if _is_free(candidate, file.data, taken))


def _names(name: str, data: bytes) -> Iterator[str]:
    yield name
    path = PurePosixPath(name)
    marked = f"{path.stem}-{hashlib.sha256(data).hexdigest()[:12]}"
    yield f"{marked}{path.suffix}"
    for number in itertools.count(2):
        yield f"{marked}-{number}{path.suffix}"


def _is_free(name: str, data: bytes, taken: Mapping[str, bytes]) -> bool:
    """Whether a file may have that name: no other file has it, nor is it a folder of one (``faces/a.png``)."""
    return taken.get(name, data) == data and not any(other.startswith(f"{name}/") for other in taken)
