"""The builder's own checks (hook ``comfy_cpu_checks``): each looks at the facts alone."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from comfy_cpu_builder.packages import find_cuda
from comfy_cpu_core.image import Finding, ImageCheck, ImageFacts

__all__ = ["CHECKS"]

#: What a container's log must not have: the reference's own history of mistakes.
_BAD_LINES = ("Torch not compiled with CUDA", "pthread_setaffinity_np")

_MB = 1_000_000


def _cuda(facts: ImageFacts) -> Iterator[Finding]:
    files = facts.probe["cuda_files"]
    yield Finding(not files, f"CUDA libraries: {_some(files)}" if files else "no CUDA library")
    packages = find_cuda(name for name, _ in facts.probe["packages"])
    yield Finding(not packages, f"CUDA packages: {_some(packages)}" if packages else "no CUDA package")


def _torch(facts: ImageFacts) -> Iterator[Finding]:
    torch = facts.probe["torch"]
    if torch is None:
        yield Finding(True, "no torch")
    elif "problem" in torch:
        yield Finding(False, f"torch cannot be imported: {torch['problem']}")
    else:
        built = f"torch {torch['version']}"
        yield Finding(
            torch["cuda"] is None, built if torch["cuda"] is None else f"{built} is built for CUDA {torch['cuda']}"
        )


def _models(facts: ImageFacts) -> Iterator[Finding]:
    for model in facts.manifest["models"]:
        problems = [problem for file in model["files"] if (problem := _file_problem(file, facts.probe["models"]))]
        size = sum(file["size"] for file in model["files"]) / _MB
        yield Finding(not problems, f"{model['id']}: {'; '.join(problems) or f'{size:.1f} MB, right'}")


def _file_problem(file: Any, found: Any) -> str:
    has = found.get(file["target"])
    if has is None:
        return f"{file['target']} is missing"
    if (has["size"], has["sha256"]) != (file["size"], file["sha256"]):
        return f"{file['target']} has sha256 {has['sha256'][:12]}… instead of {file['sha256'][:12]}…"
    return ""


def _nodes(facts: ImageFacts) -> Iterator[Finding]:
    nodes = facts.probe["nodes"]
    if nodes is not None:
        if "problem" in nodes:
            yield Finding(False, f"the node classes cannot be loaded: {nodes['problem']}")
            return
        for broken in nodes["broken"]:
            yield Finding(False, f"plugin {broken}")
    if facts.manifest["target"] == "engine":
        known, problems = set((nodes or {}).get("known", ())), (nodes or {}).get("problems", {})
    else:
        # Whoever runs the workflow says what it has.
        asked = facts.probe.get("comfyui")
        if asked is None:
            return
        if "problem" in asked:
            yield Finding(False, f"ComfyUI does not say which node classes it has: {asked['problem']}")
            return
        known, problems = set(asked["classes"]), {}
    for workflow in facts.manifest["workflows"]:
        missing = sorted(set(workflow["class_types"]) - known)
        reasons = [f"{name} ({problems.get(name, 'not installed')})" for name in missing]
        count = len(workflow["class_types"])
        found = f"missing {_some(reasons)}" if missing else f"all {count} node classes load"
        yield Finding(not missing, f"{workflow['name']}: {found}")


def _workflows(facts: ImageFacts) -> Iterator[Finding]:
    nodes = facts.probe["nodes"] or {}
    expected = facts.manifest.get("expected_workflows") or {w["name"]: w["sha256"] for w in facts.manifest["workflows"]}
    for name, sha256 in sorted(expected.items()):
        found = facts.probe["workflows"].get(name)
        report = nodes.get("workflows", {}).get(name, {})
        problems = []
        if found is None:
            problems.append("it is not in the image")
        elif found != sha256:
            problems.append("it is another one than it should be")
        problems += [
            f"node {c['node_id']} ({c['class_type']}) {c['input']} is {c['old']!r} still"
            for c in report.get("changes", ())
        ]
        problems += [
            f"node {n['node_id']} ({n['class_type']}) cannot run on a CPU" for n in report.get("cannot_run", ())
        ]
        yield Finding(not problems, f"{name}: {_some(problems) if problems else 'as it should be, for a CPU'}")


def _start(facts: ImageFacts) -> Iterator[Finding]:
    script = facts.probe["start_script"]
    path = facts.manifest["start_script"]
    if script is None:
        yield Finding(False, f"there is no start script {path}")
        return
    yield Finding(path in facts.info.command, f"the image starts {' '.join(facts.info.command) or 'nothing'}")
    if facts.manifest.get("comfyui"):
        starts = [line for line in script.splitlines() if "main.py" in line]
        running = [command for command in facts.probe["processes"] if any("main.py" in part for part in command)]
        right = all("--cpu" in line.split() for line in starts) and all("--cpu" in command for command in running)
        if starts or running:
            yield Finding(right, "ComfyUI starts with --cpu" if right else f"{path} starts ComfyUI without --cpu")
        elif facts.start_seconds is not None:
            yield Finding(False, "no ComfyUI runs in the container")
    handler = facts.probe["handler"]
    if handler:
        if not handler["there"]:
            yield Finding(False, f"the handler {handler['path']} is missing")
        elif not any(handler["path"] in shlex.split(line, comments=True) for line in _quotable(script)):
            yield Finding(False, f"{path} expects the handler elsewhere than at {handler['path']}")
        else:
            yield Finding(True, f"the handler {handler['path']} is where the start script expects it")


def _quotable(script: str) -> Iterator[str]:
    """The lines of a script that can be taken apart into words."""
    for line in script.replace("(", " ").replace(")", " ").splitlines():
        if line.count("'") % 2 == 0 and line.count('"') % 2 == 0:
            yield line


def _user(facts: ImageFacts) -> Iterator[Finding]:
    uid = facts.probe["uid"]
    yield Finding(uid != 0, f"runs as user {uid}" if uid else "runs as root")
    health = bool(facts.info.healthcheck)
    yield Finding(health, "has a HEALTHCHECK" if health else "has no HEALTHCHECK")


def _runs(facts: ImageFacts) -> Iterator[Finding]:
    if not facts.started:
        return
    if facts.start_seconds is None:
        yield Finding(False, f"the worker never was ready: {facts.start_problem}")
        return
    for run in facts.runs:
        if run.problem:
            yield Finding(False, f"{run.workflow}: {run.problem}")
            continue
        pictures = run.result.get("outputs", [])
        wrong = [f"{p['filename']}: {p['problem']}" for p in pictures if p["problem"]]
        if wrong:
            yield Finding(False, f"{run.workflow}: {_some(wrong)}")
        else:
            sizes = ", ".join(f"{p['width']}x{p['height']} {p['format']}" for p in pictures) or "no pictures"
            stand_in = " (with a STAND-IN for a model)" if run.result.get("stand_in") else ""
            yield Finding(True, f"{run.workflow}: {sizes}{stand_in}")


def _log(facts: ImageFacts) -> Iterator[Finding]:
    for bad in _BAD_LINES if facts.started else ():
        line = next((line for line in facts.log.splitlines() if bad in line), None)
        yield Finding(
            line is None, f"the log says: {line.strip()[:160]}" if line else f"nothing about {bad} in the log"
        )


def _measures(facts: ImageFacts) -> Iterator[Finding]:
    yield from _limited(facts, "max_image_mb", "image size", facts.info.size / _MB, "MB")
    yield from _limited(facts, "max_start_s", "cold start", facts.start_seconds, "s")
    memory = facts.peak_memory_bytes
    yield from _limited(facts, "max_rss_mb", "peak memory", None if memory is None else memory / _MB, "MB")
    for run in facts.runs:
        if not run.problem:
            yield from _limited(facts, "max_job_s", f"{run.workflow}: job time", run.seconds, "s")
            if facts.price_per_hour_usd is not None:
                cost = run.seconds * facts.price_per_hour_usd / 3600
                yield from _limited(facts, "max_cost_usd", f"{run.workflow}: cost per job", cost, "USD", digits=6)


def _limited(
    facts: ImageFacts, limit: str, what: str, value: float | None, unit: str, *, digits: int = 1
) -> Iterator[Finding]:
    most = facts.limits.get(limit)
    if value is None:
        if most is not None and facts.started:
            yield Finding(False, f"{what}: not measured, and {limit} is {most:g}")
        return
    over = most is not None and value > most
    bound = f", {'over' if over else 'within'} {limit} = {most:g}" if most is not None else ""
    yield Finding(not over, f"{what}: {value:.{digits}f} {unit}{bound}", value=round(value, digits + 2))


def _layers(facts: ImageFacts) -> Iterator[Finding]:
    for made_by, size in facts.info.layers:
        if size >= _MB:
            yield Finding(True, f"layer of {size / _MB:.1f} MB: {_shortened(made_by)}", value=size)


def _shortened(made_by: str) -> str:
    text = " ".join(made_by.replace("/bin/sh -c #(nop)", "").split())
    return text if len(text) <= 80 else text[:77] + "..."


def _some(items: Iterable[str]) -> str:
    listed = list(items)
    return "; ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


CHECKS = (
    ImageCheck("cuda", "no CUDA library and no CUDA package anywhere", _cuda),
    ImageCheck("layers", "size of each layer", _layers),
    ImageCheck("log", "no line that says that something wants a GPU", _log),
    ImageCheck("measures", "size, cold start, memory, time and cost within their limits", _measures),
    ImageCheck("models", "every model is there with the right hash", _models),
    ImageCheck("nodes", "every node class loads", _nodes),
    ImageCheck("runs", "each workflow runs, with the network off, and gives valid pictures", _runs),
    ImageCheck("start", "the start script, its --cpu, and the handler", _start),
    ImageCheck("torch", "torch for CPUs, or none", _torch),
    ImageCheck("user", "no root, and a HEALTHCHECK", _user),
    ImageCheck("workflows", "each workflow is converted for a CPU", _workflows),
)
