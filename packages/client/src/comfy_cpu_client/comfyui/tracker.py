"""Which nodes of a prompt have run, as far as the websocket told: progress, and how long each took. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from comfy_cpu_client.comfyui.messages import Message
from comfy_cpu_core.results import NodeTiming, Progress

__all__ = ["NodeTracker"]


class NodeTracker:
    """Follows the nodes of one prompt.

    Messages may be missing, doubled or late: a node starts once and finishes once, whatever is said of it.

    Args:
        prompt: in API format. A node that another one puts into its place while the prompt runs is not one of it, and
            is left out.
    """

    def __init__(self, prompt: Mapping[str, Mapping[str, Any]]) -> None:
        self._class_types = {node_id: str(node.get("class_type")) for node_id, node in prompt.items()}
        self._started: dict[str, float] = {}
        self._done: dict[str, NodeTiming | None] = {}  # None where its start was not heard
        self._steps: dict[str, tuple[float, float]] = {}
        self._states = False  # whether the server says of each node when it has finished

    def class_type(self, node_id: str) -> str:
        """The class of a node; empty for one that is not in the prompt."""
        return self._class_types.get(node_id, "")

    @property
    def timings(self) -> tuple[NodeTiming, ...]:
        """Of the nodes that are done, in that order, as far as they are known."""
        return tuple(timing for timing in self._done.values() if timing is not None)

    def receive(self, message: Message, now: float) -> Iterator[Progress]:
        """Take a message of this prompt that came at `now`; gives what it means."""
        data = message.data
        match message.type:
            case "execution_cached":
                yield from self.cached(data.get("nodes"))
            case "executing":
                node_id = data.get("node")
                if not self._states:  # then the node before it is done; of several at once only these servers know
                    yield from self._finish([other for other in self._started if other != node_id], now)
                yield from self._start(node_id, now)
            case "progress":
                yield from self._step(data.get("node"), data.get("value"), data.get("max"), now)
            case "progress_state" if isinstance(data.get("nodes"), dict):
                self._states = True
                for node_id, state in data["nodes"].items():
                    if isinstance(state, dict):
                        yield from self._state(node_id, state, now)
            case "execution_success":
                yield from self._finish(list(self._started), now)

    def cached(self, node_ids: Any) -> Iterator[Progress]:
        """Note nodes that do not run because their results are there."""
        for node_id in node_ids if isinstance(node_ids, list | tuple) else ():
            if not isinstance(node_id, str):
                continue
            known = self._done.get(node_id) is None and node_id in self._class_types and node_id not in self._started
            if known:
                told = node_id in self._done
                self._done[node_id] = NodeTiming(node_id, self._class_types[node_id], 0.0, cached=True)
                if not told:
                    yield self._event("cached", node_id)

    def _is_open(self, node_id: Any) -> bool:
        return isinstance(node_id, str) and node_id in self._class_types and node_id not in self._done

    def _start(self, node_id: Any, now: float) -> Iterator[Progress]:
        if self._is_open(node_id) and node_id not in self._started:
            self._started[node_id] = now
            yield self._event("started", node_id)

    def _finish(self, node_ids: Iterable[str], now: float) -> Iterator[Progress]:
        for node_id in node_ids:
            if self._is_open(node_id):
                start = self._started.pop(node_id, None)
                timing = NodeTiming(node_id, self._class_types[node_id], now - start) if start is not None else None
                self._done[node_id] = timing
                yield self._event("finished", node_id)

    def _step(self, node_id: Any, value: Any, total: Any, now: float) -> Iterator[Progress]:
        if not self._is_open(node_id) or not isinstance(value, int | float) or not isinstance(total, int | float):
            return
        yield from self._start(node_id, now)
        if total > 0 and value > 0 and self._steps.get(node_id) != (value, total):
            self._steps[node_id] = (value, total)
            yield self._event("step", node_id, value, total)

    def _state(self, node_id: str, state: Mapping[str, Any], now: float) -> Iterator[Progress]:
        match state.get("state"):
            case "running":
                yield from self._step(node_id, state.get("value"), state.get("max"), now)
            case "finished":
                yield from self._finish([node_id], now)

    def _event(self, kind: Any, node_id: str, value: float = 0, total: float = 0) -> Progress:
        class_type = self._class_types[node_id]
        return Progress(kind, node_id, class_type, value, total, done=len(self._done), nodes=len(self._class_types))
