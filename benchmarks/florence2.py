"""A Florence-2 caption side by side with the reference's settings: time and peak memory.

    hatch run bench:florence2 [--rounds N] [--fp16-rounds N] [--cache DIR] [--json FILE]

Ours is what the node does: `comfy_cpu_nodes.runtimes.florence`, in bfloat16 where the CPU multiplies it in hardware. The
references are transformers' own class with the settings of the reference deployment's node: fp16 as its workflows say, and
fp32, both without a cache (``use_cache=False``) and with torch's own number of threads. All of them read the same file,
which is written at the first run: Florence-2-base's architecture and size, random weights. The caption has three beams and
exactly sixty new tokens; the picture and the question are the same.

Each measurement is a fresh process that loads, writes two tokens about another picture to warm up, and is then timed; they
take turns. fp16 needs a minute and a half, so that it is measured once unless told otherwise.

Ours in float32 must write the same sixty tokens as the float32 reference: a fast wrong answer fails. Exits with 1 if it
does not, or if a bar is missed; without bfloat16 in hardware there are no bars.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

BEAMS, NEW_TOKENS = 3, 60
QUESTION = "What does the image describe?"

#: Ours must be this many times faster than the reference in fp16 and in fp32.
FP16_BAR, FP32_BAR = 15.0, 4.0

#: A token that no question has, to stand for the picture in the reference's input.
_IMAGE_TOKEN = 51288
_IMAGE_TOKENS = 577


@dataclass(frozen=True)
class Measurement:
    """What one process measured. Seconds and bytes.

    Attributes:
        load_seconds: of loading, the libraries' import included.
        seconds: of the caption.
        cpu_seconds: the processor's time for it, all threads together; other processes disturb it less.
        peak_bytes: the most memory that the process ever occupied, the mapped file included.
        tokens: the caption, as ids.
        settings: how it was made.
    """

    load_seconds: float
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    tokens: list[int]
    settings: str


# --- what runs in a process of its own ------------------------------------------------------------------------------


def measure_ours(directory: Path, precision: str) -> Measurement:
    from comfy_cpu_nodes.runtimes.florence import Sampling, lease_florence, model, open_florence, runtime_name

    written: list[list[int]] = []
    write_answer = model.write_answer

    def keep_tokens(*arguments: Any) -> list[int]:
        written.append(write_answer(*arguments))
        return written[-1]

    model.write_answer = keep_tokens
    started = time.perf_counter()
    florence = open_florence(directory, name=directory.name, fetch="", precision=precision)
    load_seconds = time.perf_counter() - started
    with lease_florence(florence) as loaded:

        def caption(image: np.ndarray, tokens: int) -> None:
            loaded.answer(image, QUESTION, Sampling(tokens, BEAMS, do_sample=False, seed=1), lambda: None)

        seconds, cpu_seconds = time_caption(caption)
    settings = f"{runtime_name()}, {precision}, shared cache"
    return Measurement(load_seconds, seconds, cpu_seconds, peak_bytes(), written[-1], settings)


def measure_reference(directory: Path, precision: str) -> Measurement:
    started = time.perf_counter()
    import torch
    import transformers

    from comfy_cpu_nodes.ops.florence import Normalisation, encode

    transformers.utils.logging.disable_progress_bar()
    dtype = {"fp16": torch.float16, "fp32": torch.float32}[precision]
    model = transformers.Florence2ForConditionalGeneration.from_pretrained(directory, dtype=dtype).eval()
    model.config.image_token_id = _IMAGE_TOKEN
    load_seconds = time.perf_counter() - started
    ids = torch.tensor([[_IMAGE_TOKEN] * _IMAGE_TOKENS + question_tokens(directory)])
    answers = []

    def caption(image: np.ndarray, tokens: int) -> None:
        with torch.inference_mode():
            pixels = torch.from_numpy(encode(image, Normalisation())).to(dtype)
            answer = model.generate(
                input_ids=ids,
                pixel_values=pixels,
                max_new_tokens=tokens,
                num_beams=BEAMS,
                do_sample=False,
                use_cache=False,
            )
        answers.append(answer[0].tolist())

    seconds, cpu_seconds = time_caption(caption)
    settings = f"transformers {transformers.__version__}, {precision}, use_cache=False"
    return Measurement(load_seconds, seconds, cpu_seconds, peak_bytes(), answers[-1], settings)


def question_tokens(directory: Path) -> list[int]:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    return [0, *tokenizer.encode(QUESTION, add_special_tokens=False).ids, 2]


def time_caption(caption: Callable[[np.ndarray, int], None]) -> tuple[float, float]:
    """Two tokens about one picture to warm up, then the caption of another: its seconds, and the processor's."""
    random = np.random.default_rng(0)
    warm_up, picture = random.integers(0, 256, (2, 512, 512, 3), np.uint8)
    caption(warm_up, 2)
    started, worked = time.perf_counter(), time.process_time()
    caption(picture, NEW_TOKENS)
    return time.perf_counter() - started, time.process_time() - worked


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


def in_fresh_process(what: str, precision: str, directory: Path) -> Measurement:
    command = [sys.executable, __file__, "--only", what, precision, "--cache", str(directory.parent)]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured = Measurement(**json.loads(finished.stdout.splitlines()[-1]))
    name = f"{what} {precision}"
    print(f"{name:15} {measured.seconds:7.2f} s {measured.peak_bytes / 1e9:5.2f} GB", file=sys.stderr, flush=True)
    return measured


def summarize(measured: list[Measurement]) -> dict[str, Any]:
    """Medians, and the spread of the times."""
    times = [m.seconds for m in measured]
    return {
        "settings": measured[0].settings,
        "seconds": statistics.median(times),
        "seconds_least": min(times),
        "seconds_most": max(times),
        "cpu_seconds": statistics.median(m.cpu_seconds for m in measured),
        "load_seconds": statistics.median(m.load_seconds for m in measured),
        "peak_bytes": int(statistics.median(m.peak_bytes for m in measured)),
        "runs": [asdict(m) for m in measured],
    }


def benchmark(directory: Path, rounds: int, fp16_rounds: int) -> dict[str, Any]:
    """Measure in turns: fp32, ours, fp16, fp32, ours, …; ours in float32 once, to compare what it writes."""
    from comfy_cpu_core.resources import get_resources

    resources = get_resources()
    best = "bf16" if resources.has_bf16 else "f32"
    kinds = {"ours": ("ours", best), "fp32": ("reference", "fp32"), "fp16": ("reference", "fp16")}
    measured: dict[str, list[Measurement]] = {"fp32": [], "ours": [], "fp16": []}
    for turn in range(max(rounds, fp16_rounds)):
        for name, results in measured.items():
            if turn < (fp16_rounds if name == "fp16" else rounds):
                results.append(in_fresh_process(*kinds[name], directory))
    exact = in_fresh_process("ours", "f32", directory)
    summaries = {name: summarize(results) for name, results in measured.items() if results}
    return {
        "machine": {
            "cpu": resources.cpu_model,
            "instruction_sets": sorted(resources.instruction_sets),
            "threads": resources.threads,
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("torch", "transformers", "comfy-cpu-nodes")},
        },
        "bf16": resources.has_bf16,
        "caption": {"beams": BEAMS, "new_tokens": NEW_TOKENS, "image_tokens": _IMAGE_TOKENS},
        **summaries,
        "ours_in_f32": asdict(exact),
        "same_tokens_in_f32": exact.tokens == measured["fp32"][0].tokens,
        "lengths": {name: len(results[0].tokens) for name, results in measured.items() if results},
        "speedup": {
            name: summaries[name]["seconds"] / summaries["ours"]["seconds"]
            for name in ("fp16", "fp32")
            if name in summaries
        },
    }


def verdicts(result: dict[str, Any], bars: argparse.Namespace) -> list[tuple[str, bool]]:
    """Each requirement in words, and whether it is met."""
    # The token that starts an answer is no new one.
    long_enough = set(result["lengths"].values()) == {NEW_TOKENS + 1}
    checks = [
        (f"{NEW_TOKENS} tokens were written by all of them", long_enough),
        ("in f32 ours writes the tokens of the fp32 reference", result["same_tokens_in_f32"]),
    ]
    if not result["bf16"]:
        return checks
    least = {"fp16": bars.min_fp16, "fp32": bars.min_fp32}
    for name, speedup in result["speedup"].items():
        text = f"{speedup:.1f} times as fast as {name} without a cache (at least {least[name]})"
        checks.append((text, speedup >= least[name]))
    return checks


def print_table(result: dict[str, Any]) -> None:
    print(f"{result['machine']['cpu']}, {result['machine']['threads']} threads; {BEAMS} beams, {NEW_TOKENS} new tokens")
    heads = " ".join(f"{head:>8}" for head in ("median", "least", "most", "CPU", "load", "peak"))
    print(f"{'':5} {'settings':42} {heads}")
    for name in ("fp16", "fp32", "ours"):
        if name in result:
            row = result[name]
            keys = ("seconds", "seconds_least", "seconds_most", "cpu_seconds", "load_seconds")
            times = " ".join(f"{row[key]:6.2f} s" for key in keys)
            print(f"{name:5} {row['settings']:42} {times} {row['peak_bytes'] / 1e9:5.2f} GB")


def prepared_model(cache: Path) -> Path:
    """Write the model unless it is there, in a process of its own."""
    directory = cache / "florence-2-base-like"
    if not (directory / "model.safetensors").exists():
        print(f"writing {directory}", file=sys.stderr, flush=True)
        program = (
            "import sys, pathlib; from comfy_cpu_nodes.testing_florence2 import write_florence2_stand_in; "
            "write_florence2_stand_in(pathlib.Path(sys.argv[1]), size='base')"
        )
        part = directory.with_suffix(".part")
        subprocess.run([sys.executable, "-c", program, str(part)], check=True)
        part.rename(directory)
    return directory


def default_cache() -> Path:
    """Outside the repository: the model has 460 MB."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "comfy-cpu" / "benchmarks"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of ours and of fp32 (default 3)")
    parser.add_argument("--fp16-rounds", type=int, default=1, help="measurements of fp16 (default 1; 0 leaves it out)")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where the model is kept")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--min-fp16", type=float, default=FP16_BAR)
    parser.add_argument("--min-fp32", type=float, default=FP32_BAR)
    parser.add_argument("--only", nargs=2, metavar=("WHAT", "PRECISION"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    if arguments.only:
        what, precision = arguments.only
        measure = measure_ours if what == "ours" else measure_reference
        print(json.dumps(asdict(measure(prepared_model(arguments.cache), precision))))
        return 0
    result = benchmark(prepared_model(arguments.cache), arguments.rounds, arguments.fp16_rounds)
    print_table(result)
    checks = verdicts(result, arguments)
    for text, good in checks:
        print(f"{'ok    ' if good else 'FAILED'} {text}")
    if not result["bf16"]:
        print("no bars: this CPU does not multiply bfloat16 matrices in hardware")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if all(good for _, good in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
