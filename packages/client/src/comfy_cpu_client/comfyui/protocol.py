"""ComfyUI's HTTP interface: requests as values, and what its answers mean. Opens nothing, sends nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from comfy_cpu_client.comfyui.files import Upload
from comfy_cpu_client.comfyui.messages import Message
from comfy_cpu_core.errors import TargetError
from comfy_cpu_core.results import OutputFolder

__all__ = [
    "Answer",
    "HistoryEntry",
    "Place",
    "Queue",
    "Request",
    "delete_queued",
    "find_upload",
    "get_history",
    "get_object_info",
    "get_queue",
    "get_system_stats",
    "interrupt",
    "parse_history",
    "parse_queue",
    "parse_upload",
    "post_prompt",
    "upload",
    "view",
]

#: Where a prompt is before it has ended.
Place = Literal["running", "pending"]


@dataclass(frozen=True)
class Request:
    """An HTTP request.

    Attributes:
        query: what stands behind the ``?``.
        document: the body, as JSON; may hold secrets.
        upload: a file that is sent as a form.
        accepts: the statuses that are an answer; any other is a refusal.
        repeatable: whether it may be sent again where it is not known what became of it.
    """

    method: Literal["GET", "HEAD", "POST"]
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    document: Any = field(default=None, repr=False)
    upload: Upload | None = None
    accepts: frozenset[int] = frozenset({200})
    repeatable: bool = False


@dataclass(frozen=True)
class Answer:
    """An HTTP answer with one of the statuses that its request accepts.

    Attributes:
        where: what was asked, for messages: the URL without what may be secret.
        size: how many bytes the body has, or would have (HEAD).
    """

    where: str
    status: int
    body: bytes = field(default=b"", repr=False)
    size: int = 0

    def json(self) -> Any:
        """The body.

        Raises:
            TargetError: it is not JSON.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise self.strange("is not JSON") from None

    def strange(self, what: str) -> TargetError:
        """The error for an answer that no ComfyUI would give; `what` ends a sentence that begins with the answer."""
        return TargetError(f"the answer of {self.where} {what}", remedy="is a ComfyUI at that address?")


# --- requests -------------------------------------------------------------------------------------------------------


def get_system_stats() -> Request:
    """Versions and memory: whether a ComfyUI is there."""
    return Request("GET", "/system_stats", repeatable=True)


def get_object_info(class_type: str | None = None) -> Request:
    """What a node class takes and gives; None for all of them (some megabytes)."""
    from urllib.parse import quote

    path = "/object_info" if class_type is None else f"/object_info/{quote(class_type, safe='')}"
    return Request("GET", path, repeatable=True)


def find_upload(file: Upload) -> Request:
    """Whether a file is there already: 200 with its size, or 404."""
    query = {"filename": file.filename, "subfolder": file.subfolder, "type": "input"}
    # Other statuses leave it open: not every proxy lets HEAD through.
    return Request("HEAD", "/view", query, accepts=frozenset({200, 400, 403, 404, 405, 501}), repeatable=True)


def upload(file: Upload) -> Request:
    """Put a file into the input folder. The same file twice does no harm; another one is never overwritten."""
    return Request("POST", "/upload/image", upload=file, repeatable=True)


def post_prompt(
    prompt: Mapping[str, Any], prompt_id: str, client_id: str, comfy_org_api_key: str | None = None
) -> Request:
    """Queue a prompt; 400 if it does not validate.

    Args:
        prompt_id: what to call it; older versions choose a name themselves.
        client_id: the websocket that gets its messages.
    """
    document: dict[str, Any] = {"prompt": prompt, "prompt_id": prompt_id, "client_id": client_id}
    if comfy_org_api_key is not None:
        document["extra_data"] = {"api_key_comfy_org": comfy_org_api_key}
    return Request("POST", "/prompt", document=document, accepts=frozenset({200, 400}))


def get_history(prompt_id: str) -> Request:
    """How a prompt ended; nothing as long as it has not."""
    return Request("GET", f"/history/{prompt_id}", repeatable=True)


def get_queue() -> Request:
    """What runs and what waits."""
    return Request("GET", "/queue", repeatable=True)


def interrupt(prompt_id: str) -> Request:
    """End the prompt that runs. Older versions end whichever runs, so look first whether it is this one."""
    return Request("POST", "/interrupt", document={"prompt_id": prompt_id})


def delete_queued(prompt_id: str) -> Request:
    """Take a prompt out of the queue; does nothing to one that runs."""
    return Request("POST", "/queue", document={"delete": [prompt_id]}, repeatable=True)


def view(folder: OutputFolder, path: PurePosixPath) -> Request:
    """Get a file that a node made; 404 if it is gone."""
    subfolder = "" if path.parent == PurePosixPath() else str(path.parent)
    query = {"filename": path.name, "subfolder": subfolder, "type": folder}
    return Request("GET", "/view", query, accepts=frozenset({200, 404}), repeatable=True)


# --- answers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Queue:
    """What runs and what waits: prompt id → the client that it is for (or None)."""

    running: Mapping[str, str | None]
    pending: Mapping[str, str | None]

    def place(self, prompt_id: str) -> Place | None:
        """Where a prompt is; None if it has ended, or was never there."""
        if prompt_id in self.running:
            return "running"
        return "pending" if prompt_id in self.pending else None

    def of_client(self, client_id: str) -> str | None:
        """The prompt of a client that has but one; None if it is not there."""
        everything = {**self.running, **self.pending}
        return next((prompt_id for prompt_id, client in everything.items() if client == client_id), None)


def parse_queue(answer: Answer) -> Queue:
    """Read the answer to `get_queue`.

    Raises:
        TargetError: it is none.
    """
    document = answer.json()
    if not isinstance(document, dict):
        raise answer.strange("is no queue")
    return Queue(_queued(document.get("queue_running"), answer), _queued(document.get("queue_pending"), answer))


def _queued(items: Any, answer: Answer) -> dict[str, str | None]:
    # Each is [number, prompt id, prompt, extra data, outputs, …].
    if not isinstance(items, list) or not all(isinstance(item, list) and len(item) > 3 for item in items):
        raise answer.strange("is no queue")
    return {str(item[1]): item[3].get("client_id") if isinstance(item[3], dict) else None for item in items}


@dataclass(frozen=True)
class HistoryEntry:
    """How a prompt ended.

    Attributes:
        succeeded: what the status says; None where there is no status.
        messages: ``execution_start``, ``execution_cached`` and how it ended, with the server's times (``timestamp``,
            in ms) where it is new enough.
        outputs: node id → what it showed.
    """

    succeeded: bool | None
    messages: Sequence[Message] = ()
    outputs: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)

    def message(self, *kinds: str) -> Message | None:
        """The first message of one of these types."""
        return next((message for message in self.messages if message.type in kinds), None)

    @property
    def cached(self) -> tuple[str, ...]:
        """The nodes that did not run because their results were there."""
        message = self.message("execution_cached")
        nodes = message.data.get("nodes") if message is not None else None
        return tuple(str(node) for node in nodes) if isinstance(nodes, list) else ()

    @property
    def seconds(self) -> float | None:
        """How long it ran, by the server's clock; None where it does not say."""
        times = [message.data.get("timestamp") for message in self.messages]
        known = [time for time in times if isinstance(time, int | float)]
        return max(0.0, (known[-1] - known[0]) / 1000) if len(known) > 1 else None


def parse_history(answer: Answer, prompt_id: str) -> HistoryEntry | None:
    """Read the answer to `get_history`; None if the prompt has not ended.

    Raises:
        TargetError: it is no such answer.
    """
    document = answer.json()
    if not isinstance(document, dict):
        raise answer.strange("is no history")
    entry = document.get(prompt_id)
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise answer.strange("is no history")
    status = entry.get("status")
    succeeded: bool | None = None
    messages: tuple[Message, ...] = ()
    if isinstance(status, dict):
        # Both must say so: a run that is taken for a success by mistake may have got past a gate.
        succeeded = status.get("status_str") == "success" and status.get("completed") is True
        messages = tuple(_messages(status.get("messages") or ()))
    outputs = entry.get("outputs")
    if not isinstance(outputs, dict) or not all(isinstance(ui, dict) for ui in outputs.values()):
        raise answer.strange("has no outputs in it")
    return HistoryEntry(succeeded, messages, {node_id: _lists(ui) for node_id, ui in outputs.items()})


def _messages(items: Iterable[Any]) -> Iterable[Message]:
    for item in items:
        match item:
            case [str(kind), dict(data)]:
                yield Message(kind, data)


def _lists(ui: Mapping[str, Any]) -> dict[str, list[Any]]:
    # A node may show something that is no list; then it is one thing.
    return {key: items if isinstance(items, list) else [items] for key, items in ui.items()}


def parse_upload(answer: Answer) -> str:
    """The name by which a prompt knows the file that was sent: with its subfolder.

    Raises:
        TargetError: the answer does not say.
    """
    document = answer.json()
    name = document.get("name") if isinstance(document, dict) else None
    if not isinstance(name, str) or not name:
        raise answer.strange("names no file")
    subfolder = str(document.get("subfolder") or "").strip("/")
    return f"{subfolder}/{name}" if subfolder else name
