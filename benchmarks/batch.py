"""What the batch runner itself costs: its journal, its memory, and that nothing is lost when it is killed.

    python benchmarks/batch.py throughput [--jobs 5000] [--in-flight 16]
    python benchmarks/batch.py memory
    python benchmarks/batch.py killed [--jobs 10000] [--kills 10] [--faults 0.05]
    python benchmarks/batch.py http --url URL [--jobs 2000] [--in-flight 16]

``throughput`` and ``memory`` run on a target in the same process that does nothing (``tests/support/noop_target.py``).
``killed`` runs the command line in a process of its own, ends it with SIGKILL at random moments, and looks into the
journal: exactly one result for each input; with ``--url worker+http://…`` over a network that loses the same share of
requests. ``http`` runs against a worker (``comfy-cpu serve``). ``--json`` prints the
figures for a program; the exit code is 1 if one misses its bar.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parent.parent / "tests" / "support"
sys.path.insert(0, str(SUPPORT))

from faulty_proxy import FaultyProxy  # noqa: E402
from noop_target import noop_environment  # noqa: E402

#: One node, no input file: what is measured is the batch and not the reading of pictures.
WORKFLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
}

JOBS_PER_SECOND, HTTP_JOBS_PER_SECOND = 500.0, 60.0
#: Between 1,000 and 50,000 inputs the memory may grow by what SQLite's caches take.
GROWTH_MB = 8.0


def rows(directory: Path, count: int) -> Path:
    """A table with so many inputs, and the workflow beside it."""
    (directory / "workflow.json").write_text(json.dumps(WORKFLOW))
    path = directory / f"{count}.jsonl"
    with path.open("w") as file:
        for number in range(count):
            file.write(json.dumps({"id": f"row-{number}", "set": {"1.color": number % 64}}) + "\n")
    return path


def command(directory: Path, table: Path, output: str, target: str, in_flight: int, *more: str) -> list[str]:
    call = "from comfy_cpu_core.cli.main import main; main()"
    arguments = ["batch", str(directory / "workflow.json"), str(table), "-o", str(directory / output), "-t", target]
    return [sys.executable, "-c", call, *arguments, "-j", str(in_flight), *more]


def run(arguments: list[str], environment: dict[str, str]) -> tuple[dict[str, Any], int, float]:
    """Run a batch; gives its summary, its exit code and its largest memory in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = subprocess.run(
        [*arguments, "--json", "--quiet"], check=False, env=environment, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert done.returncode in {0, 6}, done.stderr
    return json.loads(done.stdout), done.returncode, max(before, after) / 1024


def throughput(directory: Path, environment: dict[str, str], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    table = rows(directory, options.jobs)
    for output in (0, 1000):
        target = f"noop://here?output={output}"
        summary, _, _ = run(command(directory, table, f"out-{output}", target, options.in_flight), environment)
        assert summary["results"]["completed"] == options.jobs
        yield {
            "what": f"throughput, {'an output of 1 kB each' if output else 'no outputs'}",
            "jobs": options.jobs,
            "in_flight": options.in_flight,
            "jobs_per_second": round(summary["results_per_second"], 1),
            "ok": summary["results_per_second"] >= JOBS_PER_SECOND,
        }


def memory(directory: Path, environment: dict[str, str], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    largest: list[float] = []
    for count in (1000, 50_000):
        table = rows(directory, count)
        _, _, megabytes = run(command(directory, table, f"out-{count}", "noop://here", options.in_flight), environment)
        largest.append(megabytes)
        growth = largest[-1] - largest[0]
        yield {
            "what": "largest memory",
            "inputs": count,
            "megabytes": round(megabytes, 1),
            "growth": round(growth, 1),
            "ok": growth < GROWTH_MB,
        }


def killed(directory: Path, environment: dict[str, str], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if not options.url:
        log = directory / "submitted.log"
        target = f"noop://here?delay=0.01&faults={options.faults}&log={log}&output=200"
        yield from kill_and_look(directory, environment, options, target)
        return
    scheme, _, url = options.url.partition("+")
    with FaultyProxy(url, options.faults) as proxy:
        yield from kill_and_look(directory, environment, options, f"{scheme}+{proxy.url}")
        yield {"what": "faults of the network", **proxy.faults, "ok": True}


def kill_and_look(
    directory: Path, environment: dict[str, str], options: argparse.Namespace, target: str
) -> Iterator[dict[str, Any]]:
    table = rows(directory, options.jobs)
    log = directory / "submitted.log"
    chance = random.Random(options.seed)
    kills = 0
    began = time.monotonic()
    arguments = command(directory, table, "out", target, options.in_flight, "--cut-offs", str(options.cut_offs))
    while True:
        process = subprocess.Popen(
            [*arguments, "--quiet"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if kills < options.kills:
            time.sleep(chance.uniform(*options.after))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
        _, error = process.communicate()
        if process.returncode != -signal.SIGKILL:
            break
    seconds = time.monotonic() - began
    assert process.returncode in {0, 6}, error
    with sqlite3.connect(directory / "out" / "batch.sqlite3") as db:
        one = "SELECT count(*) FROM inputs WHERE state = 'ended' AND (SELECT count(*) FROM results r WHERE r.place = inputs.place) = 1"
        ((right,),) = db.execute(one)
        ((inputs,),) = db.execute("SELECT count(*) FROM inputs")
        results = dict(db.execute("SELECT status || ' ' || reason, count(*) FROM results GROUP BY 1"))
        attempts = dict(db.execute("SELECT outcome, count(*) FROM attempts GROUP BY 1"))
        missing = sum(
            not (directory / "out" / path).is_file()
            for (paths,) in db.execute("SELECT outputs FROM results")
            for path in json.loads(paths)
        )
    yield {
        "what": f"{options.jobs} jobs, {kills} times killed",
        "seconds": round(seconds, 1),
        "inputs_with_exactly_one_result": right,
        "results": results,
        "tries_in_vain": attempts,
        "outputs_missing": missing,
        **({"jobs_submitted": sum(1 for _ in log.open())} if log.exists() else {}),
        "ok": right == inputs == options.jobs and not missing and kills == options.kills,
    }


def http(directory: Path, environment: dict[str, str], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    table = rows(directory, options.jobs)
    summary, _, _ = run(command(directory, table, "out", options.url, options.in_flight), environment)
    yield {
        "what": f"over HTTP to {options.url}",
        "jobs": options.jobs,
        "in_flight": options.in_flight,
        "completed": summary["results"]["completed"],
        "retries": summary["retries"],
        "jobs_per_second": round(summary["results_per_second"], 1),
        "ok": summary["results_per_second"] >= HTTP_JOBS_PER_SECOND,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["throughput", "memory", "killed", "http"])
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--faults", type=float, default=0.05)
    parser.add_argument("--cut-offs", type=int, default=1)
    parser.add_argument("--after", type=float, nargs=2, default=(0.5, 3.0), help="seconds until a kill, from and to")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url", help="a worker: worker+http://HOST:PORT")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.what == "http" and not options.url:
        parser.error("http needs --url, for example worker+http://127.0.0.1:8000")
    options.jobs = options.jobs or {"throughput": 5000, "killed": 10_000}.get(options.what, 2000)
    measure = {"throughput": throughput, "memory": memory, "killed": killed, "http": http}[options.what]
    with tempfile.TemporaryDirectory() as base:
        environment = {**os.environ, **noop_environment(Path(base))}
        figures = []
        for figure in measure(Path(base), environment, options):
            figures.append(figure)
            if not options.json:
                print(", ".join(f"{key} {value}" for key, value in figure.items()), flush=True)
    if options.json:
        print(json.dumps(figures, indent=2))
    return 0 if all(figure["ok"] for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
