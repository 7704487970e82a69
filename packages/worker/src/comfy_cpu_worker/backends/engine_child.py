"""The process in which the engine runs a worker's jobs: ``python -m comfy_cpu_worker.backends.engine_child SETUP``.

It may be killed, crash or run out of memory at any moment without taking the worker along; `comfy_cpu_worker.backends.engine`
is the other side. The two talk over a socket of their own (see `comfy_cpu_worker.backends.engine_messages`), never over stdout, which
belongs to whatever nodes print. When the worker's end of the socket is closed, the process ends at once, whatever it is at.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn

from comfy_cpu_client import Client, Run
from comfy_cpu_core.errors import ComfyCpuError
from comfy_cpu_core.registry import get_registry
from comfy_cpu_core.resources import get_resources, thread_environment
from comfy_cpu_core.results import Progress, Result
from comfy_cpu_worker.backends.engine_messages import EngineSetup, event_message, read_work, result_message
from comfy_cpu_worker.backends.warmup import find_image_inputs
from comfy_cpu_worker.failures import failed, failure_result
from comfy_cpu_worker.frames import Decoder, FrameError, Message, encode
from comfy_cpu_worker.work import Work

__all__ = ["main"]

#: Steps of progress that come faster than this are left out, but for the last of a node; in seconds.
STEP_SECONDS = 0.05


class _Link:
    """The process's end of the socket; may be written to from any thread."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)  # what nodes start must not hold it open
        self._socket = socket.socket(fileno=fd)
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            FrameError: it is too large, or not JSON; nothing of it was sent.
        """
        parts = encode(message)
        try:
            with self._lock:
                for part in parts:
                    self._socket.sendall(part)
        except OSError:
            _leave()

    def messages(self) -> Iterator[Message]:
        """What the worker says, without an end: when there is no worker any more the process ends."""
        decoder = Decoder()
        while True:
            try:
                data = self._socket.recv(256 * 1024)
            except OSError:
                data = b""
            if not data:
                _leave()
            decoder.receive(data)
            while (message := decoder.next_message()) is not None:
                yield message


def _leave() -> NoReturn:
    """End the process without waiting for a job that runs: nobody would get its result."""
    os._exit(0)


class _Steps:
    """Passes progress events on, fewer steps than a node may make."""

    def __init__(self, send: Callable[[Progress], None]) -> None:
        self._send = send
        self._last = float("-inf")

    def __call__(self, event: Progress) -> None:
        now = time.monotonic()
        if event.kind == "step":
            if now - self._last < STEP_SECONDS and event.value < event.total:
                return
            self._last = now
        self._send(event)


class _Engine:
    """Takes jobs one after the other; the worker sends the next one when it has the result."""

    def __init__(self, link: _Link, client: Client) -> None:
        self._link = link
        self._client = client
        self._todo: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._cancelled: set[int] = set()  # jobs that are to end; also before they have begun
        self._run: tuple[int, Run] | None = None

    def listen(self) -> None:
        """Take what the worker says, for ever; for a thread of its own."""
        try:
            for message in self._link.messages():
                if message.kind == "cancel":
                    self._cancel(message.body["job"])
                else:
                    self._todo.put(message)
        except BaseException:
            traceback.print_exc()
            os._exit(1)  # nobody listens any more

    def work(self, prefetch: bool) -> NoReturn:
        """Do what is asked for, for ever."""
        if prefetch:
            # In this thread, between jobs: two threads that import at the same time could see half a module.
            from comfy_cpu_engine.prefetch import import_libraries

            import_libraries(lambda: not self._todo.empty())
        while True:
            message = self._todo.get()
            if message.kind == "describe":
                self._link.send(Message("described", {"image_inputs": find_image_inputs(get_registry().signatures)}))
            elif message.kind == "run":
                self._do(*read_work(message))

    def _do(self, number: int, work: Work) -> None:
        try:
            result = self._result(number, work)
        except BaseException as error:  # whatever it is, the worker waits for a result
            result = failure_result(error)
        with self._lock:
            self._run = None
            self._cancelled.clear()
        self._answer(number, result)

    def _result(self, number: int, work: Work) -> Result:
        run = self._client.submit(
            work.workflow,
            inputs=work.inputs,
            files=work.files,
            set=work.values,
            convert=work.convert,
            timeout_s=work.timeout_s,
            on_event=_Steps(lambda event: self._link.send(event_message(number, event))),
        )
        with self._lock:
            self._run = (number, run)
            if number in self._cancelled:
                run.cancel()
        return run.wait()

    def _cancel(self, number: int) -> None:
        with self._lock:
            self._cancelled.add(number)
            if self._run is not None and self._run[0] == number:
                self._run[1].cancel()

    def _answer(self, number: int, result: Result) -> None:
        try:
            self._link.send(result_message(number, result))
        except FrameError as error:
            size = sum(len(output.data) for output in result.outputs)
            self._link.send(
                result_message(
                    number, failed("too_large", f"the outputs ({size:,} bytes) cannot be passed on: {error}")
                )
            )


def _beat(link: _Link, every_s: float) -> None:
    while True:
        time.sleep(every_s)
        link.send(Message("heartbeat"))


def main() -> NoReturn:
    """Run jobs until the worker is gone."""
    setup = EngineSetup(**json.loads(sys.argv[1]))
    link = _Link(setup.fd)
    try:
        os.environ.update(thread_environment(get_resources()))  # before any library is loaded that reads it
        options = {"models": setup.models, "cache_bytes": setup.cache_bytes}
        client = Client("embedded", workdir=setup.workdir, **{k: v for k, v in options.items() if v is not None})
    except ComfyCpuError as error:
        print(f"{error}{f' ({error.remedy})' if error.remedy else ''}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    engine = _Engine(link, client)
    threading.Thread(target=engine.listen, name="comfy-cpu-listen", daemon=True).start()
    threading.Thread(target=_beat, args=(link, setup.heartbeat_s), name="comfy-cpu-heartbeat", daemon=True).start()
    link.send(Message("ready"))
    engine.work(setup.prefetch)


if __name__ == "__main__":
    main()
