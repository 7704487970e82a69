"""The target `worker-comfyui`, built for real on a small stand-in for RunPod's base, and its start script run in it."""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from docker_host import DockerHost
from filelock import FileLock
from image_project import TEST_BASE, Project, write_spec

IMAGE = "localhost/worker:1"
BASE = "localhost/worker-base:1"
SITE = "/opt/venv/lib/python3.11/site-packages"
CLASSES = (
    "LoadImage,NudeNetSafetyChecker,ShowText|pysssss,SmartResizeForModel,BEN2_ONNX_RemoveBg,RestoreOriginalSize,"
    "SaveImageNoMetadata,MaskToImage,PreviewImage"
)
CONFINED = ("--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL")


def pretend_wheel(folder: Path, name: str, version: str) -> None:
    """A wheel with one module that only knows its version, as torch's do."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        module = f"__version__ = {version!r}\nclass version:\n    cuda = None\n"
        wheel.writestr(f"{name}/__init__.py", module)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def pretend_installed(name: str, version: str, *files: str) -> str:
    """An instruction that makes a package look installed, with files of its own."""
    info = f"{SITE}/{name}-{version}.dist-info"
    made = " ".join(f"{SITE}/{file}" for file in files)
    folders = " ".join(sorted({f"{SITE}/{Path(file).parent}" for file in files}))
    record = "\\n".join(
        [
            *(f"{file},," for file in files),
            *(f"{Path(info).name}/{name},," for name in ("RECORD", "METADATA", "INSTALLER")),
        ]
    )
    return (
        f"RUN mkdir -p {info} {folders} && touch {made} && printf 'Metadata-Version: 2.1\\nName: {name}\\n"
        f"Version: {version}\\n' > {info}/METADATA && printf '{record}\\n' > {info}/RECORD && echo pip > {info}/INSTALLER"
    )


def build_base(docker: DockerHost, folder: Path) -> None:
    """RunPod's layout: a venv with CUDA torch, ComfyUI, a handler, a manager, a CUDA toolkit."""
    folder.mkdir()
    for name in ("main.py", "handler.py"):
        shutil.copy(Path(__file__).parents[1] / "support" / "worker_base" / name, folder)
    (folder / "Dockerfile").write_text(
        "\n".join(
            [
                f"FROM {TEST_BASE}",
                "RUN python3 -m venv --without-pip /opt/venv && mkdir -p /comfyui/custom_nodes /comfyui/models",
                pretend_installed("torch", "2.5.0+cu124", "torch/__init__.py", "torch/lib/libtorch_cuda.so"),
                pretend_installed("nvidia_cublas_cu12", "12.4.5.8", "nvidia/cublas/lib/libcublas.so.12"),
                pretend_installed("filelock", "3.20.0", "filelock.py"),
                (
                    "RUN mkdir -p /usr/local/cuda-12.4/lib64 && touch /usr/local/cuda-12.4/lib64/libcudart.so.12.4.99"
                    " && ln -s cuda-12.4 /usr/local/cuda"
                ),
                (
                    "RUN printf '#!/bin/sh\\necho manager: $1\\nexit ${MANAGER_EXIT:-0}\\n' > /usr/local/bin/comfy-manager-set-mode"
                    " && chmod +x /usr/local/bin/comfy-manager-set-mode && touch /comfyui/folder_paths.py"
                ),
                "COPY main.py /comfyui/main.py",
                "COPY handler.py /handler.py",
            ]
        )
    )
    docker.docker("build", "--quiet", "--network", "none", "--tag", BASE, str(folder))


@pytest.fixture(scope="session")
def worker_project(docker: DockerHost, shared: Path, stand_in_source: Path) -> Project:
    """A project whose image was built as ``localhost/worker:1``."""
    folder = shared / "worker-project"
    project = Project(folder, folder / "cache", docker.environment)
    with FileLock(f"{folder}.lock"):
        if not (folder / "built").exists():
            shutil.rmtree(folder, ignore_errors=True)
            wheels = folder / "wheels"
            wheels.mkdir(parents=True)
            for name, version in (("torch", "2.5.0+cpu"), ("torchvision", "0.20.0+cpu"), ("torchaudio", "2.5.0+cpu")):
                pretend_wheel(wheels, name, version)
            build_base(docker, folder / "base")
            extra = f'target = "worker-comfyui"\nenvironment = {{ STAND_IN_CLASSES = "{CLASSES}" }}'
            write_spec(folder, stand_in_source, base=BASE, tag=IMAGE, extra=extra)
            project.comfy_cpu("lock", "--find-links", wheels)
            project.comfy_cpu("build", "--no-verify")
            (folder / "built").touch()
    return project


def run(docker: DockerHost, *options: str) -> str:
    return docker.docker("run", "--detach", *CONFINED, *options, IMAGE).strip()


def wait_for(docker: DockerHost, container: str, *texts: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        log = docker.logs(container)
        if all(text in log for text in texts):
            return log
        time.sleep(0.1)
    raise AssertionError(f"{texts} not in the log:\n{log}")


def ended(docker: DockerHost, container: str) -> tuple[int, str]:
    code = int(docker.docker("wait", container))
    log = docker.logs(container)
    docker.docker("rm", container)
    return code, log


def argument_lists(log: str) -> dict[str, Any]:
    found = {}
    for line in log.splitlines():
        for name in ("comfyui", "handler"):
            if line.startswith(f"{name}: ["):
                found[name] = json.loads(line.partition(": ")[2].partition(" preload:")[0])
    return found


def test_cuda_is_gone_and_torch_is_for_cpus(docker: DockerHost, worker_project: Project) -> None:
    program = "import torch; print(torch.__version__)"
    inside = docker.docker("run", "--rm", *CONFINED, IMAGE, "/opt/venv/bin/python3", "-c", program)
    assert inside.strip() == "2.5.0+cpu"
    find = "find / -xdev -name '*cuda*' 2>/dev/null || true"
    left = docker.docker("run", "--rm", *CONFINED, "--user", "0", IMAGE, "sh", "-c", find)
    assert "libcudart" not in left
    assert "/usr/local/cuda" not in left
    listed = docker.docker("run", "--rm", *CONFINED, IMAGE, "ls", SITE)
    assert "nvidia_cublas" not in listed
    assert "torch-2.5.0+cu124" not in listed


def test_what_the_base_brings_keeps_its_version(docker: DockerHost, worker_project: Project) -> None:
    listed = docker.docker("run", "--rm", *CONFINED, IMAGE, "ls", SITE)
    assert "filelock-3.20.0.dist-info" in listed
    assert listed.count("filelock-") == 1


def test_nodes_and_models_are_in_the_comfyui(docker: DockerHost, worker_project: Project) -> None:
    listed = docker.docker("run", "--rm", *CONFINED, IMAGE, "find", "/comfyui", "-type", "f")
    for path in ("custom_nodes/comfy-cpu/__init__.py", "models/ben2_onnx/BEN2_Base.onnx", "models/Nudenet/320n.onnx"):
        assert f"/comfyui/{path}" in listed


def test_the_start_script_behind_runpods_queue(docker: DockerHost, worker_project: Project) -> None:
    container = run(docker, "--env", "HANDLER_EXIT=7", "--env", "COMFY_CPU_THREADS=3")
    log = wait_for(docker, container, "comfyui: [", "handler: [")
    found = argument_lists(log)
    assert found["handler"] == []
    assert found["comfyui"][:6] == [
        "--cpu",
        "--disable-auto-launch",
        "--disable-metadata",
        "--verbose",
        "DEBUG",
        "--log-stdout",
    ]
    assert "--listen" not in found["comfyui"]
    assert "manager: offline" in log
    assert "comfyui threads: 3" in log
    assert "preload: \n" in log, "there is no tcmalloc, and nothing is preloaded"
    docker.docker("kill", "--signal", "TERM", container)
    code, log = ended(docker, container)
    assert "comfyui: signal 15" in log
    assert "handler: signal 15" in log
    assert code == 7


def test_the_start_script_with_the_local_api(docker: DockerHost, worker_project: Project) -> None:
    container = run(
        docker, "--env", "SERVE_API_LOCALLY=true", "--env", "COMFY_LOG_LEVEL=INFO", "--env", "MANAGER_EXIT=1"
    )
    log = wait_for(docker, container, "comfyui: [", "handler: [")
    found = argument_lists(log)
    assert found["handler"] == ["--rp_serve_api", "--rp_api_host=0.0.0.0"]
    assert "--listen" in found["comfyui"]
    assert found["comfyui"][found["comfyui"].index("--verbose") + 1] == "INFO"
    assert "could not be set to offline" in log, "a manager that fails is a warning only"
    docker.docker("rm", "--force", container)


def test_an_end_of_comfyui_ends_the_container(docker: DockerHost, worker_project: Project) -> None:
    code, log = ended(docker, run(docker, "--env", "COMFYUI_DIES=9"))
    assert code == 9
    assert "ComfyUI ended with exit code 9" in log
    assert "handler: signal 15" in log


def test_the_handlers_exit_code_is_the_containers(docker: DockerHost, worker_project: Project) -> None:
    code, log = ended(docker, run(docker, "--env", "HANDLER_DIES=5"))
    assert code == 5
    assert "comfyui: signal 15" in log


def test_it_verifies(docker: DockerHost, worker_project: Project) -> None:
    answer = worker_project.json("verify", IMAGE, "--spec", "comfy-cpu.toml")
    assert answer["ok"], answer
    found = {check["name"]: [f["message"] for f in check["findings"]] for check in answer["checks"]}
    assert "ComfyUI starts with --cpu" in found["start"]
    assert "the handler /handler.py is where the start script expects it" in found["start"]
    assert found["torch"] == ["torch 2.5.0+cpu"]


@pytest.mark.parametrize(
    ("instruction", "problem"),
    [
        ("RUN sed -i 's/ --cpu / /' /start.sh", "start: /start.sh starts ComfyUI without --cpu"),
        ("RUN mv /handler.py /other.py", "start: the handler /handler.py is missing"),
        ("RUN sed -i 's#/handler.py#/src/handler.py#' /start.sh", "start: /start.sh expects the handler elsewhere"),
        (f"RUN printf 'class version:\\n    cuda = \"12.4\"\\n__version__ = \"2.5.0\"\\n' > {SITE}/torch/__init__.py",
         "torch: torch 2.5.0 is built for CUDA 12.4"),
    ],
)  # fmt: skip
def test_what_is_broken_is_named(instruction: str, problem: str, docker: DockerHost, worker_project: Project) -> None:
    broken = docker.derive(IMAGE, "USER 0", instruction, "USER 10001")
    answer = worker_project.json("verify", broken, "--spec", "comfy-cpu.toml", "--no-start", code=5)
    assert any(problem in found for found in answer["problems"]), answer["problems"]


def test_a_class_that_the_comfyui_lacks_is_named(docker: DockerHost, worker_project: Project) -> None:
    broken = docker.derive(IMAGE, "ENV STAND_IN_CLASSES=LoadImage")
    answer = worker_project.json("verify", broken, code=5)
    assert any("nodes: cutout: missing BEN2_ONNX_RemoveBg" in found for found in answer["problems"])
