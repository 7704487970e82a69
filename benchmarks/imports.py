"""How long the command line takes to say anything: imports and ``--help``, each in fresh processes.

    python benchmarks/imports.py [--runs 15] [--json]

Wall-clock time of whole processes, interpreter start included; the runs of all cases take turns, so that a machine
that gets slower meanwhile slows all of them. Bytecode is cached, as it is for an installed package, in a directory of
this benchmark's own. Exits with 1 if a median is above its bar.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

BASELINE = "python -c pass"


@dataclass(frozen=True)
class Case:
    """A command to time.

    Attributes:
        bar_s: what its median must stay below, in seconds; None if it only informs.
    """

    name: str
    command: tuple[str, ...]
    bar_s: float | None = None


@dataclass(frozen=True)
class Timing:
    """What was measured, in seconds; `ratio` is to the median of the baseline."""

    name: str
    runs: int
    median_s: float
    lowest_s: float
    highest_s: float
    ratio: float
    bar_s: float | None

    @property
    def over_bar(self) -> bool:
        return self.bar_s is not None and self.median_s >= self.bar_s


def cases() -> list[Case]:
    """What is timed: with the interpreter that runs this, and the console script beside it."""
    python = sys.executable
    script = str(Path(python).with_name("comfy-cpu"))
    return [
        Case(BASELINE, (python, "-c", "pass")),
        Case("import comfy_cpu_core", (python, "-c", "import comfy_cpu_core"), 0.15),
        Case("import comfy_cpu_client", (python, "-c", "import comfy_cpu_client")),
        Case("comfy-cpu --help", (script, "--help"), 0.4),
    ]


def measure(timed: list[Case], runs: int) -> list[Timing]:
    """Time every case `runs` times, after one run that only warms the caches."""
    seconds: dict[str, list[float]] = {case.name: [] for case in timed}
    with tempfile.TemporaryDirectory(prefix="comfy-cpu-bytecode-") as bytecode:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = bytecode
        for turn in range(runs + 1):
            for case in timed:
                start = time.perf_counter()
                subprocess.run(case.command, check=True, stdout=subprocess.DEVNULL, env=environment)
                if turn > 0:
                    seconds[case.name].append(time.perf_counter() - start)
    baseline = statistics.median(seconds[BASELINE])
    return [
        Timing(
            name=case.name,
            runs=runs,
            median_s=round(statistics.median(found), 4),
            lowest_s=round(min(found), 4),
            highest_s=round(max(found), 4),
            ratio=round(statistics.median(found) / baseline, 2),
            bar_s=case.bar_s,
        )
        for case in timed
        for found in [seconds[case.name]]
    ]


def print_table(timings: list[Timing]) -> None:
    """The timings for a person."""
    print(f"{'':<26}{'median':>9}{'lowest':>9}{'highest':>9}{'ratio':>7}{'bar':>8}")
    for t in timings:
        bar = "" if t.bar_s is None else f"{t.bar_s:.2f} s"
        verdict = "  above its bar" if t.over_bar else ""
        print(
            f"{t.name:<26}{t.median_s:>7.3f} s{t.lowest_s:>7.3f} s{t.highest_s:>7.3f} s{t.ratio:>7.1f}{bar:>8}{verdict}"
        )


def main() -> int:
    """Run the benchmark; gives the exit code."""
    parser = argparse.ArgumentParser(description="Time imports and `comfy-cpu --help` in fresh processes.")
    parser.add_argument("--runs", type=int, default=15, help="runs of each case")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error("--runs must be at least 1")
    timings = measure(cases(), arguments.runs)
    if arguments.json:
        print(json.dumps([asdict(timing) for timing in timings], indent=2))
    else:
        print_table(timings)
    return 1 if any(timing.over_bar for timing in timings) else 0


if __name__ == "__main__":
    sys.exit(main())
