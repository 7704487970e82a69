"""The files of a run on a ComfyUI: what they are called there, and which inputs of the prompt name them. Pure."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from comfy_cpu_core.nodes import InputSpec, NodeSignature

__all__ = ["FileUse", "Upload", "find_uses", "name_files", "plan_upload"]

# Everything else in a name is replaced: it ends up in paths, URLs and JSON.
_UNSAFE = re.compile(r"[^\w.\-]+", re.ASCII)
_LONGEST_STEM = 80
_ANNOTATION = re.compile(r"\s*\[input\]\Z")


@dataclass(frozen=True)
class Upload:
    """A file on its way into ComfyUI's input folder.

    Its name holds the hash of its content, so that the same file is sent once, and never takes the place of another.
    """

    subfolder: str
    filename: str
    data: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """How a prompt names it."""
        return f"{self.subfolder}/{self.filename}" if self.subfolder else self.filename


@dataclass(frozen=True)
class FileUse:
    """An input of a node that names a file of the request."""

    node_id: str
    input: str
    file: str


def plan_upload(name: str, data: bytes, folder: str) -> Upload:
    """What to call a file of a request in a folder of the input folder; "" for the input folder itself."""
    path = PurePosixPath(_UNSAFE.sub("_", PurePosixPath(name).name))
    stem = path.stem.strip("._")[:_LONGEST_STEM] or "file"
    suffix = path.suffix if len(path.suffix) <= 20 else ""
    return Upload(folder, f"{stem}-{hashlib.sha256(data).hexdigest()[:20]}{suffix}", data)


def find_uses(
    prompt: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, bytes],
    signature: Callable[[str], NodeSignature | None],
) -> list[FileUse]:
    """Which inputs name a file of the request.

    A text may be the same as a file's name by chance, so a file is looked for in the inputs that offer files to choose
    from: those that are a list of options, or that an upload belongs to. If no such input names it, every text that is
    its name does.

    Args:
        signature: class_type → its signature, or None if the class is not known; asked only for nodes with such a text.
    """
    found: dict[str, list[tuple[FileUse, bool]]] = {}
    for node_id, node in prompt.items():
        for name, value in node.get("inputs", {}).items():
            if isinstance(value, str) and (key := _ANNOTATION.sub("", value)) in files:
                known = signature(str(node.get("class_type")))
                offers = known is None or _offers_files(known.input(name))
                found.setdefault(key, []).append((FileUse(node_id, name, key), offers))
    return [use for uses in found.values() for use, offers in uses if offers or not any(chosen for _, chosen in uses)]


def _offers_files(spec: InputSpec | None) -> bool:
    return (
        spec is None
        or spec.type == "COMBO"
        or any(name.endswith("_upload") and on for name, on in spec.options.items())
    )


def name_files(prompt: Mapping[str, Mapping[str, Any]], uses: Mapping[FileUse, str]) -> dict[str, dict[str, Any]]:
    """A copy of a prompt in which inputs name files as they are called on the ComfyUI."""
    renamed: dict[str, dict[str, Any]] = copy.deepcopy({node_id: dict(node) for node_id, node in prompt.items()})
    for use, name in uses.items():
        renamed[use.node_id]["inputs"][use.input] = name
    return renamed
