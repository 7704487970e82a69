"""Making sense of what builders print: which step is under way, which one failed, what it said last. Pure."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

from comfy_cpu_core.image import BuildEvent

__all__ = ["BuildLog"]

# Docker's classic builder: "Step 3/12 : RUN …"; Buildah: "STEP 3/12: RUN …", with the stage in front: "[1/2] STEP 3/12: …".
_CLASSIC = re.compile(r"(?:\[\d+/\d+\] )?(?:Step|STEP) (?P<number>\d+)/(?P<total>\d+) ?: (?P<text>.*)")
# BuildKit: "#7 [stage-1 3/9] RUN …", then "#7 0.512 a line of its output", "#7 ERROR: …", "#7 DONE 1.2s".
_BUILDKIT = re.compile(r"#(?P<id>\d+) (?P<rest>.*)")
_VERTEX = re.compile(r"\[(?:(?P<stage>[\w.-]+) )?(?P<number>\d+)/(?P<total>\d+)\] (?P<text>.*)")
_EXIT_CODE = re.compile(r"exit code: \d+$")
_TIMED = re.compile(r"\d+\.\d+ (?P<text>.*)")

_KEPT = 15


@dataclass
class _Step:
    text: str
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))


class BuildLog:
    """Reads a builder's output line by line."""

    def __init__(self) -> None:
        self._steps: dict[str, _Step] = {}
        self._current: _Step | None = None
        self._failed: _Step | None = None
        self._tail: deque[str] = deque(maxlen=_KEPT)

    def feed(self, line: str) -> BuildEvent | None:
        """Take a line; give the event that it stands for, if it does."""
        line = line.rstrip()
        if not line.strip():
            return None
        if match := _CLASSIC.fullmatch(line):
            self._current = _Step(match["text"])
            return BuildEvent("step", match["text"], int(match["number"]), int(match["total"]))
        if match := _BUILDKIT.fullmatch(line):
            return self._feed_buildkit(match["id"], match["rest"])
        self._tail.append(line)
        if self._steps:
            return None  # BuildKit's summary: it repeats what the steps have said
        if self._current is not None and not line.startswith(" ---> "):
            self._current.lines.append(line)
        return BuildEvent("line", line)

    def _feed_buildkit(self, vertex: str, rest: str) -> BuildEvent | None:
        if match := _VERTEX.fullmatch(rest):
            if vertex in self._steps:
                return None  # BuildKit names a step again when it goes on with it
            self._steps[vertex] = self._current = _Step(match["text"])
            return BuildEvent("step", match["text"], int(match["number"]), int(match["total"]))
        step = self._steps.setdefault(vertex, _Step(rest))
        if rest.startswith(("ERROR", "CANCELED")):
            if rest.startswith("ERROR") and self._failed is None:
                self._failed = step
                exit_code = _EXIT_CODE.search(rest)
                step.lines.append(exit_code[0] if exit_code else rest)
            return None
        if match := _TIMED.fullmatch(rest):
            if match["text"].strip():
                step.lines.append(match["text"])
            return BuildEvent("line", match["text"])
        return None

    @property
    def failed_step(self) -> str:
        """The instruction that failed, as far as the output tells; empty if it does not."""
        step = self._failed or self._current
        return step.text if step else ""

    @property
    def last_lines(self) -> tuple[str, ...]:
        """What that step printed last, oldest first."""
        step = self._failed or self._current
        return tuple(step.lines) if step and step.lines else tuple(self._tail)
