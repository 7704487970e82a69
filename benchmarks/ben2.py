"""BEN2 side by side with the reference's settings: time, peak memory, and how close to the CPU's limit.

    hatch run bench:ben2 [--rounds N] [--json FILE]

Ours is `comfy_cpu_nodes.runtimes.load_onnx` as a workflow uses it. The reference is onnxruntime with the settings of
the reference deployment's node: intra = inter = 8 threads, everything else as it comes. Both read the same file, which
is written at the first run (`ben2_model`: BEN2's architecture and size, random weights). Each measurement is a fresh
process that loads, infers once to warm up, infers again and is timed; they take turns, so that whatever else the machine
does hits both. The rate of a plain bfloat16 matrix product, measured in between, is the CPU's limit.

Exits with 1 if the masks differ or a bar is missed: a fast wrong answer fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

#: The reference takes OMP_NUM_THREADS, or 8, for both.
REFERENCE_THREADS = 8

#: How far the masks (0 to 1) may be apart, on average. Random weights leave every pixel near the middle of the
#: sigmoid, where differences are largest; a trained model's masks are mostly at its ends.
MASK_TOLERANCE = 0.01

_MATRIX = 4096


@dataclass(frozen=True)
class Measurement:
    """What one process measured. Seconds and bytes.

    Attributes:
        first_seconds, seconds: the warm-up inference and the one that counts.
        cpu_seconds: the processor's time for the latter, all threads together; other processes do not disturb it.
        peak_bytes: the most memory that the process ever occupied.
    """

    load_seconds: float
    first_seconds: float
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    runtime: str
    precision: str
    threads: int


# --- what runs in a process of its own ------------------------------------------------------------------------------


def measure_ours(model: Path, mask: Path) -> Measurement:
    from comfy_cpu_nodes.runtimes import load_onnx

    started = time.perf_counter()
    loaded = load_onnx(model, name=model.name)
    load_seconds = time.perf_counter() - started
    times = time_inferences(lambda picture: loaded.run({"input": picture})["output"], mask)
    return Measurement(load_seconds, *times, peak_bytes(), loaded.runtime, loaded.precision, loaded.threads)


def measure_reference(model: Path, mask: Path) -> Measurement:
    import onnxruntime

    started = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = REFERENCE_THREADS
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    load_seconds = time.perf_counter() - started
    times = time_inferences(lambda picture: session.run(None, {"input": picture})[0], mask)
    runtime = f"onnxruntime {onnxruntime.__version__}"
    return Measurement(load_seconds, *times, peak_bytes(), runtime, "f32", REFERENCE_THREADS)


def time_inferences(infer: Callable[[np.ndarray], np.ndarray], mask: Path) -> tuple[float, float, float]:
    """Infer twice on the same picture, keep the mask; the seconds of both, and the processor's for the second."""
    random = np.random.default_rng(0)
    coarse = random.random((1, 3, 64, 64), np.float32)
    picture = np.ascontiguousarray(coarse.repeat(16, axis=2).repeat(16, axis=3))
    times = []
    for _ in range(2):
        started, worked = time.perf_counter(), time.process_time()
        result = infer(picture)
        times.append((time.perf_counter() - started, time.process_time() - worked))
    np.save(mask, result.astype(np.float32))
    return times[0][0], *times[1]


def measure_matrix_product() -> dict[str, float]:
    """The best rate of a plain matrix product in bfloat16 and float32, in operations a second."""
    import openvino as ov
    from openvino import opset13 as ops

    from comfy_cpu_core.resources import get_resources

    random = np.random.default_rng(0)
    left = random.standard_normal((_MATRIX, _MATRIX), np.float32)
    rates = {}
    for precision in ("bf16", "f32"):
        given = ops.parameter([_MATRIX, _MATRIX], np.float32)
        right = ops.constant(random.standard_normal((_MATRIX, _MATRIX), np.float32))
        model = ov.Model([ops.matmul(given, right, False, True)], [given])
        hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": get_resources().threads}
        request = ov.Core().compile_model(model, "CPU", hints).create_infer_request()
        times = []
        for _ in range(6):
            started = time.perf_counter()
            request.infer([left], share_inputs=True)
            times.append(time.perf_counter() - started)
        rates[precision] = 2 * _MATRIX**3 / min(times)
    return rates


def peak_bytes() -> int:
    """The most memory that this process ever occupied."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss may still hold the parent's figure after a fork
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# --- what compares them ---------------------------------------------------------------------------------------------


def in_fresh_process(what: str, *paths: Path) -> dict[str, Any]:
    """Run this file's ``--only WHAT`` in a new process and read what it measured."""
    command = [sys.executable, __file__, "--only", what, *map(str, paths)]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return measured


def compare_masks(ours: Path, reference: Path) -> dict[str, float]:
    """How far two masks are apart; and how much the reference's varies, since two flat masks would agree."""
    a, b = np.load(ours), np.load(reference)
    return {
        "mean_difference": float(np.abs(a - b).mean()),
        "greatest_difference": float(np.abs(a - b).max()),
        "correlation": float(np.corrcoef(a.ravel(), b.ravel())[0, 1]),
        "deviation_of_mask": float(b.std()),
    }


def summarize(measured: list[Measurement]) -> dict[str, Any]:
    """Medians, and the spread of the times."""
    times = [m.seconds for m in measured]
    return {
        "runtime": measured[0].runtime,
        "precision": measured[0].precision,
        "threads": measured[0].threads,
        "seconds": statistics.median(times),
        "seconds_least": min(times),
        "seconds_most": max(times),
        "cpu_seconds": statistics.median(m.cpu_seconds for m in measured),
        "first_seconds": statistics.median(m.first_seconds for m in measured),
        "load_seconds": statistics.median(m.load_seconds for m in measured),
        "peak_bytes": int(statistics.median(m.peak_bytes for m in measured)),
        "runs": [asdict(m) for m in measured],
    }


def machine() -> dict[str, Any]:
    from comfy_cpu_core.resources import get_resources

    resources = get_resources()
    packages = ("openvino", "onnxruntime", "onnx", "numpy", "comfy-cpu-nodes")
    return {
        "cpu": resources.cpu_model,
        "instruction_sets": sorted(resources.instruction_sets),
        "cpus": resources.cpus,
        "threads": resources.threads,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def benchmark(model: Path, flops: int, rounds: int) -> dict[str, Any]:
    """Measure in turns: rate, reference, ours, reference, ours, …, rate."""
    measured: dict[str, list[Measurement]] = {"reference": [], "ours": []}
    with tempfile.TemporaryDirectory() as scratch:
        masks = {what: Path(scratch) / f"{what}.npy" for what in measured}
        rates = [in_fresh_process("rate")]
        for turn in range(1, rounds + 1):
            for what, results in measured.items():
                results.append(Measurement(**in_fresh_process(what, model, masks[what])))
                seconds, peak = results[-1].seconds, results[-1].peak_bytes / 1e9
                print(f"round {turn} of {rounds}: {what} {seconds:.2f} s, {peak:.2f} GB", file=sys.stderr, flush=True)
            rates.append(in_fresh_process("rate"))
        masks_differ = compare_masks(masks["ours"], masks["reference"])
    ours, reference = summarize(measured["ours"]), summarize(measured["reference"])
    rate = {precision: statistics.median(r[precision] for r in rates) for precision in rates[0]}
    return {
        "model": {"bytes": model.stat().st_size, "flops": flops},
        "machine": machine(),
        "ours": ours,
        "reference": reference,
        "matrix_product_flops_per_second": rate,
        "masks": masks_differ,
        "speedup": reference["seconds"] / ours["seconds"],
        "memory_ratio": ours["peak_bytes"] / reference["peak_bytes"],
        "efficiency": flops / ours["seconds"] / rate[ours["precision"]],
    }


def verdicts(result: dict[str, Any], bars: argparse.Namespace) -> list[tuple[str, bool]]:
    """Each requirement in words, and whether it is met."""
    masks = result["masks"]
    same = masks["mean_difference"] <= MASK_TOLERANCE and masks["deviation_of_mask"] > 5 * masks["mean_difference"]
    return [
        (f"masks differ by {masks['mean_difference']:.4f} on average (at most {MASK_TOLERANCE})", same),
        (
            f"{result['speedup']:.1f} times as fast as the reference (at least {bars.min_speedup})",
            result["speedup"] >= bars.min_speedup,
        ),
        (
            f"{result['memory_ratio']:.3f} of its peak memory (at most {bars.max_memory})",
            result["memory_ratio"] <= bars.max_memory,
        ),
        (
            f"{result['efficiency']:.0%} of a plain matrix product's rate (at least {bars.min_efficiency:.0%})",
            result["efficiency"] >= bars.min_efficiency,
        ),
    ]


def print_table(result: dict[str, Any]) -> None:
    flops, rate = result["model"]["flops"], result["matrix_product_flops_per_second"]
    print(f"{result['machine']['cpu']}, {result['machine']['threads']} threads", end="; ")
    print(f"{flops / 1e12:.3f} TFLOP, {result['model']['bytes'] / 1e6:.0f} MB")
    print(f"plain matrix product: {rate['bf16'] / 1e12:.3f} TFLOP/s in bf16, {rate['f32'] / 1e12:.3f} in f32")
    heads = " ".join(f"{head:>8}" for head in ("median", "least", "most", "CPU", "load", "peak"))
    print(f"{'':10} {'runtime':22} {'':5} {heads}  TFLOP/s")
    for what in ("reference", "ours"):
        row = result[what]
        keys = ("seconds", "seconds_least", "seconds_most", "cpu_seconds", "load_seconds")
        times = " ".join(f"{row[key]:6.2f} s" for key in keys)
        tail = f"{row['peak_bytes'] / 1e9:5.2f} GB  {flops / row['seconds'] / 1e12:.3f}"
        print(f"{what:10} {row['runtime']:22} {row['precision']:5} {times} {tail}")


def prepared_model(path: Path) -> int:
    """Write the model unless it is there, in a process of its own; give back its operations."""
    note = path.with_suffix(".flops")
    if not path.exists() or not note.exists():
        print(f"writing {path}", file=sys.stderr, flush=True)
        program = "import sys, pathlib, ben2_model; print(ben2_model.write(pathlib.Path(sys.argv[1])))"
        command = [sys.executable, "-c", program, str(path)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        note.write_text(finished.stdout)
    return int(note.read_text())


def default_model() -> Path:
    """Outside the repository: it is 220 MB."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "comfy-cpu" / "benchmarks" / "ben2-like.onnx"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (default 3)")
    parser.add_argument("--model", type=Path, default=default_model(), help="where the model is kept")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--min-speedup", type=float, default=4.0)
    parser.add_argument("--max-memory", type=float, default=0.333)
    parser.add_argument("--min-efficiency", type=float, default=0.0)
    parser.add_argument("--only", choices=["ours", "reference", "rate"], help=argparse.SUPPRESS)
    parser.add_argument("paths", type=Path, nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    if arguments.only == "rate":
        print(json.dumps(measure_matrix_product()))
        return 0
    if arguments.only:
        measure = measure_ours if arguments.only == "ours" else measure_reference
        print(json.dumps(asdict(measure(*arguments.paths))))
        return 0
    flops = prepared_model(arguments.model)
    result = benchmark(arguments.model, flops, arguments.rounds)
    print_table(result)
    checks = verdicts(result, arguments)
    for text, good in checks:
        print(f"{'ok    ' if good else 'FAILED'} {text}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if all(good for _, good in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
