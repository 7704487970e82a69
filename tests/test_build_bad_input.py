"""`comfy-cpu plan`, `fetch`, `render` and `build` with what is wrong, missing, full or interrupted: no Docker is needed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from image_lock import write_small_lock
from image_project import Project
from requires import require

PROMPT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
    "2": {"class_type": "BEN2_ONNX_RemoveBg", "inputs": {"image": ["1", 0], "provider": "CPU"}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "cutout"}},
}
#: Large enough to be interrupted in the middle, and sparse.
LARGE = 128 * 1024 * 1024


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with a workflow that needs one model."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "cutout.json").write_text(json.dumps(PROMPT))
    return Project(folder, tmp_path / "cache", {})


def write_spec(project: Project, text: str = "", *, source: str = "file:///nowhere", size: int = 4) -> Path:
    """A spec with the model of the workflow: `size` bytes of nothing."""
    digest = hashlib.sha256()
    for start in range(0, size, 1024 * 1024):
        digest.update(bytes(min(1024 * 1024, size - start)))
    revision = f'revision = "{"1" * 40}"\n' if source.startswith("hf:") else ""
    spec = project.folder / "comfy-cpu.toml"
    spec.write_text(f"""
workflows = ["cutout.json"]
{text}
[[models]]
id = "ben2-base"
source = "{source}"
{revision}licence = "MIT"
files = [{{ path = "BEN2_Base.onnx", target = "ben2_onnx/BEN2_Base.onnx", size = {size}, sha256 = "{digest.hexdigest()}" }}]
""")
    return spec


def locked(project: Project, **fields: Any) -> Path:
    spec = write_spec(project, **fields)
    write_small_lock(spec, project.cache / "comfy-cpu")
    return spec


def large_source(tmp_path: Path, size: int = LARGE) -> str:
    folder = tmp_path / "source"
    folder.mkdir()
    with (folder / "BEN2_Base.onnx").open("wb") as file:
        file.truncate(size)
    return f"file://{folder}"


def error(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize("arguments", [("plan", "--target", "cuda"), ("plan",), ("build",), ("lock",)])
def test_a_target_that_nobody_knows(arguments: tuple[str, ...], project: Project) -> None:
    write_spec(project, "" if "--target" in arguments else 'target = "cuda"')
    done = project.comfy_cpu(*arguments, code=2 if "--target" in arguments else 3)
    assert "there is no target 'cuda'" in error(done)
    assert "engine, comfyui, worker-comfyui" in done.stderr


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("tagz = []", "comfy-cpu.toml: tagz: there is no such field"),
        ('base = "x\\nRUN reboot"', "comfy-cpu.toml: base: "),
        ('apt = ["libgomp1", "x; reboot"]', "comfy-cpu.toml: apt[1]: "),
        ('pip = ["$(reboot)"]', "comfy-cpu.toml: pip[0]: "),
        ('tags = ["a b"]', "comfy-cpu.toml: tags[0]: "),
        ('environment = { "A=B" = "x" }', "comfy-cpu.toml: environment.A=B: "),
        ('environment = { A = "x\\ny" }', "comfy-cpu.toml: environment.A: "),
        ("limits = { max_image_gb = 1 }", "comfy-cpu.toml: limits.max_image_gb: there is no such field"),
        ('limits = { max_image_mb = "big" }', "comfy-cpu.toml: limits.max_image_mb: "),
    ],
)
def test_a_wrong_field_is_named_with_its_path(text: str, where: str, project: Project) -> None:
    write_spec(project, text)
    assert where in error(project.comfy_cpu("plan", code=3))


@pytest.fixture
def refusing_plugin(tmp_path: Path) -> str:
    """The path of a plugin that says of a node that it cannot run on a CPU."""
    folder = tmp_path / "plugin"
    info = folder / "refusing-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: refusing\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[comfy_cpu]\nrefusing = refusing\n")
    (folder / "refusing.py").write_text(
        "from comfy_cpu_core.convert import CannotRun\n"
        "from comfy_cpu_core.hookspecs import hookimpl\n"
        "@hookimpl\n"
        "def comfy_cpu_convert_node(node):\n"
        "    return [CannotRun('it is built for TensorRT')] if node.class_type == 'BEN2_ONNX_RemoveBg' else []\n"
    )
    return f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"


def test_a_workflow_that_cannot_run_on_a_cpu(project: Project, refusing_plugin: str) -> None:
    write_spec(project)
    done = project.comfy_cpu("build", code=3, PYTHONPATH=refusing_plugin)
    assert "node 2 (BEN2_ONNX_RemoveBg) cannot run on a CPU: it is built for TensorRT" in error(done)


@pytest.fixture
def refused() -> Iterator[str]:
    """An address that refuses connections: a port that is taken and not listened to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_a_hub_that_cannot_be_reached(project: Project, refused: str) -> None:
    locked(project, source="hf:OWNER/NAME")
    done = project.comfy_cpu("fetch", code=4, HF_ENDPOINT=refused, HF_HUB_OFFLINE="0", NO_PROXY="*")
    assert error(done) == f"error: cannot reach {refused.removeprefix('http://')}: Connection refused"
    assert "HF_ENDPOINT" in done.stderr
    assert list(project.models.rglob("*.onnx")) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    there = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    require("ROOT", there=there, reason="a small disk can only be mounted as root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_without_room_for_a_model(project: Project, small_disk: Path, tmp_path: Path) -> None:
    size = 5 * 1024 * 1024
    locked(project, source=large_source(tmp_path, size), size=size)
    done = project.comfy_cpu("fetch", code=4, COMFY_CPU_MODELS=str(small_disk))
    assert "model ben2-base needs 5.2 MB more" in error(done)


def test_a_disk_that_is_full_in_the_middle_of_a_fetch(project: Project, tmp_path: Path) -> None:
    """A limit on the size of files, which is found out in the middle of the first that is larger."""
    size = 5 * 1024 * 1024
    locked(project, source=large_source(tmp_path, size), size=size)
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 4096; exec "$@"', "sh", sys.executable, "-m", "comfy_cpu_core.cli", "fetch"],
        check=False,
        capture_output=True,
        text=True,
        cwd=project.folder,
        env={**os.environ, "COMFY_CPU_MODELS": str(project.models), "XDG_CACHE_HOME": str(project.cache)},
    )
    assert done.returncode == 4, done.stderr
    assert "no space left" in error(done).lower()
    model = project.models / "ben2_onnx" / "BEN2_Base.onnx"
    assert not model.exists()
    project.comfy_cpu("fetch")
    assert model.stat().st_size == size


def test_a_disk_that_is_full_in_the_middle_of_a_context(project: Project, small_disk: Path, tmp_path: Path) -> None:
    size = 5 * 1024 * 1024
    locked(project, source=large_source(tmp_path, size), size=size)
    done = project.comfy_cpu("build", "--output", small_disk / "context", code=5)
    assert "no space left for the build context" in error(done)
    assert list(small_disk.iterdir()) == []
    project.comfy_cpu("build", "--output", tmp_path / "context")


def test_without_docker_there_is_output(project: Project, tmp_path: Path) -> None:
    locked(project, source=large_source(tmp_path, 4))
    done = project.comfy_cpu("build", code=5, PATH="/nowhere")
    assert "nothing that builds images is installed" in error(done)
    assert "--output DIR" in done.stderr
    done = project.comfy_cpu("build", "--engine", "docker", code=5, PATH="/nowhere")
    assert "docker is not installed" in error(done)
    assert "--output DIR" in done.stderr
    project.comfy_cpu("build", "--output", tmp_path / "context", PATH="/nowhere")
    assert (tmp_path / "context" / "Dockerfile").is_file()


def start_render(project: Project, context: Path) -> subprocess.Popen[str]:
    """Start writing a context; give the process while it writes the model."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("COMFY_CPU_", "HF_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "comfy_cpu_core.cli", "render", "--output", str(context)],
        cwd=project.folder,
        env={**clean, "COMFY_CPU_MODELS": str(project.models), "XDG_CACHE_HOME": str(project.cache)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(context.parent.glob(f".{context.name}.*.part/models/*.tar")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_context_that_is_interrupted_is_none(number: signal.Signals, project: Project, tmp_path: Path) -> None:
    locked(project, source=large_source(tmp_path), size=LARGE)
    project.comfy_cpu("fetch")
    context = tmp_path / "out" / "context"
    context.parent.mkdir()
    with start_render(project, context) as process:
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    assert "Traceback" not in err
    assert not context.exists()
    project.comfy_cpu("render", "--output", context)
    assert (context / "models" / "ben2-base.tar").stat().st_size > LARGE
    assert [path.name for path in context.parent.iterdir()] == ["context"]
