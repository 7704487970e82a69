"""One prompt on a ComfyUI, from the queue to its end: a state machine without sockets and without a clock.

What the server says goes in; progress, and what to ask the server next, comes out::

    run = PromptRun(prompt, prompt_id, where=url, now=monotonic())
    while not run.over:
        ask, wait_s = run.next(monotonic())
        ...

The websocket tells of progress and when it is time to look; whether and how a prompt has ended is read in the history
alone. A prompt that is neither in the queue nor in the history is lost: the server was started again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from comfy_cpu_client.comfyui.messages import Message
from comfy_cpu_client.comfyui.protocol import HistoryEntry, Place
from comfy_cpu_client.comfyui.tracker import NodeTracker
from comfy_cpu_client.comfyui.verdict import judge
from comfy_cpu_client.errors import TargetRefused
from comfy_cpu_core.errors import TargetError
from comfy_cpu_core.results import JobStatus, NodeFailure, NodeTiming, Progress, Status

__all__ = ["STOP_SECONDS", "Ask", "PromptRun"]

#: What to do next: open the websocket again, or send one of these requests.
Ask = Literal["connect", "history", "queue", "interrupt", "delete"]

#: How long after its deadline a run may take to end on the server before it is over here.
STOP_SECONDS = 2.0

# Seconds between two looks at the history: while the websocket is open, so that nothing is missed for ever; without it;
# once the websocket said that the prompt has ended; while it should end.
_LIVE_SECONDS = 15.0
_POLL_SECONDS = (0.2, 2.0)
_ENDED_SECONDS = (0.05, 1.0)
_STOPPING_SECONDS = (0.1, 1.0)
# Seconds until a request that failed is sent again, and until a stop that had no effect is.
_RETRY_SECONDS = (0.2, 4.0)
_STOP_AGAIN_SECONDS = 2.0
_CONNECT_SECONDS = (0.5, 10.0)
# So many times a prompt must be nowhere before it counts as lost.
_NOWHERE = 3

_URGENT = frozenset({"interrupt", "delete"})

_END = frozenset({"execution_success", "execution_error", "execution_interrupted"})


class PromptRun:
    """A prompt that the server has accepted.

    Args:
        prompt: in API format.
        prompt_id: what the server calls it.
        where: the server's address, for messages.
        now: seconds of a clock that never goes back, as everywhere here.
        deadline: when the run is to be over; None for never.
        patience_s: how long the server may be away.
        live: whether the websocket is open.
        websocket: whether there may be one at all.

    Attributes:
        prompt_id: as given.
        status: where it stands.
        entry: its history, once that is known.
        error: why nobody can tell how it ended, if that is so.
    """

    def __init__(
        self,
        prompt: Mapping[str, Mapping[str, Any]],
        prompt_id: str,
        *,
        where: str,
        now: float,
        deadline: float | None = None,
        patience_s: float = 60.0,
        live: bool = True,
        websocket: bool = True,
    ) -> None:
        self.prompt_id = prompt_id
        self.status: JobStatus = "queued"
        self.entry: HistoryEntry | None = None
        self.error: TargetError | None = None
        self._where = where
        self._deadline = deadline
        self._patience_s = patience_s
        self._live = live
        self._websocket = websocket
        self._tracker = NodeTracker(prompt)
        self._heard: list[Message] = []
        self._failures: tuple[NodeFailure, ...] = ()
        self._accepted = self._ended = now
        self._began: float | None = None
        self._agenda: dict[Ask, float] = {"history": now + (_LIVE_SECONDS if live else _POLL_SECONDS[0])}
        self._waits: dict[str, float] = {}
        self._hinted = False
        self._nowhere = 0
        self._absent = False
        self._away_since: float | None = None
        self._stopping: Literal["cancelled", "timed_out"] | None = None
        self._stop_again = now
        self._deleted = False
        if not live and websocket:
            self._agenda["connect"] = now + _CONNECT_SECONDS[0]

    # --- what comes out ---------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether it has ended, or cannot be followed any further."""
        return self.error is not None or self.status not in {"queued", "running"}

    @property
    def failures(self) -> tuple[NodeFailure, ...]:
        """Why it did not complete."""
        return self._failures

    @property
    def timings(self) -> tuple[NodeTiming, ...]:
        """How long nodes took, as far as the websocket told."""
        return self._tracker.timings

    @property
    def queue_seconds(self) -> float:
        """How long it waited."""
        return (self._began if self._began is not None else self._ended) - self._accepted

    @property
    def execution_seconds(self) -> float:
        """How long it ran: by the server's own clock, if that is known."""
        told = self.entry.seconds if self.entry is not None else None
        return told if told is not None else self._ended - (self._began if self._began is not None else self._ended)

    def next(self, now: float) -> tuple[Ask | None, float]:
        """What to do now; or None, and how many seconds to listen before this is called again."""
        if self._deadline is not None and now >= self._deadline and self._stopping != "timed_out":
            self._stop("timed_out", now)
        if self._overdue(now):
            message = f"the run did not end before its deadline; {self._where} may still be at it"
            self._end("timed_out", (_late(message),), now)
        if self.over:
            return None, 0.0
        # Nothing may come between the look whether it runs and the interrupt.
        ask = min(self._agenda, key=lambda ask: (ask not in _URGENT, self._agenda[ask]))
        if self._agenda[ask] <= now:
            del self._agenda[ask]
            return ask, 0.0
        limits = [self._agenda[ask] - now]
        if self._deadline is not None:
            limits.append(self._deadline + (STOP_SECONDS if self._stopping == "timed_out" else 0.0) - now)
        return None, max(0.0, min(limits))

    # --- what goes in -----------------------------------------------------------------------------------------------

    def receive(self, message: Message, now: float) -> Iterator[Progress]:
        """Take what the websocket said; gives what it means."""
        if self.over or message.prompt_id not in {self.prompt_id, None}:
            return
        if message.type in {"execution_start", "executing", "progress", "progress_state"}:
            self._running(now)
        if message.type == "execution_error":
            self._heard.append(message)
        if message.type in _END or (message.type == "executing" and message.data.get("node", "") is None):
            self._hinted = True
            self._agenda["history"] = now
        yield from self._tracker.receive(message, now)

    def connected(self, now: float) -> None:
        """The websocket is open again. What it said meanwhile is lost, so look."""
        self._live = True
        self._waits.pop("connect", None)
        self._agenda["history"] = now

    def disconnected(self, now: float, *, for_good: bool = False) -> None:
        """The websocket is closed, or could not be opened; `for_good` if it is no use to try again."""
        if self._live:
            self._live = False
            self._agenda["history"] = now
        self._websocket = self._websocket and not for_good
        if self._websocket:
            self._agenda["connect"] = now + self._wait("connect", _CONNECT_SECONDS)

    def told_history(self, entry: HistoryEntry | None, now: float) -> Iterator[Progress]:
        """Take the answer to ``history``."""
        self._reached()
        if entry is not None:
            yield from self._tracker.cached(entry.cached)
            self.entry = entry
            status, failures = judge(entry, self._heard)
            self._end(status, failures, now)
        elif self._absent:
            self._missing(now)
        elif self._stopping and now >= self._stop_again:
            self._agenda["queue"] = now
        elif self._stopping:
            self._agenda["history"] = now + self._wait("stopping", _STOPPING_SECONDS)
        elif self._hinted and self._waits.get("ended", 0.0) < _ENDED_SECONDS[1]:
            self._agenda["history"] = now + self._wait("ended", _ENDED_SECONDS)
        else:
            self._agenda["queue"] = now

    def told_queue(self, place: Place | None, now: float) -> None:
        """Take the answer to ``queue``; None if the prompt is not there."""
        self._reached()
        self._absent = place is None
        if place is None:
            self._agenda["history"] = now
            return
        self._nowhere = 0
        if place == "running":
            self._running(now)
        if self._stopping and now >= self._stop_again:
            self._agenda["interrupt" if place == "running" else "delete"] = now
        elif self._stopping:
            self._agenda["history"] = now + self._wait("stopping", _STOPPING_SECONDS)
        else:
            quiet = self._live and not self._hinted
            self._agenda["history"] = now + (_LIVE_SECONDS if quiet else self._wait("poll", _POLL_SECONDS))

    def told_stopped(self, ask: Ask, now: float) -> None:
        """The server took ``interrupt`` or ``delete``; a node may need a while to notice."""
        self._reached()
        self._deleted = self._deleted or ask == "delete"
        self._stop_again = now + _STOP_AGAIN_SECONDS
        self._agenda["queue" if ask == "delete" else "history"] = now

    def failed(self, ask: Ask, error: TargetError, now: float) -> None:
        """A request had no answer, or one that is of no use."""
        if isinstance(error, TargetRefused) and not error.transient:
            self.error = error
            return
        self._away_since = self._away_since if self._away_since is not None else now
        if now - self._away_since >= self._patience_s:
            self.error = error
            return
        # What was to be stopped may have ended meanwhile.
        again: Ask = "queue" if ask in {"interrupt", "delete"} else ask
        self._agenda[again] = now + self._wait("retry", _RETRY_SECONDS)

    def cancel(self, now: float) -> None:
        """Somebody wants it to end."""
        if self._stopping is None and not self.over:
            self._stop("cancelled", now)

    def hurry(self) -> None:
        """Nobody waits any more: a server that is away is not waited for either."""
        self._patience_s = 0.0

    # --- inside -----------------------------------------------------------------------------------------------------

    def _reached(self) -> None:
        self._away_since = None
        self._waits.pop("retry", None)

    def _running(self, now: float) -> None:
        if self._began is None:
            self.status, self._began = "running", now

    def _stop(self, why: Literal["cancelled", "timed_out"], now: float) -> None:
        self._stopping = why
        self._stop_again = now
        self._agenda["queue"] = now

    def _overdue(self, now: float) -> bool:
        return not self.over and self._deadline is not None and now >= self._deadline + STOP_SECONDS

    def _missing(self, now: float) -> None:
        """It is neither in the queue nor in the history."""
        if self._deleted:
            self._end("cancelled", (), now)
            return
        self._nowhere += 1
        if self._nowhere >= _NOWHERE:
            self.error = TargetError(
                f"{self._where} no longer knows the prompt {self.prompt_id}: it was started again, or its queue or "
                "history was cleared",
                remedy="run the workflow again; if a node makes ComfyUI crash, its log says which",
            )
            return
        self._absent = False
        self._agenda["queue"] = now + 0.1 * self._nowhere

    def _end(self, status: Status, failures: tuple[NodeFailure, ...], now: float) -> None:
        if self._stopping == "timed_out" and status in {"completed", "cancelled"}:
            status, failures = "timed_out", (_late("the run did not end before its deadline"),)
        elif self._stopping == "cancelled" and status == "cancelled":
            before = "" if self._began is not None else " before it began"
            failures = (NodeFailure("cancelled", f"the run was cancelled{before}"),)
        self.status, self._failures, self._ended = status, failures, now

    def _wait(self, what: str, limits: tuple[float, float]) -> float:
        """Seconds until the next try: twice as long each time."""
        shortest, longest = limits
        wait = min(self._waits.get(what, shortest / 2) * 2, longest)
        self._waits[what] = wait
        return wait


def _late(message: str) -> NodeFailure:
    return NodeFailure("deadline", message, remedy="give it more time, or make the pictures or models smaller")
