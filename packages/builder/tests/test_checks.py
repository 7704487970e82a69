"""The builder's checks: an image that is right passes all of them, and one that is broken in a way fails that check."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from comfy_cpu_builder.verify.checks import CHECKS
from comfy_cpu_builder.verify.report import Verification, run_checks
from comfy_cpu_core.image import Finding, ImageCheck, ImageFacts, ImageInfo, WorkflowRun

SHA256 = "a" * 64
FILE = {"target": "small/model.onnx", "size": 2_000_000, "sha256": SHA256}
PICTURE = {"filename": "out.png", "problem": "", "width": 8, "height": 6, "format": "PNG"}
LIMITS = {"max_image_mb": 700, "max_start_s": 30, "max_job_s": 20, "max_rss_mb": 1000, "max_cost_usd": 0.01}
COMFYUI = ["/opt/venv/bin/python", "/comfyui/main.py", "--listen", "--cpu"]
SCRIPT = "#!/bin/bash\npython /comfyui/main.py --listen --cpu &\nexec python -u /handler.py\n"


def engine_facts() -> ImageFacts:
    """What is found in an image of the target `engine` with which nothing is wrong."""
    return ImageFacts(
        info=ImageInfo(
            id="sha256:1",
            size=500_000_000,
            layers=(("/bin/sh -c #(nop) ADD base", 150_000_000), ("COPY small", 10)),
            command=("/start.sh",),
            healthcheck=("CMD", "healthcheck"),
        ),
        manifest={
            "target": "engine",
            "start_script": "/start.sh",
            "models": [{"id": "small-model", "files": [FILE]}],
            "workflows": [{"name": "cutout", "sha256": "b" * 64, "class_types": ["LoadImage", "SmallNode"]}],
        },
        probe={
            "cuda_files": [],
            "packages": [["numpy", "2.4.6"], ["openvino", "2026.0"]],
            "torch": None,
            "models": {"small/model.onnx": {"size": 2_000_000, "sha256": SHA256}},
            "nodes": {
                "known": ["LoadImage", "SmallNode"],
                "problems": {},
                "broken": [],
                "workflows": {"cutout": {"changes": [], "cannot_run": []}},
            },
            "workflows": {"cutout": "b" * 64},
            "start_script": "#!/bin/sh\nexec comfy-cpu serve\n",
            "processes": [["comfy-cpu", "serve"]],
            "handler": None,
            "uid": 10001,
        },
        runs=(WorkflowRun("cutout", {"outputs": [PICTURE]}, seconds=2.0),),
        log="ready\n",
        start_seconds=1.5,
        peak_memory_bytes=400_000_000,
        limits=LIMITS,
        price_per_hour_usd=0.36,
    )


def comfyui_facts() -> ImageFacts:
    """The same with a ComfyUI in it, and the handler of worker-comfyui."""
    facts = engine_facts()
    probe = {
        **facts.probe,
        "nodes": None,
        "torch": {"version": "2.5.0+cpu", "cuda": None},
        "comfyui": {"classes": ["LoadImage", "SmallNode"]},
        "start_script": SCRIPT,
        "processes": [COMFYUI],
        "handler": {"path": "/handler.py", "there": True},
    }
    manifest = {**facts.manifest, "target": "worker-comfyui", "comfyui": "/comfyui"}
    return replace(facts, manifest=manifest, probe=probe)


def verify(facts: ImageFacts) -> Verification:
    return run_checks("image", CHECKS, facts)


def broken(facts: ImageFacts, part: str, *keys: Any, value: Any) -> ImageFacts:
    """The facts with one value of the manifest or the probe another."""
    document = deepcopy(dict(getattr(facts, part)))
    place: Any = document
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return replace(facts, **{part: document})


@pytest.mark.parametrize("facts", [engine_facts, comfyui_facts])
def test_an_image_that_is_right_passes(facts: Callable[[], ImageFacts]) -> None:
    verification = verify(facts())
    assert verification.problems == []
    assert verification.ok
    assert [result.name for result in verification.results] == sorted(check.name for check in CHECKS)


@pytest.mark.parametrize(
    ("keys", "value", "problem"),
    [
        (("packages",), [["nvidia-cublas-cu12", "12.4"]], "cuda: CUDA packages: nvidia-cublas-cu12"),
        (("packages",), [["Triton", "3.1"]], "cuda: CUDA packages: Triton"),
        (("cuda_files",), ["/x/libcudart.so.12"], "cuda: CUDA libraries: /x/libcudart.so.12"),
        (("torch",), {"version": "2.5.0", "cuda": "12.4"}, "torch: torch 2.5.0 is built for CUDA 12.4"),
        (("torch",), {"problem": "no libgomp"}, "torch: torch cannot be imported: no libgomp"),
        (("models",), {}, "models: small-model: small/model.onnx is missing"),
        (
            ("models", "small/model.onnx", "sha256"),
            "c" * 64,
            "models: small-model: small/model.onnx has sha256 cccccccccccc… instead of aaaaaaaaaaaa…",
        ),
        (("models", "small/model.onnx", "size"), 1, "models: small-model: small/model.onnx has sha256 "),
        (("nodes", "known"), ["LoadImage"], "nodes: cutout: missing SmallNode (not installed)"),
        (("nodes", "problem"), "ImportError: x", "nodes: the node classes cannot be loaded: ImportError: x"),
        (("nodes", "broken"), ["small: no numpy"], "nodes: plugin small: no numpy"),
        (
            ("nodes", "workflows", "cutout", "changes"),
            [{"node_id": "2", "class_type": "SmallNode", "input": "provider", "old": "CUDA", "new": "CPU"}],
            "workflows: cutout: node 2 (SmallNode) provider is 'CUDA' still",
        ),
        (
            ("nodes", "workflows", "cutout", "cannot_run"),
            [{"node_id": "2", "class_type": "SmallNode", "reason": "TensorRT"}],
            "workflows: cutout: node 2 (SmallNode) cannot run on a CPU",
        ),
        (("workflows",), {}, "workflows: cutout: it is not in the image"),
        (("workflows", "cutout"), "d" * 64, "workflows: cutout: it is another one than it should be"),
        (("start_script",), None, "start: there is no start script /start.sh"),
        (("uid",), 0, "user: runs as root"),
    ],
)
def test_what_is_wrong_inside_is_named(keys: tuple[str, ...], value: Any, problem: str) -> None:
    (found,) = verify(broken(engine_facts(), "probe", *keys, value=value)).problems
    assert found.startswith(problem)


def test_a_node_class_that_does_not_load_says_why() -> None:
    facts = broken(engine_facts(), "probe", "nodes", "known", value=["LoadImage"])
    facts = broken(facts, "probe", "nodes", "problems", value={"SmallNode": "ImportError: cv2"})
    assert verify(facts).problems == ["nodes: cutout: missing SmallNode (ImportError: cv2)"]


@pytest.mark.parametrize(
    ("keys", "value", "problem"),
    [
        (("start_script",), SCRIPT.replace(" --cpu", ""), "start: /start.sh starts ComfyUI without --cpu"),
        (("processes",), [COMFYUI[:-1]], "start: /start.sh starts ComfyUI without --cpu"),
        (("handler", "path"), "/src/handler.py", "start: /start.sh expects the handler elsewhere than at /src/handler"),
        (("handler", "there"), False, "start: the handler /handler.py is missing"),
        (("comfyui", "classes"), ["LoadImage"], "nodes: cutout: missing SmallNode (not installed)"),
        (("comfyui",), {"problem": "refused"}, "nodes: ComfyUI does not say which node classes it has: refused"),
    ],
)
def test_what_is_wrong_with_a_comfyui_is_named(keys: tuple[str, ...], value: Any, problem: str) -> None:
    (found,) = verify(broken(comfyui_facts(), "probe", *keys, value=value)).problems
    assert found.startswith(problem)


def test_a_comfyui_that_nobody_starts() -> None:
    facts = broken(comfyui_facts(), "probe", "start_script", value="exec python -u /handler.py\n")
    facts = broken(facts, "probe", "processes", value=[])
    assert verify(facts).problems == ["start: no ComfyUI runs in the container"]


@pytest.mark.parametrize("comment", ["# python -u /handler.py", "echo 'it'\\''s /handler.py.bak'"])
def test_a_comment_does_not_start_the_handler(comment: str) -> None:
    script = f"python /comfyui/main.py --cpu &\n{comment}\nexec python -u /other.py\n"
    (found,) = verify(broken(comfyui_facts(), "probe", "start_script", value=script)).problems
    assert found == "start: /start.sh expects the handler elsewhere than at /handler.py"


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        ({"command": ("sleep", "1")}, "start: the image starts sleep 1"),
        ({"command": ()}, "start: the image starts nothing"),
        ({"healthcheck": ()}, "user: has no HEALTHCHECK"),
    ],
)
def test_what_is_wrong_with_the_configuration_is_named(info: dict[str, Any], problem: str) -> None:
    facts = engine_facts()
    assert verify(replace(facts, info=replace(facts.info, **info))).problems == [problem]


@pytest.mark.parametrize(
    ("limit", "most", "problem"),
    [
        ("max_image_mb", 499, "measures: image size: 500.0 MB, over max_image_mb = 499"),
        ("max_start_s", 1, "measures: cold start: 1.5 s, over max_start_s = 1"),
        ("max_job_s", 1.9, "measures: cutout: job time: 2.0 s, over max_job_s = 1.9"),
        ("max_rss_mb", 399, "measures: peak memory: 400.0 MB, over max_rss_mb = 399"),
        ("max_cost_usd", 0.0001, "measures: cutout: cost per job: 0.000200 USD, over max_cost_usd = 0.0001"),
    ],
)
def test_each_limit_that_is_exceeded_is_named(limit: str, most: float, problem: str) -> None:
    assert verify(replace(engine_facts(), limits={limit: most})).problems == [problem]


@pytest.mark.parametrize(
    ("limit", "most"),
    [("max_image_mb", 500), ("max_start_s", 1.5), ("max_job_s", 2), ("max_rss_mb", 400), ("max_cost_usd", 0.0002)],
)
def test_a_limit_that_is_met_exactly_is_met(limit: str, most: float) -> None:
    assert verify(replace(engine_facts(), limits={limit: most})).ok


def test_a_limit_on_what_was_not_measured_is_not_met() -> None:
    facts = replace(engine_facts(), peak_memory_bytes=None)
    assert verify(facts).problems == ["measures: peak memory: not measured, and max_rss_mb is 1000"]
    assert verify(replace(facts, limits={})).ok


def test_without_a_start_nothing_is_said_of_runs() -> None:
    facts = replace(engine_facts(), started=False, runs=(), log="", start_seconds=None, peak_memory_bytes=None)
    assert verify(broken(facts, "probe", "processes", value=[])).ok


def test_a_worker_that_never_was_ready_is_named_with_the_reason() -> None:
    facts = replace(engine_facts(), start_seconds=None, start_problem="it ended: no module named x", runs=(), limits={})
    assert verify(facts).problems == ["runs: the worker never was ready: it ended: no module named x"]


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        (WorkflowRun("cutout", problem="node 2 (SmallNode): boom"), "runs: cutout: node 2 (SmallNode): boom"),
        (
            WorkflowRun("cutout", {"outputs": [PICTURE, {**PICTURE, "problem": "no picture at all"}]}, 1.0),
            "runs: cutout: out.png: no picture at all",
        ),
    ],
)
def test_a_run_that_went_wrong_is_named(run: WorkflowRun, problem: str) -> None:
    assert verify(replace(engine_facts(), runs=(run,))).problems == [problem]


def test_a_stand_in_is_said_to_be_one() -> None:
    run = WorkflowRun("cutout", {"outputs": [PICTURE], "stand_in": True}, 1.0)
    messages = [
        finding.message
        for result in verify(replace(engine_facts(), runs=(run,))).results
        if result.name == "runs"
        for finding in result.findings
    ]
    assert messages == ["cutout: 8x6 PNG (with a STAND-IN for a model)"]


@pytest.mark.parametrize(
    "line", ["AssertionError: Torch not compiled with CUDA enabled", "pthread_setaffinity_np failed"]
)
def test_a_log_that_wants_a_gpu_is_shown(line: str) -> None:
    assert verify(replace(engine_facts(), log=f"ready\n {line}\n")).problems == [f"log: the log says: {line}"]


def test_a_check_that_raises_has_found_something_wrong() -> None:
    def fail(facts: ImageFacts) -> list[Finding]:
        raise KeyError("gone")

    verification = run_checks("image", [ImageCheck("mine", "a check", fail)], engine_facts())
    assert verification.problems == ["mine: the check failed: KeyError: 'gone'"]
    assert verification.to_json()["ok"] is False
