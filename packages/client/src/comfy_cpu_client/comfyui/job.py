"""A run on a ComfyUI: a thread that follows it, and what callers see of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from comfy_cpu_client.comfyui import protocol
from comfy_cpu_client.comfyui.messages import Preview, parse_message
from comfy_cpu_client.comfyui.order import by_execution
from comfy_cpu_client.comfyui.run import STOP_SECONDS, Ask, PromptRun
from comfy_cpu_client.comfyui.transport import Transport
from comfy_cpu_client.comfyui.websocket import Closed, Websocket
from comfy_cpu_client.errors import TargetRefused
from comfy_cpu_core.errors import DeadlineExceeded, TargetError
from comfy_cpu_core.results import EventSink, JobStatus, NodeFailure, Output, OutputFolder, Progress, Result
from comfy_cpu_core.shown import collect_outputs

__all__ = ["ComfyUIJob"]

#: How long one look at the queue or the history may take.
_ASK_SECONDS = 10.0
#: How long the thread listens to the websocket before it looks whether somebody cancelled.
_LISTEN_SECONDS = 0.1


class ComfyUIJob:
    """A run that the ComfyUI has accepted.

    Args:
        run: what is known of it.
        prompt: as it was accepted.
        client_id: the websocket's.
        transport: how to reach the ComfyUI.
        websocket: open since before the prompt was accepted; None where none can be had.
        deadline: when it is to be over (`time.monotonic`).
        on_event: called from the job's thread.
        on_preview: as well.
        warnings: what is known already.
        on_end: called at the end, from the job's thread.
    """

    def __init__(
        self,
        run: PromptRun,
        prompt: Mapping[str, Mapping[str, Any]],
        *,
        client_id: str,
        transport: Transport,
        websocket: Websocket | None,
        deadline: float | None,
        on_event: EventSink | None,
        on_preview: Callable[[Preview], None] | None,
        warnings: Iterable[str],
        on_end: Callable[[ComfyUIJob], None],
    ) -> None:
        self.id = run.prompt_id
        self._run = run
        self._prompt = prompt
        self._client_id = client_id
        self._transport = transport
        self._websocket = websocket
        self._deadline = deadline
        self._on_event = on_event
        self._on_preview = on_preview
        self._warnings = list(warnings)
        self._on_end = on_end
        self._cancel = threading.Event()
        self._ended = threading.Event()
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"comfy-cpu-comfyui-{self.id[:8]}", daemon=True)

    def start(self) -> None:
        """Begin to follow it."""
        self._thread.start()

    def status(self) -> JobStatus:
        """Where it stands now; one that can no longer be followed is ``failed``."""
        if not self._ended.is_set():
            status = self._run.status
            return status if status in {"queued", "running"} else "running"  # its outputs are on their way
        return self._result.status if self._result is not None else "failed"

    def wait(self, timeout_s: float | None = None) -> Result:
        """Wait for its end.

        Raises:
            DeadlineExceeded: it was still under way after `timeout_s` seconds; the job goes on.
            TargetError: the ComfyUI went away, or was started again, so that nobody knows how the run ended.
        """
        if not self._ended.wait(timeout_s):
            raise DeadlineExceeded(f"job {self.id} was still {self.status()} after {timeout_s:g} s")
        if self._error is not None:
            raise self._error
        assert self._result is not None  # noqa: S101  # ended: one of the two is set
        return self._result

    def cancel(self) -> None:
        """Ask it to end: interrupted if it runs, taken out of the queue if it waits. Does nothing after the end."""
        self._cancel.set()

    def abandon(self, timeout_s: float) -> None:
        """Cancel it, and wait until it has ended, or `timeout_s` seconds."""
        self._run.hurry()
        self._cancel.set()
        self._ended.wait(timeout_s)

    # --- the thread -------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._follow()
            self._result = self._finish()
        except BaseException as error:  # whoever waits must get it, whatever it is
            self._error = error
        finally:
            self._close_websocket()
            self._ended.set()
            self._on_end(self)

    def _follow(self) -> None:
        run = self._run
        wait_s = 0.0
        while not run.over:
            self._listen(min(wait_s, _LISTEN_SECONDS))  # first: what it says last, a server that dies has said before
            if self._cancel.is_set():
                run.cancel(time.monotonic())
            ask, wait_s = run.next(time.monotonic())
            if ask is not None:
                self._do(ask)
        if run.error is not None:
            raise run.error

    def _do(self, ask: Ask) -> None:
        run, transport, prompt_id = self._run, self._transport, self.id
        deadline = self._deadline + STOP_SECONDS if self._deadline is not None else None

        def send(request: protocol.Request) -> protocol.Answer:
            return transport.send(request, deadline=deadline, attempts=1, read_timeout_s=_ASK_SECONDS)

        try:
            match ask:
                case "connect":
                    self._websocket = transport.connect(self._client_id, deadline=deadline)
                    run.connected(time.monotonic())
                case "history":
                    entry = protocol.parse_history(send(protocol.get_history(prompt_id)), prompt_id)
                    self._emit(run.told_history(entry, time.monotonic()))
                case "queue":
                    queue = protocol.parse_queue(send(protocol.get_queue()))
                    run.told_queue(queue.place(prompt_id), time.monotonic())
                case "interrupt":
                    send(protocol.interrupt(prompt_id))
                    run.told_stopped(ask, time.monotonic())
                case "delete":
                    send(protocol.delete_queued(prompt_id))
                    run.told_stopped(ask, time.monotonic())
        except DeadlineExceeded:
            pass  # the run knows its deadline
        except TargetError as error:
            if ask == "connect":
                run.disconnected(time.monotonic(), for_good=isinstance(error, TargetRefused) and not error.transient)
            else:
                run.failed(ask, error, time.monotonic())

    def _listen(self, timeout_s: float) -> None:
        """Take what the websocket says; wait for it no longer than that."""
        while self._websocket is not None:
            try:
                raw = self._websocket.receive(timeout_s)
            except Closed:
                self._close_websocket()
                self._run.disconnected(time.monotonic())
                return
            if raw is None:
                return
            self._take(raw)
            timeout_s = 0.0
        if self._cancel.is_set():
            time.sleep(timeout_s)
        else:
            self._cancel.wait(timeout_s)

    def _take(self, raw: str | bytes) -> None:
        told = parse_message(raw)
        if isinstance(told, Preview):
            if self._on_preview is not None and told.prompt_id in {None, self.id}:
                self._call(self._on_preview, told)
        elif told is not None:
            self._emit(self._run.receive(told, time.monotonic()))

    def _close_websocket(self) -> None:
        if self._websocket is not None:
            self._websocket.close()
            self._websocket = None

    def _emit(self, events: Iterable[Progress]) -> None:
        for event in events:
            if self._on_event is not None:
                self._call(self._on_event, event)

    def _call(self, listener: Callable[[Any], None], what: Any) -> None:
        """Call a listener; one that raises must not end the run, but its user should know."""
        try:
            listener(what)
        except Exception as error:
            self._on_event = self._on_preview = None
            self._warnings.append(f"progress was no longer reported: {type(error).__name__}: {error}")

    # --- the result -------------------------------------------------------------------------------------------------

    def _finish(self) -> Result:
        run = self._run
        status, failures = run.status, run.failures
        outputs: tuple[Output, ...] = ()
        if status == "completed":
            try:
                made = self._fetch_outputs()
            except DeadlineExceeded as error:
                made = NodeFailure("deadline", str(error))
            if isinstance(made, NodeFailure):
                status, failures = "timed_out" if made.code == "deadline" else "failed", (made,)
            else:
                outputs = tuple(made)
        return Result(
            status,  # type: ignore[arg-type]  # it is over
            outputs=outputs,
            timings=run.timings,
            errors=failures,
            warnings=tuple(dict.fromkeys(self._warnings)),
            queue_seconds=run.queue_seconds,
            execution_seconds=run.execution_seconds,
        )

    def _fetch_outputs(self) -> list[Output] | NodeFailure:
        """Read what the nodes show, in the order in which the engine would have run them.

        The history has them in no order at all, and the websocket may have missed some.
        """
        entry = self._run.entry
        assert entry is not None  # noqa: S101  # it has completed
        outputs: list[Output] = []
        for node_id in by_execution(self._prompt, entry.outputs):
            class_type = str(self._prompt[node_id].get("class_type"))
            try:
                outputs += collect_outputs(node_id, class_type, entry.outputs[node_id], self._fetch)
            except ValueError as error:
                remedy = None
                if node_id in entry.cached:
                    remedy = (
                        "ComfyUI has the node's result of an earlier run, whose file is gone: change one of its inputs"
                    )
                return NodeFailure("output", str(error), node_id, class_type, remedy=remedy)
        return outputs

    def _fetch(self, folder: OutputFolder, path: PurePosixPath) -> bytes:
        answer = self._transport.send(protocol.view(folder, path), deadline=self._deadline)
        if answer.status == 404:
            raise ValueError(f"the node shows a file {str(path)!r} that is not in its {folder} folder")
        return answer.body
