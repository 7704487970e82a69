"""Warm-up: every baked workflow runs once before the worker is ready, so that the first job finds the models loaded.

The pictures that a workflow loads are made up: a gradient with a disc, enough for every model to have something to look
at. What comes out is thrown away. A block by a safety gate is fine. A workflow that fails is reported and keeps nobody
waiting: the others must not suffer for it, and its own jobs will say what is wrong with it.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

from comfy_cpu_client import FileInput
from comfy_cpu_core.names import check_name
from comfy_cpu_core.nodes import NodeSignature
from comfy_cpu_core.results import Result
from comfy_cpu_worker.work import Work

__all__ = ["LOAD_IMAGE_INPUTS", "find_image_inputs", "warm_up", "warm_up_picture", "warm_up_work"]

log = logging.getLogger(__name__)

#: class_type → the inputs that name a picture, where nobody knows more.
LOAD_IMAGE_INPUTS: Mapping[str, Collection[str]] = {"LoadImage": ("image",), "LoadImageMask": ("image",)}

#: What a workflow may take in all, in seconds.
WORKFLOW_SECONDS = 600.0

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_SIZE = 64
_MUTED, _BYPASSED = 2, 4  # ComfyUI's modes of a node that does not run


async def warm_up(
    run: Callable[[Work], Awaitable[Result]],
    workflows: Mapping[str, Mapping[str, Any]],
    image_inputs: Mapping[str, Collection[str]] = LOAD_IMAGE_INPUTS,
    *,
    timeout_s: float = WORKFLOW_SECONDS,
) -> list[str]:
    """Run every workflow once.

    Args:
        run: runs one; whatever goes wrong is in its result.
        workflows: name → the workflow, in API or UI format.
        image_inputs: class_type → the names of its inputs that take a picture (see `find_image_inputs`).
        timeout_s: what each may take; it fails beyond that.

    Returns: one line for each workflow that failed.
    """
    problems = []
    for name, workflow in workflows.items():
        result = await run(warm_up_work(name, workflow, image_inputs, timeout_s))
        reason = result.errors[0].message if result.errors else ""
        if result.status == "completed":
            log.info("workflow %s is warm (%.1f s)", name, result.execution_seconds)
        elif result.status == "blocked":
            log.info("workflow %s is warm up to the gate that blocked: %s", name, reason)
        else:
            problems.append(f"the warm-up of workflow {name} {result.status.replace('_', ' ')}: {reason}")
            log.warning("%s", problems[-1])
    return problems


def find_image_inputs(signatures: Mapping[str, NodeSignature]) -> dict[str, list[str]]:
    """class_type → the names of its inputs that take a picture, of the classes that have such inputs."""
    found = {
        class_type: [spec.name for spec in signature.inputs if spec.options.get("image_upload")]
        for class_type, signature in signatures.items()
    }
    return {class_type: names for class_type, names in found.items() if names}


def warm_up_work(
    name: str,
    workflow: Mapping[str, Any],
    image_inputs: Mapping[str, Collection[str]] = LOAD_IMAGE_INPUTS,
    timeout_s: float = WORKFLOW_SECONDS,
) -> Work:
    """A job that runs a workflow with made-up pictures.

    Whatever looks like a picture's name, anywhere in the workflow, becomes the name of one: that needs to know neither
    the workflow's format nor its nodes. Inputs that take a picture and name none that way are set.
    """
    picture = warm_up_picture()
    files = {text: picture for text in _texts(workflow) if _is_picture(text)}
    inputs = {
        f"{node_id}.{key}": FileInput("warm-up.png", picture)
        for node_id, class_type, values in _nodes(workflow)
        if not any(_plain(text) in files for text in _texts(values))
        for key in image_inputs.get(class_type, ())
        if not (isinstance(values, Mapping) and isinstance(values.get(key), list))  # connected
    }
    return Work(f"warm-up of {name}", workflow, files=files, inputs=inputs, timeout_s=timeout_s)


@lru_cache(maxsize=1)
def warm_up_picture() -> bytes:
    """A small PNG: a gradient with a bright disc in the middle."""
    middle, radius = _SIZE // 2, _SIZE // 4
    rows = bytearray()
    for y in range(_SIZE):
        rows.append(0)  # this row is not filtered
        for x in range(_SIZE):
            inside = (x - middle) ** 2 + (y - middle) ** 2 < radius**2
            rows += bytes((240, 200, 160) if inside else (x * 2, y * 2, 128))
    header = struct.pack("!IIBBBBB", _SIZE, _SIZE, 8, 2, 0, 0, 0)  # 8 bits a channel, RGB
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, as it names a file of the input folder."""
    if isinstance(value, str):
        yield _plain(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _plain(text: str) -> str:
    return text.removesuffix("[input]").rstrip()


def _is_picture(text: str) -> bool:
    if PurePosixPath(text).suffix.lower() not in _SUFFIXES:
        return False
    try:
        check_name(text)
    except ValueError:
        return False
    return True


def _nodes(workflow: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Id, class_type and values of every node that runs, in API or UI format."""
    if isinstance(workflow.get("nodes"), list):
        for node in workflow["nodes"]:
            if isinstance(node, Mapping) and node.get("mode") not in {_MUTED, _BYPASSED}:
                yield str(node.get("id")), str(node.get("type")), node.get("widgets_values")
        return
    for node_id, node in workflow.items():
        if isinstance(node, Mapping):
            yield str(node_id), str(node.get("class_type")), node.get("inputs")
