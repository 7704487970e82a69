"""The nodes of the fake ComfyUI, and how it runs a prompt of them."""

from __future__ import annotations

import hashlib
import json
import struct
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fake_comfyui import FakeComfyUI

__all__ = ["NODES", "Execution", "Interrupted", "Item", "Node", "NodeFailed", "Prompt", "behind", "is_link"]

Prompt = dict[str, dict[str, Any]]


class Interrupted(Exception):
    """The run is to end."""


class NodeFailed(Exception):
    """A node raised an exception of some class."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Node:
    """A node class.

    Attributes:
        run: gets the run and the inputs; gives the outputs and what it shows.
        required, optional: as INPUT_TYPES has them.
        outputs: types.
        output_node: OUTPUT_NODE.
        check: VALIDATE_INPUTS; None if there is none.
    """

    run: Callable[[Execution, dict[str, Any]], tuple[tuple[Any, ...], dict[str, list[Any]]]]
    required: Mapping[str, Any] = field(default_factory=dict)
    optional: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    output_node: bool = False
    check: Callable[[FakeComfyUI, dict[str, Any]], bool | str] | None = None


def _load(run: Execution, inputs: dict[str, Any]) -> Any:
    return ((run.server.input / inputs["image"]).read_bytes(),), {}


def _check_image(server: FakeComfyUI, inputs: dict[str, Any]) -> bool | str:
    there = (server.input / str(inputs["image"])).is_file()
    return there or f"Invalid image file: {inputs['image']}"


def _choose(run: Execution, inputs: dict[str, Any]) -> Any:
    return ((run.server.input / inputs["file"]).read_bytes(),), {}


def _save_as(folder: str, key: str, suffix: str) -> Callable[[Execution, dict[str, Any]], Any]:
    def save(run: Execution, inputs: dict[str, Any]) -> Any:
        prefix = str(inputs.get("filename_prefix", "ComfyUI"))
        subfolder, _, stem = prefix.rpartition("/")
        place = run.server.folder(folder) / subfolder
        place.mkdir(parents=True, exist_ok=True)
        number = 1 + len(list(place.glob(f"{stem}_*")))
        name = f"{stem}_{number:05}_{suffix}"
        (place / name).write_bytes(inputs["images"])
        return (), {key: [{"filename": name, "subfolder": subfolder, "type": folder}]}

    return save


def _sleep(run: Execution, inputs: dict[str, Any]) -> Any:
    run.sleep(float(inputs["seconds"]))
    return (b"slept",), {}


def _stubborn(run: Execution, inputs: dict[str, Any]) -> Any:
    end = time.monotonic() + float(inputs["seconds"])
    while time.monotonic() < end and not run.server.closing:
        time.sleep(0.01)
    return (b"slept",), {}


def _steps(run: Execution, inputs: dict[str, Any]) -> Any:
    count = int(inputs["count"])
    for step in range(1, count + 1):
        run.sleep(float(inputs.get("seconds", 0)))
        run.step(step, count)
        if inputs.get("preview"):
            run.preview(b"\xff\xd8preview %d" % step)
    return (b"steps",), {}


def _fail(run: Execution, inputs: dict[str, Any]) -> Any:
    raise NodeFailed(str(inputs.get("kind", "ValueError")), str(inputs["message"]))


def _execution_block(run: Execution, inputs: dict[str, Any]) -> Any:
    run.block(str(inputs["message"]))
    return (), {}


def _show(key: str) -> Callable[[Execution, dict[str, Any]], Any]:
    def show(run: Execution, inputs: dict[str, Any]) -> Any:
        value = inputs[key]
        items = value if isinstance(value, list) else [value]
        return (value,), {key: items}

    return show


def _crash(run: Execution, inputs: dict[str, Any]) -> Any:
    run.sleep(0.1)  # so that what was said before has left
    run.server.crash(str(inputs.get("how", "kill")))
    raise Interrupted


def _lie(run: Execution, inputs: dict[str, Any]) -> Any:
    return (), {"images": [{"filename": inputs["filename"], "subfolder": "", "type": "output"}]}


def _litter(run: Execution, inputs: dict[str, Any]) -> Any:
    for folder in ("input", "output", "temp"):
        place = run.server.folder(folder) / "litter"
        place.mkdir(exist_ok=True)
        (place / f"{uuid.uuid4().hex}.bin").write_bytes(b"litter")
    return (), {"text": ["littered"]}


_ANY = ("IMAGE",)
NODES: dict[str, Node] = {
    "LoadImage": Node(_load, {"image": (["example.png"], {"image_upload": True})}, outputs=_ANY, check=_check_image),
    "OldLoader": Node(_choose, {"file": "FILES"}, outputs=_ANY),
    "SaveImage": Node(
        _save_as("output", "images", ".png"), {"images": _ANY, "filename_prefix": ("STRING", {})}, output_node=True
    ),
    "PreviewImage": Node(_save_as("temp", "images", ".png"), {"images": _ANY}, output_node=True),
    "SaveVideo": Node(_save_as("output", "gifs", ".webm"), {"images": _ANY}, output_node=True),
    "SaveAudio": Node(_save_as("output", "audio", ".flac"), {"images": _ANY}, output_node=True),
    "ShowText|pysssss": Node(_show("text"), {"text": ("STRING", {})}, outputs=("STRING",), output_node=True),
    "ShowBoxes": Node(_show("boxes"), {"boxes": ("JSON",)}, output_node=True),
    "Sleep": Node(_sleep, {"seconds": ("FLOAT", {})}, {"after": ("*",)}, outputs=_ANY),
    "Stubborn": Node(_stubborn, {"seconds": ("FLOAT", {})}, outputs=_ANY),
    "Steps": Node(_steps, {"count": ("INT", {})}, {"seconds": ("FLOAT",), "preview": ("BOOLEAN",)}, outputs=_ANY),
    "Fail": Node(_fail, {"message": ("STRING", {})}, {"kind": ("STRING", {})}, outputs=_ANY),
    "FailAtEnd": Node(_fail, {"message": ("STRING", {})}, {"kind": ("STRING", {}), "after": ("*",)}, output_node=True),
    "ExecutionBlock": Node(_execution_block, {"message": ("STRING", {})}, output_node=True),
    "Crash": Node(_crash, {}, {"how": ("STRING", {})}, outputs=_ANY, output_node=True),
    "Lie": Node(_lie, {"filename": ("STRING", {})}, output_node=True),
    "Litter": Node(_litter, output_node=True),
}


def is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


@dataclass
class Item:
    """A prompt in the queue."""

    number: int
    prompt_id: str
    prompt: Prompt
    extra_data: dict[str, Any]
    outputs: list[str]

    def to_json(self) -> list[Any]:
        return [self.number, self.prompt_id, self.prompt, self.extra_data, self.outputs]


def _plain(value: Any) -> Any:
    """A value of an input; a list is wrapped, so that nobody takes it for a link."""
    return value["__value__"] if isinstance(value, dict) and "__value__" in value else value


def behind(prompt: Prompt, output: str) -> list[str]:
    """The node and all that it needs, each after what it needs."""
    found: list[str] = []

    def visit(node_id: str) -> None:
        for value in prompt[node_id]["inputs"].values():
            if is_link(value) and value[0] in prompt and value[0] not in found:
                visit(value[0])
        if node_id not in found:
            found.append(node_id)

    visit(output)
    return found


class Execution:
    """One prompt at work."""

    def __init__(self, server: FakeComfyUI, item: Item) -> None:
        self.server = server
        self.messages: list[list[Any]] = []
        self.shown: dict[str, dict[str, list[Any]]] = {}
        self._item = item
        self._sid: str | None = item.extra_data.get("client_id")
        self._node: str = ""
        self._states: dict[str, dict[str, Any]] = {}
        self._held: list[tuple[str | None, dict[str, Any]]] = []

    def go(self) -> bool:
        """Run it; whether it succeeded."""
        server, prompt = self.server, self._item.prompt
        self._note("execution_start", {})
        order = list(dict.fromkeys(i for output in self._item.outputs for i in behind(prompt, output)))
        signatures = {node_id: self._signature(node_id) for node_id in prompt}
        cached = [node_id for node_id in prompt if signatures[node_id] in server._cache]
        self._note("execution_cached", {"nodes": cached})
        results: dict[str, Any] = {}
        kept = {signatures[i]: server._cache[signatures[i]] for i in cached}
        server._cache = kept
        try:
            for node_id in order:
                self._node = node_id
                if node_id in cached:
                    results[node_id], ui = server._cache[signatures[node_id]]
                else:
                    results[node_id], ui = self._run_node(node_id, results)
                    kept[signatures[node_id]] = (results[node_id], ui)
                if ui:
                    self.shown[node_id] = ui
                    self.tell("executed", {"node": node_id, "display_node": node_id, "output": ui})
        except Interrupted:
            about = {"node_id": self._node, "node_type": prompt[self._node]["class_type"], "executed": []}
            self._note("execution_interrupted", about, broadcast=True)
            return False
        except Exception as error:
            kind = error.kind if isinstance(error, NodeFailed) else f"{type(error).__module__}.{type(error).__name__}"
            about = {
                "node_id": self._node,
                "node_type": prompt[self._node]["class_type"],
                "executed": [],
                "exception_message": f"{error}\n",
                "exception_type": kind.removeprefix("builtins."),
                "traceback": ['  File "nodes.py", line 1, in run\n', "    raise\n"],
                "current_inputs": {},
                "current_outputs": [],
            }
            self._note("execution_error", about)
            return False
        self._note("execution_success", {})
        return True

    def _run_node(self, node_id: str, results: dict[str, Any]) -> tuple[Any, Any]:
        node = self._item.prompt[node_id]
        kind = self.server.nodes[node["class_type"]]
        self._check()
        self._state(node_id, "running", 0, 1)
        self.tell("executing", {"node": node_id, "display_node": node_id})
        known = {*kind.required, *kind.optional}
        inputs = {
            name: results[value[0]][value[1]] if is_link(value) else _plain(value)
            for name, value in node["inputs"].items()
            if name in known
        }
        done = kind.run(self, inputs)
        self._state(node_id, "finished", 1, 1)
        return done

    def _signature(self, node_id: str) -> str:
        node = self._item.prompt[node_id]
        parts: list[Any] = [node["class_type"]]
        for name, value in sorted(node["inputs"].items()):
            linked = is_link(value) and value[0] in self._item.prompt
            parts.append([name, self._signature(value[0]) if linked else value])
        image = self.server.input / str(node["inputs"].get("image"))
        if node["class_type"] == "LoadImage" and image.is_file():
            parts.append(hashlib.sha256(image.read_bytes()).hexdigest())
        return json.dumps(parts)

    # --- what nodes call --------------------------------------------------------------------------------------------

    def sleep(self, seconds: float) -> None:
        """Sleep, until somebody interrupts."""
        self.server._interrupt.wait(seconds)
        self._check()

    def step(self, value: int, total: int) -> None:
        self._check()
        self._state(self._node, "running", value, total)
        self.tell("progress", {"value": value, "max": total, "node": self._node})

    def preview(self, picture: bytes) -> None:
        about = {"node_id": self._node, "display_node_id": self._node, "prompt_id": self._item.prompt_id}
        metadata = json.dumps({**about, "image_type": "image/jpeg"}).encode()
        websocket = self.server._sockets.get(self._sid or "")
        if websocket is not None and websocket.flags.get("supports_preview_metadata"):
            self.server.send(self._sid, struct.pack(">II", 4, len(metadata)) + metadata + picture)
        else:
            self.server.send(self._sid, struct.pack(">II", 1, 1) + picture)

    def block(self, message: str) -> None:
        """What ComfyUI says of an ExecutionBlocker with a message: it is not written down."""
        about = {
            "node_id": self._node,
            "node_type": self._item.prompt[self._node]["class_type"],
            "exception_message": f"Execution Blocked: {message}",
            "exception_type": "ExecutionBlocked",
            "traceback": [],
        }
        self.tell("execution_error", about)

    def _check(self) -> None:
        if self.server._interrupt.is_set():
            self.server._interrupt.clear()
            raise Interrupted

    # --- messages ---------------------------------------------------------------------------------------------------

    def tell(self, kind: str, data: dict[str, Any], *, broadcast: bool = False) -> None:
        message = {"type": kind, "data": {**data, "prompt_id": self._item.prompt_id}}
        sid = None if broadcast else self._sid
        if self.server.scramble:
            self._held.append((sid, message))
        else:
            self.server.send(sid, message)

    def flush(self) -> None:
        for sid, message in reversed(self._held):
            self.server.send(sid, message)

    def _note(self, kind: str, data: dict[str, Any], *, broadcast: bool = False) -> None:
        data = {"prompt_id": self._item.prompt_id, **data, "timestamp": int(time.time() * 1000)}
        self.messages.append([kind, data])
        self.tell(kind, data, broadcast=broadcast)

    def _state(self, node_id: str, state: str, value: float, total: float) -> None:
        if self.server.old:
            return
        self._states[node_id] = {"value": value, "max": total, "state": state, "node_id": node_id}
        self.tell("progress_state", {"nodes": {i: dict(s) for i, s in self._states.items()}})
