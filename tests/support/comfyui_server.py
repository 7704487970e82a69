"""A real ComfyUI for tests: its code and packages as they are, everything that it writes in a directory of ours."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["EXTRAS", "Checkout", "Message", "Run", "Server", "Workbench"]

#: What is installed with the nodes. llama-cpp-python has no wheels: only where it was compiled for the tests as well.
EXTRAS = ("openvino", *(("llama",) if find_spec("llama_cpp") else ()))

_START_SECONDS = 300.0
_RUN_SECONDS = 300.0

# What a ComfyUI writes into, or reads of the user's: ours instead.
_OWN = ("custom_nodes", "input", "models", "output", "temp", "user")


@dataclass(frozen=True)
class Checkout:
    """The ComfyUI that the user named, which must stay as it is."""

    root: Path
    python: Path

    @classmethod
    def of_environment(cls) -> Checkout:
        root = Path(os.environ["COMFYUI_PATH"]).absolute()
        named = os.environ.get("COMFYUI_PYTHON")
        return cls(root, Path(named).absolute() if named else root / "venv" / "bin" / "python")

    def files(self) -> dict[str, float]:
        """Every file but git's own, with the time of its last change."""
        paths = (path for path in self.root.rglob("*") if ".git" not in path.parts and path.is_file())
        return {str(path): path.stat().st_mtime for path in paths}

    def distributions(self) -> dict[str, str]:
        """What is installed in its Python."""
        return _distributions(self.python)


class Workbench:
    """A ComfyUI directory made of links to a checkout, with a virtual environment layered over the checkout's Python.

    To ``comfy-cpu nodes install`` it is a ComfyUI like any other.

    Args:
        folder: does not exist yet.
    """

    def __init__(self, checkout: Checkout, folder: Path) -> None:
        self.root = folder
        for name in _OWN:
            (folder / name).mkdir(parents=True)
        for path in checkout.root.iterdir():
            if path.name not in {*_OWN, "venv", ".venv", "extra_model_paths.yaml"} and not path.name.startswith("."):
                (folder / path.name).symlink_to(path)
        run([checkout.python, "-m", "venv", "--without-pip", folder / "venv"])
        self.python = folder / "venv" / "bin" / "python"
        # Not --system-site-packages: that would be the packages of the Python beneath the checkout's environment.
        program = "import json, site; print(json.dumps(site.getsitepackages()))"
        theirs = json.loads(run([checkout.python, "-c", program]))
        (site,) = folder.glob("venv/lib/python*/site-packages")
        (site / "checkout.pth").write_text("".join(f"{line}\n" for line in theirs))

    def install(self, *arguments: str, **environment: str) -> dict[str, Any]:
        """``comfy-cpu nodes install`` on it."""
        command = Path(sys.executable).with_name("comfy-cpu")
        answer = run(
            [command, "nodes", "install", self.root, "--json", *arguments], env={**_environment(), **environment}
        )
        return dict(json.loads(answer))

    def distributions(self) -> dict[str, str]:
        """What is installed in its Python."""
        program = (
            "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
        )
        return dict(json.loads(run([self.python, "-c", program])))

    @contextmanager
    def serve(self, *arguments: str | Path, **environment: str) -> Iterator[Server]:
        """Start it and give the server when it answers; stop it afterwards."""
        port = _free_port()
        log = self.root / "server.log"
        command = [
            self.python, self.root / "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port),
            "--base-directory", self.root, "--database-url", f"sqlite:///{self.root}/user/comfyui.db",
            "--disable-auto-launch", "--disable-api-nodes", "--disable-metadata", *arguments,
        ]  # fmt: skip
        home = {"HOME": str(self.root / "user"), "XDG_DATA_HOME": str(self.root / "user")}
        # The checkout must not get a __pycache__ either.
        quiet = {"PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
        started = time.monotonic()
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=self.root,
                env={**_environment(), **home, **quiet, **environment},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            server = Server(f"http://127.0.0.1:{port}", log)
            while not server.answers():
                assert process.poll() is None, f"ComfyUI ended:\n{server.log()[-3000:]}"
                assert time.monotonic() - started < _START_SECONDS, f"ComfyUI does not start:\n{server.log()[-3000:]}"
                time.sleep(0.2)
            server.start_seconds = time.monotonic() - started
            yield server
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass(frozen=True)
class Message:
    """What the websocket said, and when (`time.monotonic`)."""

    type: str
    data: Mapping[str, Any]
    at: float


@dataclass
class Run:
    """What came of a prompt.

    Attributes:
        ending: ``executing`` (all nodes are done), ``execution_error`` or ``execution_interrupted``.
        outputs: node id → what it showed.
    """

    prompt_id: str
    messages: list[Message] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)

    @property
    def ending(self) -> str:
        return self.messages[-1].type

    @property
    def error(self) -> str:
        """The message that ComfyUI shows of an error."""
        return str(self.messages[-1].data.get("exception_message", "")).strip()

    def of(self, kind: str, node_id: str) -> list[Mapping[str, Any]]:
        """The messages of a kind about a node."""
        return [m.data for m in self.messages if m.type == kind and m.data.get("node") == node_id]


class Server:
    """A ComfyUI that runs.

    Attributes:
        start_seconds: how long it took to start.
    """

    start_seconds: float

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self._log = log

    def log(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    def answers(self) -> bool:
        try:
            self.get("/system_stats")
        except OSError:
            return False
        return True

    def fetch(self, path: str, **query: str) -> bytes:
        """GET.

        Raises:
            urllib.error.HTTPError: the status is not 2xx.
        """
        suffix = f"?{urllib.parse.urlencode(query)}" if query else ""
        with urllib.request.urlopen(f"{self.url}{path}{suffix}", timeout=60) as answer:
            return bytes(answer.read())

    def get(self, path: str, **query: str) -> Any:
        """GET, as JSON."""
        return json.loads(self.fetch(path, **query))

    def post(self, path: str, value: Any) -> Any:
        """POST JSON; the answer as JSON, whatever its status; None if it is empty."""
        request = urllib.request.Request(
            f"{self.url}{path}", json.dumps(value).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                body = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                body = error.read()
        return json.loads(body) if body else None

    @contextmanager
    def running(self, prompt: Mapping[str, Any]) -> Iterator[tuple[Run, Iterator[Message]]]:
        """Queue a prompt, and give its messages as they come, to its end."""
        from websockets.sync.client import connect

        client = uuid.uuid4().hex
        address = f"{self.url.replace('http', 'ws', 1)}/ws?clientId={client}"
        with connect(address, max_size=None, open_timeout=60) as socket_:
            answer = self.post("/prompt", {"prompt": prompt, "client_id": client})
            assert "prompt_id" in answer, answer
            run_ = Run(answer["prompt_id"])

            def messages() -> Iterator[Message]:
                deadline = time.monotonic() + _RUN_SECONDS
                while True:
                    text = socket_.recv(timeout=max(0.1, deadline - time.monotonic()))
                    if isinstance(text, bytes):
                        continue
                    told = json.loads(text)
                    if told["data"].get("prompt_id") != run_.prompt_id:
                        continue
                    message = Message(told["type"], told["data"], time.monotonic())
                    run_.messages.append(message)
                    yield message
                    over = message.type == "executing" and message.data["node"] is None
                    if over or message.type in {"execution_error", "execution_interrupted"}:
                        return

            yield run_, messages()

    def run(self, prompt: Mapping[str, Any]) -> Run:
        """Run a prompt to its end."""
        with self.running(prompt) as (run_, messages):
            for _ in messages:
                pass
        run_.outputs = self.outputs(run_.prompt_id)
        return run_

    def outputs(self, prompt_id: str) -> dict[str, Any]:
        """What the nodes of a run that ended showed."""
        for _ in range(100):  # the websocket says that a prompt is over a moment before the history does
            if entry := self.get(f"/history/{prompt_id}").get(prompt_id):
                return dict(entry["outputs"])
            time.sleep(0.1)
        raise AssertionError(f"no history of {prompt_id}")

    def picture(self, shown: Mapping[str, str]) -> bytes:
        """A file that a node showed."""
        return self.fetch("/view", filename=shown["filename"], subfolder=shown["subfolder"], type=shown["type"])


def run(command: list[Any], **options: Any) -> str:
    """Run a program to its end and give what it printed."""
    done = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def _distributions(python: Path) -> dict[str, str]:
    program = (
        "import importlib.metadata as m, json; print(json.dumps([[d.name, d.version] for d in m.distributions()]))"
    )
    found: dict[str, str] = {}
    for name, version in json.loads(run([python, "-c", program])):
        found.setdefault(name, version)  # the first one is what would be imported
    return found


def _environment() -> dict[str, str]:
    """This process's, without what is set for Python, Hub and comfy-cpu."""
    ours = ("COMFY_CPU_", "COMFYUI_", "HF_", "PYTHON", "VIRTUAL_ENV")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
