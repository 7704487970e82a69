"""The worker: how long from its start until it is ready, and what becomes of many small jobs from many clients.

    python benchmarks/worker.py [start|jobs] [--runs 9] [--jobs 1000] [--clients 16] [--json]

`start` times whole processes, from their start to the first 200 of ``/ready``, without models and without workflows:
``comfy-cpu serve`` with the engine, beside what an interpreter and ``import torch`` take alone. The runs of all cases take
turns. `jobs` runs one worker and has clients submit jobs one after the other (a small picture, loaded and saved): every
job must be answered exactly once and with its own picture, and the memory of the two processes must not grow. Exits with
1 if a median is above its bar, or a job was lost or answered twice.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import importlib.util
import io
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

SERVE = "comfy-cpu serve: start to ready"

#: Seconds that the start may take: half of what was asked for.
START_BAR_S = 1.0

#: Jobs before memory counts: the engine's cache of results (256 MB) fills, allocators find their size.
WARM_UP_JOBS = 150

#: Pixels of a picture's side.
SIDE = 512


@dataclass(frozen=True)
class Timing:
    """What was measured of a start, in seconds."""

    name: str
    runs: int
    median_s: float
    lowest_s: float
    highest_s: float
    bar_s: float | None

    @property
    def over_bar(self) -> bool:
        return self.bar_s is not None and self.median_s > self.bar_s


@dataclass(frozen=True)
class Load:
    """What became of many jobs. Memory in MB: resident, of the API's process and of the back end's.

    Attributes:
        memory: (jobs done, API, back end), from the end of the warm-up on.
    """

    jobs: int
    clients: int
    seconds: float
    jobs_per_s: float
    lost: int
    answered_twice: int
    wrong: int
    median_ms: float
    highest_ms: float
    memory: list[tuple[int, float, float]]

    @property
    def failed(self) -> bool:
        return bool(self.lost or self.answered_twice or self.wrong)


@contextmanager
def worker(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker with nothing in it; end it behind the block."""
    script = Path(sys.executable).with_name("comfy-cpu")
    command = [str(script), "serve", "--port", str(port), "--state", str(folder / "state"), "--models", str(folder)]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("COMFY_CPU_") and k != "PYTHONDONTWRITEBYTECODE"}
    environment = {**kept, "PYTHONPYCACHEPREFIX": str(folder.parent / "bytecode"), "COMFY_LOG_LEVEL": "WARNING"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return int(taken.getsockname()[1])


def wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    """Ask until the answer is 200, as a load balancer does."""
    while process.poll() is None:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
                connection.request("GET", "/ready")
                if connection.getresponse().status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.005)
    raise SystemExit(f"the worker ended with {process.returncode}")


def start_once(folder: Path) -> float:
    """Seconds from the process's start until it is ready."""
    port = free_port()
    began = time.perf_counter()
    with worker(folder, port) as process:
        wait_until_ready(port, process)
        return time.perf_counter() - began


def python_once(program: str) -> float:
    """Seconds that a fresh interpreter takes for a program."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - began


def measure_start(runs: int) -> list[Timing]:
    """Time every case `runs` times, after one run that only fills the caches."""
    seconds: dict[str, list[float]] = {"python -c pass": [], SERVE: []}
    if importlib.util.find_spec("torch"):
        seconds["import torch"] = []
    with tempfile.TemporaryDirectory(prefix="comfy-cpu-bench-") as base:
        for turn in range(runs + 1):
            folder = Path(base) / f"run-{turn}"
            folder.mkdir()
            for name, found in seconds.items():
                took = start_once(folder) if name == SERVE else python_once(name.removeprefix("python -c "))
                if turn > 0:
                    found.append(took)
    return [
        Timing(
            name=name,
            runs=runs,
            median_s=round(statistics.median(found), 3),
            lowest_s=round(min(found), 3),
            highest_s=round(max(found), 3),
            bar_s=START_BAR_S if name == SERVE else None,
        )
        for name, found in seconds.items()
    ]


def make_job(number: int) -> tuple[dict[str, object], bytes]:
    """A job, and the pixels that must come back."""
    from PIL import Image

    color = (number % 256, number // 256 % 256, 7)
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), color).save(buffer, "PNG")
    picture = base64.b64encode(buffer.getvalue()).decode()
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "in.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
    }
    return {"input": {"workflow": workflow, "images": [{"name": "in.png", "image": picture}]}}, bytes(color)


class Client(threading.Thread):
    """Submits jobs one after the other over one connection, and waits for each."""

    def __init__(self, port: int, numbers: Iterator[int]) -> None:
        super().__init__()
        self._port = port
        self._numbers = numbers
        self.ids: list[str] = []
        self.wrong = 0
        self.milliseconds: list[float] = []

    def run(self) -> None:
        from PIL import Image

        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=600)) as connection:
            for number in self._numbers:
                job, color = make_job(number)
                began = time.perf_counter()
                connection.request("POST", "/v2/local/runsync", json.dumps(job))
                answer = json.loads(connection.getresponse().read())
                self.milliseconds.append(1000 * (time.perf_counter() - began))
                self.ids.append(answer.get("id", ""))
                try:
                    data = base64.b64decode(answer["output"]["images"][0]["data"])
                    pixel = Image.open(io.BytesIO(data)).convert("RGB").getpixel((1, 1))
                except (KeyError, IndexError):
                    pixel = None
                self.wrong += pixel != tuple(color)


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory_of(pid: int) -> tuple[float, float]:
    """Resident memory of the API's process, and of all below it."""
    children = [pid for task in Path(f"/proc/{pid}/task").iterdir() for pid in (task / "children").read_text().split()]
    return round(resident_mb(pid), 1), round(sum(resident_mb(int(child)) for child in children), 1)


def submit(port: int, numbers: range, clients: int) -> list[Client]:
    """Have `clients` clients submit a job for each number."""
    shared = iter(numbers)
    threads = [Client(port, shared) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return threads


def measure_jobs(jobs: int, clients: int) -> Load:
    """Run the jobs, in quarters, and look at the memory behind each."""
    with tempfile.TemporaryDirectory(prefix="comfy-cpu-bench-") as base:
        folder = Path(base) / "run"
        folder.mkdir()
        port = free_port()
        with worker(folder, port) as process:
            wait_until_ready(port, process)
            submit(port, range(10**6, 10**6 + WARM_UP_JOBS), clients)
            memory = [(0, *memory_of(process.pid))]
            threads: list[Client] = []
            began = time.perf_counter()
            edges = [jobs * quarter // 4 for quarter in range(5)]
            for first, last in itertools.pairwise(edges):
                threads += submit(port, range(first, last), clients)
                memory.append((last, *memory_of(process.pid)))
            seconds = time.perf_counter() - began
    ids = [job_id for thread in threads for job_id in thread.ids if job_id]
    times = [value for thread in threads for value in thread.milliseconds]
    return Load(
        jobs=jobs,
        clients=clients,
        seconds=round(seconds, 2),
        jobs_per_s=round(jobs / seconds, 1),
        lost=jobs - len(ids),
        answered_twice=len(ids) - len(set(ids)),
        wrong=sum(thread.wrong for thread in threads),
        median_ms=round(statistics.median(times), 1),
        highest_ms=round(max(times), 1),
        memory=memory,
    )


def print_start(timings: list[Timing]) -> None:
    """The starts for a person."""
    print(f"{'':<34}{'median':>9}{'lowest':>9}{'highest':>9}{'bar':>8}")
    for t in timings:
        bar = "" if t.bar_s is None else f"{t.bar_s:.2f} s"
        verdict = "  above its bar" if t.over_bar else ""
        print(f"{t.name:<34}{t.median_s:>7.3f} s{t.lowest_s:>7.3f} s{t.highest_s:>7.3f} s{bar:>8}{verdict}")


def print_load(load: Load) -> None:
    """The jobs for a person."""
    print(
        f"{load.jobs} jobs from {load.clients} clients in {load.seconds:.1f} s: {load.jobs_per_s:g} a second; "
        f"median {load.median_ms:g} ms, longest {load.highest_ms:g} ms"
    )
    print(f"lost: {load.lost}; answered twice: {load.answered_twice}; with another's picture: {load.wrong}")
    for done, api, backend in load.memory:
        print(f"after {done:>5} jobs: API {api:.1f} MB, back end {backend:.1f} MB")


def main() -> int:
    """Run the benchmark; gives the exit code."""
    parser = argparse.ArgumentParser(description="Time the worker's start, and have it run many small jobs.")
    parser.add_argument("what", nargs="?", choices=["start", "jobs"], help="one of the two alone")
    parser.add_argument("--runs", type=int, default=9, help="starts of each case")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    if min(arguments.runs, arguments.jobs, arguments.clients) < 1:
        parser.error("--runs, --jobs and --clients must be at least 1")
    timings = measure_start(arguments.runs) if arguments.what != "jobs" else []
    load = measure_jobs(arguments.jobs, arguments.clients) if arguments.what != "start" else None
    if arguments.json:
        document = {"start": [asdict(timing) for timing in timings], "jobs": asdict(load) if load else None}
        print(json.dumps(document, indent=2))
    else:
        if timings:
            print_start(timings)
        if load:
            print_load(load)
    return 1 if any(timing.over_bar for timing in timings) or (load and load.failed) else 0


if __name__ == "__main__":
    sys.exit(main())
