"""From an image to facts: start it as it will be used, ask it about itself, run its workflows."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from comfy_cpu_builder import layout
from comfy_cpu_builder.verify.picture import sample_picture
from comfy_cpu_core.errors import BuildError, InputError
from comfy_cpu_core.image import (
    BuildEngine,
    CommandOutput,
    Container,
    ContainerRequest,
    ImageCheck,
    ImageFacts,
    ImageInfo,
    WorkflowRun,
)

__all__ = ["VerifyOptions", "gather_facts"]

_POLL_S = 0.25
_PROBE_S = 900.0


@dataclass(frozen=True)
class VerifyOptions:
    """How to verify.

    Attributes:
        inputs: workflow → ``NODE.INPUT`` → file; a test picture where nothing is given.
        values: workflow → ``NODE.INPUT`` → value.
        models: what a lock says of the models, as in `comfy_cpu_builder.manifest`; None to believe the image.
        workflows: what a plan says of the workflows (name → sha256); None to believe the image.
        limits, price_per_hour_usd: of the spec.
        start: whether to start it and run its workflows, or only to look inside.
        start_timeout_s, job_timeout_s: how long to wait, in seconds.
    """

    inputs: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    models: Any = None
    workflows: Mapping[str, str] | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    price_per_hour_usd: float | None = None
    start: bool = True
    start_timeout_s: float = 300
    job_timeout_s: float = 1800


def gather_facts(
    image: str,
    engine: BuildEngine,
    checks: Iterable[ImageCheck],
    options: VerifyOptions,
    note: Callable[[str], None] = lambda _: None,
) -> ImageFacts:
    """Find out everything that checks look at.

    Raises:
        BuildError: there is no such image, it is not one of ours, or the engine fails.
        InputError: a file for a workflow cannot be read.
    """
    info = engine.inspect(image)
    if info is None:
        raise BuildError(f"there is no image {image} here", remedy="build it, or pull it first")
    note("looking inside")
    quiet = ContainerRequest(info.id, command=("sleep", "infinity"))
    with _Running(engine, quiet) as container:
        manifest = _manifest(container, image)
        if options.models is not None:
            manifest["models"] = options.models
        if options.workflows is not None:
            manifest["expected_workflows"] = dict(options.workflows)
        python = (manifest["python"],)
        probe = _ask(container, python, {"do": "probe", "manifest": manifest}, _PROBE_S)
        outputs = {
            check.name: tuple(container.execute(command, timeout_s=_PROBE_S) for command in check.commands)
            for check in checks
            if check.commands
        }
    # The image's user cannot look into every directory.
    with _Running(engine, replace(quiet, user="0")) as container:
        probe["cuda_files"] = _ask(container, python, {"do": "cuda"}, _PROBE_S)["files"]
    if not options.start:
        probe["processes"] = []
        return ImageFacts(info, manifest, probe, outputs, started=False, limits=options.limits)
    return _run_it(info, engine, manifest, probe, outputs, options, note)


def _run_it(
    info: ImageInfo,
    engine: BuildEngine,
    manifest: Mapping[str, Any],
    probe: Mapping[str, Any],
    outputs: Mapping[str, tuple[CommandOutput, ...]],
    options: VerifyOptions,
    note: Callable[[str], None],
) -> ImageFacts:
    note("starting it")
    request = ContainerRequest(info.id, environment={"SERVE_API_LOCALLY": "true"})
    runs: list[WorkflowRun] = []
    processes: Mapping[str, Any] = {}
    started = time.monotonic()
    with _Running(engine, request) as container:
        python = (manifest["python"],)
        problem = _wait_until_ready(container, python, manifest, started + options.start_timeout_s)
        seconds = None if problem else time.monotonic() - started
        if not problem:
            if manifest.get("comfyui"):
                probe = {**probe, "comfyui": _ask(container, python, {"do": "comfyui"}, _PROBE_S)}
            for workflow in manifest["workflows"]:
                note(f"running {workflow['name']}")
                runs.append(_run_workflow(container, python, manifest, workflow, options))
            if container.running():
                processes = _ask(container, python, {"do": "processes"}, _PROBE_S)
        log = container.log()
    return ImageFacts(
        info=info,
        manifest=manifest,
        probe={**probe, "processes": processes.get("commands", [])},
        outputs=outputs,
        runs=tuple(runs),
        log=log,
        start_seconds=seconds,
        start_problem=problem,
        peak_memory_bytes=processes.get("peak_bytes"),
        limits=options.limits,
        price_per_hour_usd=options.price_per_hour_usd,
    )


class _Running:
    """A container for the length of a block."""

    def __init__(self, engine: BuildEngine, request: ContainerRequest) -> None:
        self._engine = engine
        self._request = request
        self._container: Container | None = None

    def __enter__(self) -> Container:
        self._container = self._engine.start(self._request)
        return self._container

    def __exit__(self, *error: object) -> None:
        if self._container is not None:
            self._container.remove()


def _manifest(container: Container, image: str) -> dict[str, Any]:
    done = container.execute(("cat", layout.MANIFEST))
    try:
        if done.code:
            raise ValueError
        document = json.loads(done.out)
        if not isinstance(document, dict) or document["format"] != 1:
            raise ValueError
    except (ValueError, KeyError):
        raise BuildError(f"{image} is no image of comfy-cpu: it has no {layout.MANIFEST}") from None
    return document


def _ask(container: Container, python: tuple[str, ...], request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    text = resources.files("comfy_cpu_builder.verify").joinpath("inside.py").read_text("utf-8")
    program = f"{text}\nmain({json.dumps(json.dumps(request))})\n"
    done = container.execute((*python, "-"), data=program.encode(), timeout_s=timeout_s)
    try:
        if done.code:
            raise ValueError
        answer = json.loads(done.out)
    except ValueError:
        reason = (done.err.strip() or done.out.strip()).splitlines()
        raise BuildError(
            f"the container cannot be asked ({request['do']}): {reason[-1] if reason else f'exit code {done.code}'}"
        ) from None
    return dict(answer)


def _wait_until_ready(
    container: Container, python: tuple[str, ...], manifest: Mapping[str, Any], deadline: float
) -> str:
    """Wait until the worker takes jobs; give why it does not, or nothing."""
    request = {"do": "ready", "path": "/ready", "any_answer": _sdk_serves(manifest)}
    while True:
        if not container.running():
            lines = [line for line in container.log().splitlines() if line.strip()]
            return f"it ended: {lines[-1] if lines else 'it printed nothing'}"
        try:
            answer = _ask(container, python, request, 60)
        except BuildError as error:
            answer = {"ready": False, "problem": str(error)}  # it may have ended meanwhile: the next round tells
        if answer["ready"]:
            return ""
        problem = str(answer["problem"])
        if time.monotonic() > deadline:
            return f"it takes no jobs: {problem}"
        time.sleep(_POLL_S)


def _sdk_serves(manifest: Mapping[str, Any]) -> bool:
    return bool(manifest.get("sdk_serves"))


def _run_workflow(
    container: Container,
    python: tuple[str, ...],
    manifest: Mapping[str, Any],
    workflow: Mapping[str, Any],
    options: VerifyOptions,
) -> WorkflowRun:
    name = str(workflow["name"])
    files = dict.fromkeys(workflow["uploads"])
    files.update(options.inputs.get(name, {}))
    request = {
        "do": "run",
        "workflow": name,
        "workflows_root": manifest["workflows_root"],
        "path": "/runsync" if _sdk_serves(manifest) else "/v2/local/runsync",
        "values": dict(options.values.get(name, {})),
        "files": {key: _file(key, path) for key, path in files.items()},
        "timeout": options.job_timeout_s,
    }
    try:
        answer = _ask(container, python, request, options.job_timeout_s + 30)
    except BuildError as error:
        return WorkflowRun(name, problem=str(error))
    return WorkflowRun(name, answer.get("result", {}), float(answer["seconds"]), str(answer["problem"]))


def _file(key: str, path: Path | None) -> dict[str, str]:
    stem = "".join(character if character.isalnum() else "_" for character in key)
    if path is None:
        return {"name": f"{stem}.png", "data": base64.b64encode(sample_picture()).decode()}
    try:
        return {"name": f"{stem}{path.suffix}", "data": base64.b64encode(path.read_bytes()).decode()}
    except OSError as error:
        raise InputError(f"{key}: {path}: {error.strerror or error}", remedy="name a file that is there") from error
