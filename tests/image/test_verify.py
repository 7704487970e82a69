"""``comfy-cpu verify`` on a real image, and on images that are broken in every way that it looks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from docker_host import DockerHost
from image_project import PHOTO, WORKFLOW, Project

IMAGE = "localhost/cutout:1"
SITE = "/opt/comfy-cpu/venv/lib/python3.11/site-packages"
MODELS = "/opt/comfy-cpu/models"
PACKAGE = "Metadata-Version: 2.1\\nName: nvidia-cublas-cu12\\nVersion: 12.4.5.8\\n"


def test_the_image_passes_and_a_job_gives_the_picture_that_this_process_gives(
    engine_project: Project, tmp_path: Path
) -> None:
    answer = engine_project.json("verify", IMAGE, "--spec", "comfy-cpu.toml")
    assert answer["ok"], answer["problems"]
    (run,) = answer["runs"]
    here = engine_project.json("run", WORKFLOW, "-i", f"1.image={PHOTO}", "-o", tmp_path, "-q")
    pictures = {output["node_id"]: output["sha256"] for output in here["outputs"] if output["folder"] == "output"}
    assert [(p["node_id"], p["sha256"]) for p in run["result"]["outputs"]] == [("6", pictures["6"])]
    assert answer["start_seconds"] > 0
    assert answer["peak_memory_bytes"] > 50_000_000


@pytest.mark.parametrize(
    ("instruction", "problem"),
    [
        (
            (f"RUN mkdir {SITE}/nvidia_cublas_cu12-12.4.5.8.dist-info"
            f" && printf '{PACKAGE}' > {SITE}/nvidia_cublas_cu12-12.4.5.8.dist-info/METADATA"),
            "cuda: CUDA packages: nvidia-cublas-cu12",
        ),
        (
            "RUN mkdir -m 700 /srv/hidden && touch /srv/hidden/libcudart-a1b2c3.so.12",
            "cuda: CUDA libraries: /srv/hidden/libcudart-a1b2c3.so.12",
        ),
        (f"RUN rm {MODELS}/ben2_onnx/BEN2_Base.onnx", "models: ben2-base: ben2_onnx/BEN2_Base.onnx is missing"),
        (f"RUN printf x >> {MODELS}/Nudenet/320n.onnx", "models: nudenet-320n: Nudenet/320n.onnx has sha256 "),
        (f"RUN rm -r {SITE}/comfy_cpu_nodes-*.dist-info", "nodes: cutout: missing BEN2_ONNX_RemoveBg (not installed)"),
        (
            "RUN sed -i 's/\"provider\": \"CPU\"/\"provider\": \"CUDA\"/' /opt/comfy-cpu/workflows/cutout.json",
            "node 4 (BEN2_ONNX_RemoveBg) provider is 'CUDA' still",
        ),
        ("RUN rm /opt/comfy-cpu/workflows/cutout.json", "workflows: cutout: it is not in the image"),
        ("RUN rm /start.sh", "start: there is no start script /start.sh"),
        ("CMD sleep 1", "start: the image starts "),
        ("USER 0", "user: runs as root"),
        ("HEALTHCHECK NONE", "user: has no HEALTHCHECK"),
    ],
)  # fmt: skip
def test_what_is_broken_is_named(instruction: str, problem: str, docker: DockerHost, engine_project: Project) -> None:
    user = () if instruction.startswith("USER") else ("USER 10001",)
    broken = docker.derive(IMAGE, "USER 0", instruction, *user)
    answer = engine_project.json("verify", broken, "--spec", "comfy-cpu.toml", "--no-start", code=5)
    assert any(problem in found for found in answer["problems"]), answer["problems"]


def test_a_limit_that_is_exceeded_is_named(engine_project: Project, tmp_path: Path) -> None:
    limits = "\n[limits]\nmax_image_mb = 5\n"
    text = (engine_project.folder / "comfy-cpu.toml").read_text() + limits
    spec = tmp_path / "comfy-cpu.toml"
    spec.write_text(text)
    answer = engine_project.json("verify", IMAGE, "--spec", spec, "--no-start", code=5)
    assert [found.partition(",")[2] for found in answer["problems"]] == [" over max_image_mb = 5"]


def test_an_image_that_cannot_start(docker: DockerHost, engine_project: Project) -> None:
    broken = docker.derive(IMAGE, "USER 0", f"RUN rm -r {SITE}/comfy_cpu_worker", "USER 10001")
    answer = engine_project.json("verify", broken, code=5)
    (problem,) = [found for found in answer["problems"] if found.startswith("runs: ")]
    assert "the worker never was ready: it ended: " in problem


def test_what_is_no_image_of_ours(engine_project: Project) -> None:
    done = engine_project.comfy_cpu("verify", "localhost/comfy-cpu-test-base:1", code=5)
    assert "is no image of comfy-cpu" in done.stderr
    done = engine_project.comfy_cpu("verify", "localhost/nothing:1", code=5)
    assert "there is no image localhost/nothing:1" in done.stderr
    assert json.dumps("Traceback") not in done.stderr
