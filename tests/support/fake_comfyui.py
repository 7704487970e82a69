"""A ComfyUI that is none: its HTTP and websocket interface on a loopback port, with nodes that do next to nothing.

In a test it runs in threads and can be told to misbehave::

    with FakeComfyUI(tmp_path) as server:
        server.fault("history", status=500, times=1)
        server.drop_websocket_after = 3

As a program it takes the flags of ComfyUI's main.py that the worker gives, and can be told, too, never to be ready, to
ignore signals, or to die at its start: ``python fake_comfyui.py --cpu --port 8188 --fake never-ready``.

It needs the standard library alone. What it does is what ComfyUI 0.3.64 does, seen from outside: validation with partial
acceptance, a cache of the last prompt's results, the order of its messages, one lock between queue and history.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from fake_comfyui_http import Fault, Handler, Seen, Server, Websocket, reset
from fake_comfyui_nodes import NODES, Execution, Item, Node, Prompt, behind

__all__ = ["NODES", "FakeComfyUI", "Fault", "Node", "Seen"]


class FakeComfyUI:
    """The server; starts with the ``with`` block and stops with it.

    Args:
        base: has the directories input, output and temp, which are made.

    Attributes:
        seen: every request, in order.
        authorization: if not None, the header that every request must carry.
        old: a version that chooses prompt ids itself, interrupts whatever runs, and sends no ``progress_state``.
        silent: no messages on the websocket.
        scramble: messages of a run come at its end, the last one first.
        drop_websocket_after: a websocket is reset after so many messages; None for never.
        history_delay_s: how long after its last message a run is in the history.
        nodes: the classes; a test may add some.
    """

    def __init__(
        self,
        base: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        directories: Mapping[str, Path] | None = None,
    ) -> None:
        self.seen: list[Seen] = []
        self.authorization: str | None = None
        self.old = False
        self.silent = False
        self.scramble = False
        self.drop_websocket_after: int | None = None
        self.history_delay_s = 0.0
        self.nodes = dict(NODES)
        self.closing = False
        self.crash: Callable[[str], None] = lambda how: self.die()
        self._directories = dict(directories or {name: base / name for name in ("input", "output", "temp")})
        for directory in self._directories.values():
            directory.mkdir(parents=True, exist_ok=True)
        self._faults: list[Fault] = []
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._pending: list[Item] = []
        self._running: Item | None = None
        self._history: dict[str, dict[str, Any]] = {}
        self._number = 0
        self._interrupt = threading.Event()
        self._cache: dict[str, tuple[Any, Any]] = {}
        self._sockets: dict[str, Websocket] = {}
        self._connections: set[socket.socket] = set()
        self.hung = threading.Event()
        handler = type("Handler", (Handler,), {"comfyui": self})
        self._server = Server((host, port), handler)
        self._server.comfyui = self
        self._server.tls = tls
        self._scheme = "https" if tls is not None else "http"
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True),
            threading.Thread(target=self._work, daemon=True),
        ]

    def __enter__(self) -> FakeComfyUI:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.die()
        for thread in self._threads:
            thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def target(self) -> str:
        """The name of the client's target."""
        return f"comfyui+{self.url}"

    @property
    def input(self) -> Path:
        return self._directories["input"]

    def folder(self, name: str) -> Path:
        return self._directories[name]

    # --- what tests do to it ----------------------------------------------------------------------------------------

    def fault(self, place: str, **how: Any) -> Fault:
        """Misbehave from now on."""
        fault = Fault(place, **how)
        self._faults.append(fault)
        return fault

    def heal(self) -> None:
        self._faults.clear()

    def die(self) -> None:
        """Close every socket at once, as a process that is killed does."""
        if self.closing:
            return
        self.closing = True
        threading.Thread(target=self._server.shutdown, daemon=True).start()
        self._server.socket.close()
        for connection in list(self._connections):
            reset(connection)
        # Only now, so that nobody is told how the run ended.
        self._interrupt.set()
        with self._changed:
            self._changed.notify_all()

    def forget(self) -> None:
        """Lose queue and history, as a process that is started again does; what runs comes to nothing."""
        with self._lock:
            self._pending.clear()
            self._history.clear()
            self._running = None
            self._interrupt.set()

    def drop_websockets(self) -> None:
        """Reset every websocket that is open now."""
        for websocket in list(self._sockets.values()):
            websocket.reset()

    def requests(self, place: str) -> list[Seen]:
        """The requests to a place."""
        return [seen for seen in list(self.seen) if seen.path.split("/")[1] == place]

    def clear_cache(self) -> None:
        self._cache.clear()

    # --- the queue --------------------------------------------------------------------------------------------------

    def queue(self) -> dict[str, Any]:
        with self._lock:
            running = [self._running.to_json()] if self._running is not None else []
            return {"queue_running": running, "queue_pending": [item.to_json() for item in self._pending]}

    def history(self, prompt_id: str | None) -> dict[str, Any]:
        with self._lock:
            return {i: entry for i, entry in self._history.items() if prompt_id in {None, i}}

    def accept(self, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        prompt = document["prompt"]
        error, outputs, node_errors = self._validate(prompt)
        if error is not None:
            return 400, {"error": error, "node_errors": node_errors}
        prompt_id = str(uuid.uuid4()) if self.old else document.get("prompt_id", str(uuid.uuid4()))
        extra_data = {**document.get("extra_data", {}), "client_id": document.get("client_id")}
        with self._changed:
            self._number += 1
            self._pending.append(Item(self._number, prompt_id, prompt, extra_data, outputs))
            self._changed.notify_all()
        return 200, {"prompt_id": prompt_id, "number": self._number, "node_errors": node_errors}

    def interrupt(self, document: dict[str, Any]) -> None:
        with self._lock:
            running = self._running
            wanted = None if self.old else document.get("prompt_id")
            if running is not None and wanted in {None, running.prompt_id}:
                self._interrupt.set()

    def delete(self, prompt_ids: list[str]) -> None:
        with self._lock:
            self._pending = [item for item in self._pending if item.prompt_id not in prompt_ids]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self.closing)
                if self.closing:
                    return
                item = self._running = self._pending.pop(0)
                self._interrupt.clear()
            run = Execution(self, item)
            succeeded = run.go()
            if self.history_delay_s:
                time.sleep(self.history_delay_s)
            with self._lock:
                if self._running is not item:  # forgotten
                    continue
                self._running = None
                self._history[item.prompt_id] = {
                    "prompt": item.to_json(),
                    "outputs": dict(sorted(run.shown.items(), reverse=True)),  # in no order that means anything
                    "status": {
                        "status_str": "success" if succeeded else "error",
                        "completed": succeeded,
                        "messages": run.messages,
                    },
                    "meta": {},
                }
            run.tell("executing", {"node": None})
            run.flush()

    # --- validation -------------------------------------------------------------------------------------------------

    def _validate(self, prompt: Prompt) -> tuple[dict[str, Any] | None, list[str], dict[str, Any]]:
        for node_id, node in prompt.items():
            if node["class_type"] not in self.nodes:
                message = f"Cannot execute because node {node['class_type']} does not exist."
                return _error("invalid_prompt", message, f"Node ID '#{node_id}'"), [], {}
        outputs = [node_id for node_id, node in prompt.items() if self.nodes[node["class_type"]].output_node]
        if not outputs:
            return _error("prompt_no_outputs", "Prompt has no outputs", ""), [], {}
        good, node_errors = [], {}  # type: list[str], dict[str, Any]
        for output in outputs:
            wrong = {i: problems for i in behind(prompt, output) if (problems := self._problems(prompt[i]))}
            for node_id, problems in wrong.items():
                entry = {"errors": problems, "dependent_outputs": [], "class_type": prompt[node_id]["class_type"]}
                node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)
            if not wrong:
                good.append(output)
        if good:
            return None, good, node_errors
        everything = [problem for entry in node_errors.values() for problem in entry["errors"]]
        details = "\n".join(f"{problem['message']}: {problem['details']}" for problem in everything)
        return _error("prompt_outputs_failed_validation", "Prompt outputs failed validation", details), [], node_errors

    def _problems(self, node: dict[str, Any]) -> list[dict[str, Any]]:
        kind, inputs = self.nodes[node["class_type"]], node["inputs"]
        problems = []
        for name, spec in kind.required.items():
            if name not in inputs:
                problems.append(_problem("required_input_missing", "Required input is missing", name, name))
            elif spec == "FILES" and inputs[name] not in self.input_files():
                details = f"{name}: '{inputs[name]}' not in {self.input_files()}"
                problems.append(_problem("value_not_in_list", "Value not in list", details, name))
        if not problems and kind.check is not None and (answer := kind.check(self, inputs)) is not True:
            name = next(iter(kind.required))
            details = f"{name} - {answer}"
            problems.append(_problem("custom_validation_failed", "Custom validation failed for node", details, name))
        return problems

    def input_files(self) -> list[str]:
        return sorted(path.name for path in self.input.iterdir() if path.is_file())

    def object_info(self, class_type: str | None) -> dict[str, Any]:
        found = self.nodes if class_type is None else {c: n for c, n in self.nodes.items() if c == class_type}
        return {name: self._describe(name, node) for name, node in found.items()}

    def _describe(self, name: str, node: Node) -> dict[str, Any]:
        inputs = {
            section: {i: (self.input_files(),) if spec == "FILES" else spec for i, spec in specs.items()}
            for section, specs in (("required", node.required), ("optional", node.optional))
        }
        return {
            "input": inputs,
            "input_order": {section: list(specs) for section, specs in inputs.items()},
            "output": list(node.outputs),
            "output_is_list": [False] * len(node.outputs),
            "output_name": list(node.outputs),
            "name": name,
            "display_name": name,
            "description": "",
            "python_module": "nodes",
            "category": "test",
            "output_node": node.output_node,
        }

    # --- sockets ----------------------------------------------------------------------------------------------------

    def send(self, sid: str | None, message: dict[str, Any] | bytes) -> None:
        """Send a message to a client, or to all."""
        if self.silent:
            return
        targets = list(self._sockets.values()) if sid is None else [self._sockets[sid]] if sid in self._sockets else []
        for websocket in targets:
            websocket.send(message)
            limit = self.drop_websocket_after
            if limit is not None and websocket.sent >= limit:
                websocket.reset()

    def fault_at(self, place: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.place in {place, "any"} and fault.times != 0:
                    fault.times -= 1 if fault.times > 0 else 0
                    return fault
        return None


def _error(kind: str, message: str, details: str) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": {}}


def _problem(kind: str, message: str, details: str, name: str) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": {"input_name": name}}


# --- as a program ---------------------------------------------------------------------------------------------------


def main() -> None:
    """Run as ComfyUI's main.py would."""
    import argparse

    parser = argparse.ArgumentParser()
    for flag in ("--cpu", "--disable-auto-launch", "--disable-metadata", "--disable-api-nodes", "--log-stdout"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--listen", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8188)
    for name in ("input", "output", "temp", "base", "user"):
        parser.add_argument(f"--{name}-directory", type=Path)
    parser.add_argument("--extra-model-paths-config", nargs="+", action="append")
    parser.add_argument("--max-upload-size")
    parser.add_argument("--database-url")
    parser.add_argument("--verbose")
    parser.add_argument("--fake", nargs="*", default=[])
    arguments = parser.parse_args()
    print("a ComfyUI that is none", flush=True)
    if "die" in arguments.fake:
        print("ModuleNotFoundError: No module named 'torch'", file=sys.stderr, flush=True)
        sys.exit(1)
    if "ignore-signals" in arguments.fake:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "never-ready" in arguments.fake:
        while True:
            time.sleep(1)
    # As ComfyUI: a directory `temp` below the one that is named, emptied at the start.
    temp = (arguments.temp_directory or Path.cwd()) / "temp"
    shutil.rmtree(temp, ignore_errors=True)
    directories = {
        "input": arguments.input_directory or Path.cwd() / "input",
        "output": arguments.output_directory or Path.cwd() / "output",
        "temp": temp,
    }
    server = FakeComfyUI(Path.cwd(), host=arguments.listen, port=arguments.port, directories=directories)

    def crash(how: str) -> None:
        match how:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                print("the last words", flush=True)
                os._exit(3)
            case "hang":
                server.hung.set()
                server.drop_websockets()
                server._interrupt.wait()
            case "memory":
                blocks = []
                while True:
                    blocks.append(bytearray(64 * 2**20))

    server.crash = crash
    with server:
        print("To see the GUI go to: ", server.url, flush=True)
        while True:
            time.sleep(1)


if __name__ == "__main__":
    main()
