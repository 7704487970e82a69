"""The workflows that are baked into an image: a directory of JSON files, in API or UI format."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_cpu_core.errors import UsageError, WorkflowError
from comfy_cpu_worker.errors import JobRejected

if TYPE_CHECKING:
    from comfy_cpu_core.nodes import NodeSignature
    from comfy_cpu_core.workflow import PromptNode

__all__ = ["BakedWorkflow", "FileSlot", "Shelf"]

log = logging.getLogger(__name__)

_NAME = re.compile(r"\w[\w .+()-]{0,199}")

# ComfyUI's own classes that read a file that the user gives, and where its name stands. UI format has the values of their
# widgets without names, and at the start of a worker no node class is loaded to ask.
_LOADERS = {
    "LoadImage": ("image", "image_upload"),
    "LoadImageMask": ("image", "image_upload"),
    "LoadAudio": ("audio", "audio_upload"),
    "LoadVideo": ("file", "video_upload"),
}
# Those of other packs go by their names: ``VHS_LoadVideo`` has its file under ``video``.
_LOADS = re.compile(r"load.*(image|mask|video|audio)|(image|mask|video|audio).*load", re.IGNORECASE)
_FILE_INPUTS = ("image", "mask", "video", "audio", "file")


@dataclass(frozen=True)
class FileSlot:
    """An input that takes a file.

    Attributes:
        key: ``NODE.INPUT``.
        title: what the user called the node, or empty.
    """

    key: str
    class_type: str
    title: str


@dataclass(frozen=True)
class BakedWorkflow:
    """A workflow of the shelf, as far as can be told without its node classes.

    Attributes:
        name: what jobs call it: the file's name without ``.json``.
        title: the name, for people.
        inputs: the files that it takes, in the order of its nodes.
        gate: whether a node looks like a safety gate, judged by its class's name.
        problem: why it cannot be run, in one line, or empty.
    """

    name: str
    title: str
    inputs: tuple[FileSlot, ...] = ()
    gate: bool = False
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """As the page gets it: ``{"name", "title", "inputs": [{"key", "class_type", "title"}], "gate", "problem"}``."""
        return {**vars(self), "inputs": [dict(vars(slot)) for slot in self.inputs]}


class Shelf:
    """The workflows in a directory. A file that changes is read anew; one that is broken is a problem of its own.

    Args:
        directory: where they are; None for no workflows.

    Raises:
        UsageError: there is no such directory.
    """

    def __init__(self, directory: Path | None) -> None:
        if directory is not None and not directory.is_dir():
            raise UsageError(
                f"there is no directory of workflows {directory}",
                remedy="name one with --workflows or COMFY_CPU_WORKFLOWS",
            )
        self._directory = directory
        self._known: dict[str, tuple[tuple[int, int], BakedWorkflow]] = {}

    def names(self) -> list[str]:
        """The names of all workflows, broken ones too, sorted."""
        return sorted(self._files())

    def get(self, name: str) -> dict[str, Any]:
        """A workflow's document.

        Raises:
            JobRejected: there is none of that name, or it is broken.
        """
        from comfy_cpu_core.workflow.document import read_document

        files = self._files()
        path = files.get(name) or files.get(name.removesuffix(".json"))
        if path is None:
            there = ", ".join(sorted(files)) or "there are none"
            raise JobRejected(
                f"input.workflow: no workflow {name!r:.80} is baked into this worker", remedy=f"those that are: {there}"
            )
        try:
            document, _ = read_document(path, None)
        except WorkflowError as error:
            raise JobRejected(f"input.workflow: {error}", remedy=error.remedy) from None
        if not isinstance(document, dict):
            raise JobRejected(f"input.workflow: {path.name} is not a workflow")
        return document

    def entries(self) -> list[BakedWorkflow]:
        """What is known of each workflow. Reads the files that are new."""
        return [self._entry(name, path) for name, path in sorted(self._files().items())]

    def _files(self) -> dict[str, Path]:
        # The names come from the directory, never from a job: no name leads anywhere else.
        if self._directory is None:
            return {}
        try:
            return {path.stem: path for path in self._directory.glob("*.json") if _NAME.fullmatch(path.stem)}
        except OSError as error:
            log.warning("the workflows in %s cannot be listed: %s", self._directory, error.strerror)
            return {}

    def _entry(self, name: str, path: Path) -> BakedWorkflow:
        try:
            stat = path.stat()
        except OSError as error:
            return BakedWorkflow(name, _title(name), problem=f"{path.name} cannot be read: {error.strerror}")
        stamp = stat.st_mtime_ns, stat.st_size
        known = self._known.get(name)
        if known is None or known[0] != stamp:
            known = stamp, _read(name, path)
            self._known[name] = known
            if known[1].problem:
                log.warning("the workflow %s cannot be run: %s", name, known[1].problem)
        return known[1]


def _read(name: str, path: Path) -> BakedWorkflow:
    from comfy_cpu_core.convert import looks_like_gate
    from comfy_cpu_core.workflow import load

    try:
        workflow = load(path, _signatures())
    except WorkflowError as error:
        return BakedWorkflow(name, _title(name), problem=str(error))
    nodes = workflow.nodes.values()
    return BakedWorkflow(
        name,
        _title(name),
        inputs=tuple(slot for node in nodes for slot in _slots(node)),
        gate=any(looks_like_gate(node.class_type) for node in nodes),
    )


def _slots(node: PromptNode) -> Iterator[FileSlot]:
    if node.class_type in _LOADERS:
        names: tuple[str, ...] = (_LOADERS[node.class_type][0],)
    elif _LOADS.search(node.class_type):
        names = tuple(name for name in _FILE_INPUTS if isinstance(node.widget(name), str))[:1]
    else:
        return
    for name in names:
        if not any(link_name == name for link_name, _ in node.links()):
            yield FileSlot(f"{node.id}.{name}", node.class_type, node.title)


def _signatures() -> dict[str, NodeSignature]:
    from comfy_cpu_core.nodes import InputSpec, NodeSignature

    signatures = {}
    for class_type, (name, upload) in _LOADERS.items():
        file = InputSpec(name, "COMBO", "required", choices=(), options={upload: True})
        channel = InputSpec("channel", "COMBO", "required", choices=("alpha", "red", "green", "blue"))
        inputs = (file, channel) if class_type == "LoadImageMask" else (file,)
        signatures[class_type] = NodeSignature(class_type, inputs)
    return signatures


def _title(name: str) -> str:
    return " ".join(name.replace("_", " ").split())
