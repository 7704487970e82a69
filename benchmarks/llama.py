"""The safety classification side by side with llama-cpp-python's defaults: warm, cold, and how well they agree.

    hatch run bench:llama [--quick] [--rounds N] [--cache DIR] [--json FILE]

Ours is what the classifier node does: `comfy_cpu_nodes.runtimes.llama.fill_in` with the safety form. The reference is
what the reference deployment does: `llama_cpp.Llama` with its defaults reads the prompt and writes the answer token by
token. Both read the same file, written at the first run (`llama_model`: Llama 3.1 8B Q5_K_M's architecture and size,
random weights; 5.7 GB). Random weights answer nothing sensible, so the reference's answer is given to it, token by token,
and it is not charged for choosing them.

*Warm*: the model is loaded and the prompt's constant beginning is remembered, on both sides. *Cold*: a new process, the
file in the page cache, everything included from the start of the interpreter; ours finds the state of its prompt on disk.

Zero disagreements means that every domain is SAFE, five that none is. Ours does not guess an answer and correct it: the
five domains are branches of one batch, whatever they come to, so that both rows come from the same measurements. The
reference's answer is the JSON that its prompt asks for (43 tokens: domains, states, a reason, a confidence); how the two
compare for an answer that is only as long as what ours reads behind the caption is printed too.

Exits with 1 if the answers differ from those read token by token, or a bar is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: The reference's prompt: its few-shot examples, the caption, and the JSON that it writes. In tokens.
REFERENCE_PREFIX, CAPTION, REFERENCE_ANSWER = 181, 100, 43

#: Ours must be this many times faster.
WARM_BAR, COLD_BAR = 5.0, 3.0

#: How far the probabilities read from one batch may be from those read token by token: by this factor, less one. Random
#: weights are sure of themselves (log odds of 15 and more), so that a difference of probabilities would show nothing; and
#: llama.cpp adds up the attention of one token in half precision.
TOLERANCE = 0.1


@dataclass(frozen=True)
class Measurement:
    """What one process measured. Seconds and bytes.

    Attributes:
        seconds: of each classification, from the caption to the answer.
        cpu_seconds: the processor's time for the same, all threads together; other processes disturb it less.
        cold_seconds: of the first one, from the start of the interpreter.
        load_seconds: of loading alone.
        peak_bytes: the most memory that the process ever occupied, the mapped file included.
        tokens: what was read for one classification, behind the constant beginning.
        reading_seconds: of reading the caption alone, where that is a step of its own.
        notes: versions and settings.
    """

    seconds: list[float]
    cpu_seconds: list[float]
    cold_seconds: float
    load_seconds: float
    peak_bytes: int
    tokens: int
    reading_seconds: list[float]
    notes: str


def caption(number: int) -> str:
    """A caption of 100 tokens, each time another one."""
    return "".join(f" w{(number * 131 + place * 17) % 2000}." for place in range(CAPTION))


# --- what runs in a process of its own ------------------------------------------------------------------------------


def measure_ours(model: Path, states: Path, rounds: int) -> Measurement:
    from comfy_cpu_core.resources import get_resources
    from comfy_cpu_nodes.ops.forms import SAFETY_FORMS, quoted
    from comfy_cpu_nodes.runtimes.llama import fill_in, form_tokens, lease_llama, runtime_name
    from comfy_cpu_nodes.runtimes.llama.chat import Chat

    started = time.perf_counter()
    with lease_llama(model, name=model.name) as loaded:
        load_seconds = time.perf_counter() - started
        tokens = form_tokens(loaded, SAFETY_FORMS)
        fill_in(loaded, tokens, quoted(caption(0)), n_ctx=4096, folder=states)
        cold_seconds = since_the_interpreter_started()
        seconds, cpu_seconds = [], []
        for number in range(1, rounds + 1):
            begun, worked = time.perf_counter(), time.process_time()
            fill_in(loaded, tokens, quoted(caption(number)), n_ctx=4096, folder=states)
            seconds.append(time.perf_counter() - begun)
            cpu_seconds.append(time.process_time() - worked)
        read = len(Chat(loaded).closing(quoted(caption(0)), "")) + len(tokens.trunk) + sum(map(len, tokens.branches))
    notes = f"{runtime_name()}, {get_resources().threads} threads, {len(tokens.prefix)} tokens remembered"
    return Measurement(seconds, cpu_seconds, cold_seconds, load_seconds, peak_bytes(), read, [], notes)


def measure_reference(model: Path, states: Path, rounds: int) -> Measurement:
    import llama_cpp

    # A portable build has its CPU backends in files of their own, and llama-cpp-python does not load them.
    low_level = llama_cpp.llama_cpp._lib
    if not low_level.ggml_backend_dev_count():
        low_level.ggml_backend_load_all_from_path(str(Path(llama_cpp.__file__).with_name("lib")).encode())
    started = time.perf_counter()
    llama = llama_cpp.Llama(str(model), n_ctx=4096, n_gpu_layers=-1, verbose=False)
    load_seconds = time.perf_counter() - started
    random = np.random.default_rng(0)
    prefix = [1, *random.integers(300, 2000, REFERENCE_PREFIX - 1).tolist()]
    reading_seconds = []

    def classify(*, first: bool = False) -> None:
        rest = random.integers(300, 2000, CAPTION).tolist()
        begun = time.perf_counter()
        if first:
            llama.eval(prefix + rest)
        else:  # as Llama.generate does: what both prompts begin with is kept
            llama.n_tokens = len(prefix)
            llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(llama.ctx), -1, len(prefix), -1)
            llama.eval(rest)
            reading_seconds.append(time.perf_counter() - begun)
        for token in random.integers(300, 2000, REFERENCE_ANSWER).tolist():
            llama.eval([token])

    classify(first=True)
    cold_seconds = since_the_interpreter_started()
    seconds, cpu_seconds = [], []
    for _ in range(rounds):
        begun, worked = time.perf_counter(), time.process_time()
        classify()
        seconds.append(time.perf_counter() - begun)
        cpu_seconds.append(time.process_time() - worked)
    notes = f"llama-cpp-python {llama_cpp.__version__}, {llama.n_threads} and {llama.n_threads_batch} threads"
    read = CAPTION + REFERENCE_ANSWER
    return Measurement(seconds, cpu_seconds, cold_seconds, load_seconds, peak_bytes(), read, reading_seconds, notes)


def measure_agreement(model: Path, states: Path) -> dict[str, float]:
    """The largest difference between the logarithms of a probability from the batch and the same read token by token."""
    from comfy_cpu_nodes.ops.forms import SAFETY_FORMS, quoted, weigh
    from comfy_cpu_nodes.runtimes.llama import fill_in, form_tokens, lease_llama
    from comfy_cpu_nodes.runtimes.llama.chat import Chat
    from comfy_cpu_nodes.runtimes.llama.context import Read

    with lease_llama(model, name=model.name) as loaded:
        tokens = form_tokens(loaded, SAFETY_FORMS)
        text = quoted(caption(7))
        answers = fill_in(loaded, tokens, text, n_ctx=4096, folder=states)
        shared = [*tokens.prefix, *Chat(loaded).closing(text, ""), *tokens.trunk]
        context = loaded.context("one by one", len(shared) + 8)
        context.read([Read(token, place) for place, token in enumerate(shared)])
        worst = 0.0
        for answer, branch, choices in zip(answers, tokens.branches, tokens.choices, strict=True):
            context.forget(0, len(shared))
            for place, token in enumerate(branch, len(shared)):
                (logits,) = context.read([Read(token, place, wants=True)])
            alone = weigh(logits, [[token] for token in choices])
            worst = max(worst, float(np.abs(np.log(alone.probabilities) - np.log(answer.probabilities)).max()))
    return {"difference": worst}


def since_the_interpreter_started() -> float:
    """Seconds since this process was made, as the kernel counts them."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def peak_bytes() -> int:
    """The most memory that this process ever occupied."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


# --- what compares them ---------------------------------------------------------------------------------------------


def in_fresh_process(what: str, model: Path, states: Path, rounds: int) -> dict[str, Any]:
    """Run this file's ``--only WHAT`` in a new process and read what it measured."""
    command = [sys.executable, __file__, "--only", what, str(model), str(states), "--rounds", str(rounds)]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return measured


def model_file(cache: Path, layers: int) -> Path:
    """The model, written at the first run, and again when its vocabulary changes with our prompts."""
    import llama_model

    words = hashlib.sha256("\n".join(llama_model.vocabulary()[0]).encode()).hexdigest()[:8]
    path = cache / f"llama-random-{layers}-layers-{words}.gguf"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        print(f"writing {path} …", flush=True)
        llama_model.write(path, layers)
    return path


def read_through(path: Path) -> None:
    """Bring a file into the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "comfy-cpu" / "benchmarks"


def compare(model: Path, states: Path, rounds: int) -> dict[str, Any]:
    """Measure both, in turns, so that whatever else the machine does hits both.

    The least of all rounds counts, on both sides: other processes only ever add to it.
    """
    read_through(model)
    print(f"{model.name}: {model.stat().st_size / 1e9:.1f} GB", flush=True)
    agreement = in_fresh_process("agreement", model, states, 0)  # leaves the prompt's state on disk
    ours, reference = [], []
    for turn in range(1, rounds + 1):
        ours.append(in_fresh_process("ours", model, states, 3))
        reference.append(in_fresh_process("reference", model, states, 1))
        both = [
            f"{one[-1]['cold_seconds']:.1f} s cold, {min(one[-1]['seconds']):.1f} s warm" for one in (ours, reference)
        ]
        print(f"round {turn} of {rounds}: ours {both[0]}; reference {both[1]}", file=sys.stderr, flush=True)

    def least(measured: list[dict[str, Any]], what: str) -> float:
        return min(second for one in measured for second in one[what])

    warm_ours, warm_reference = least(ours, "seconds"), least(reference, "seconds")
    cold_ours, cold_reference = (min(one["cold_seconds"] for one in measured) for measured in (ours, reference))
    reading = least(reference, "reading_seconds")
    short_answer = ours[0]["tokens"] - CAPTION
    warm_short = reading + (warm_reference - reading) / REFERENCE_ANSWER * short_answer
    return {
        "model": model.name,
        "difference": agreement["difference"],
        "ours": ours,
        "reference": reference,
        "warm": {"ours": warm_ours, "reference": warm_reference, "ratio": warm_reference / warm_ours},
        "warm_short": {
            "ours": warm_ours,
            "reference": warm_short,
            "ratio": warm_short / warm_ours,
            "tokens": short_answer,
        },
        "warm_cpu": {"ours": least(ours, "cpu_seconds"), "reference": least(reference, "cpu_seconds")},
        "cold": {"ours": cold_ours, "reference": cold_reference, "ratio": cold_reference / cold_ours},
    }


def report(found: dict[str, Any]) -> bool:
    """Print what was found; whether every bar is reached."""
    ours, reference = found["ours"][0], found["reference"][0]
    print(f"ours:      {ours['notes']}; reads {ours['tokens']} tokens in one batch")
    print(f"reference: {reference['notes']}; reads {CAPTION} tokens, then writes {REFERENCE_ANSWER} one by one")
    rows = {
        "warm, 0 disagreements": found["warm"],
        "warm, 5 disagreements": found["warm"],
        "warm, processor time": found["warm_cpu"],
        f"warm, an answer of {found['warm_short']['tokens']} tokens": found["warm_short"],
        "cold": found["cold"],
    }
    print(f"{'':32}{'ours':>10}{'reference':>12}{'ratio':>9}")
    for name, row in rows.items():
        ratio = row["reference"] / row["ours"]
        print(f"{name:32}{row['ours']:>8.2f} s{row['reference']:>10.2f} s{ratio:>8.1f}x")
    print(f"{'of that, loading':32}{ours['load_seconds']:>8.2f} s{reference['load_seconds']:>10.2f} s")
    print(f"{'peak memory':32}{ours['peak_bytes'] / 1e9:>7.2f} GB{reference['peak_bytes'] / 1e9:>9.2f} GB")
    print(f"probabilities differ from those read token by token by at most {np.expm1(found['difference']):.2%}")
    reached = {
        f"warm at least {WARM_BAR}x": found["warm"]["ratio"] >= WARM_BAR,
        f"cold at least {COLD_BAR}x": found["cold"]["ratio"] >= COLD_BAR,
        f"probabilities within {TOLERANCE:.0%}": np.expm1(found["difference"]) <= TOLERANCE,
    }
    for bar, is_reached in reached.items():
        print(f"{'reached' if is_reached else 'MISSED'}: {bar}")
    return all(reached.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="8 layers instead of 32: 2 GB, a quarter of the time")
    parser.add_argument("--rounds", type=int, default=3, help="of both, in processes of their own (default 3)")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where the model is kept between runs")
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    parser.add_argument("--only", choices=["ours", "reference", "agreement"], help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only == "agreement":
        print(json.dumps(measure_agreement(*arguments.paths)))
        return 0
    if arguments.only:
        measure = measure_ours if arguments.only == "ours" else measure_reference
        print(json.dumps(asdict(measure(*arguments.paths, arguments.rounds))))
        return 0
    model = model_file(arguments.cache, 8 if arguments.quick else 32)
    found = compare(model, arguments.cache / "states", arguments.rounds)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if report(found) else 1


if __name__ == "__main__":
    sys.exit(main())
