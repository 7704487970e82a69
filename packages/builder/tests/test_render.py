"""Golden files: run with ``COMFY_CPU_WRITE_GOLDEN=1`` to write them anew, then read the diff."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_builder.lock import Lock, LockedSource
from comfy_cpu_builder.plan import Plan
from comfy_cpu_builder.render import render
from comfy_cpu_builder.spec import ComfyUISettings, WorkerBaseSettings
from comfy_cpu_core.errors import BuildError

GOLDEN = Path(__file__).parent / "golden"


def compare(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("COMFY_CPU_WRITE_GOLDEN") == "1":
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", ["Dockerfile", "image/start.sh", "image/opt/comfy-cpu/sbom.cdx.json"])
def test_the_files_of_an_engine_image(name: str, plan: Plan, lock: Lock) -> None:
    compare(f"engine-{Path(name).name}", render(plan, lock).files[name])


def test_layers_are_linked_where_the_engine_knows_it(plan: Plan, lock: Lock) -> None:
    compare("engine-Dockerfile-link", render(plan, lock, copy_link=True).files["Dockerfile"])


def test_the_same_lock_gives_the_same_files(plan: Plan, lock: Lock) -> None:
    assert render(plan, lock) == render(plan, replace(lock, models=tuple(lock.models)))


def test_every_file_that_the_image_needs_is_there(plan: Plan, lock: Lock) -> None:
    rendered = render(plan, lock)
    assert set(rendered.files) == {
        ".dockerignore",
        "Dockerfile",
        "files/opt/small/note.txt",
        "image/opt/comfy-cpu/healthcheck.py",
        "image/opt/comfy-cpu/image.json",
        "image/opt/comfy-cpu/licences/MIT.txt",
        "image/opt/comfy-cpu/licences/comfy-cpu.txt",
        "image/opt/comfy-cpu/licences/models.txt",
        "image/opt/comfy-cpu/sbom.cdx.json",
        "image/opt/comfy-cpu/workflows/cutout.json",
        "image/start.sh",
        "wheels/requirements.txt",
    }
    assert rendered.executables == {"image/start.sh"}
    prompt = json.loads(rendered.files["image/opt/comfy-cpu/workflows/cutout.json"])
    assert prompt["2"]["inputs"] == {"image": ["1", 0], "provider": "CPU"}


def test_nothing_that_came_from_outside_begins_an_instruction(plan: Plan, lock: Lock) -> None:
    instructions = {"FROM", "COPY", "RUN", "ADD", "ENV", "LABEL", "USER", "WORKDIR", "EXPOSE", "HEALTHCHECK"}
    instructions |= {"STOPSIGNAL", "CMD"}
    for line in render(plan, lock).files["Dockerfile"].splitlines():
        assert not line or line.startswith("#") or line.split()[0] in instructions


def test_a_value_with_a_line_break_is_refused(plan: Plan, lock: Lock) -> None:
    with pytest.raises(BuildError):
        render(replace(plan, environment={"A": "x\nRUN reboot"}), lock)
    with pytest.raises(BuildError):
        render(replace(plan, start_environment={"A": "x\nreboot"}), lock)


def for_target(plan: Plan, target: str, handler: str = "base") -> Plan:
    if target == "comfyui":
        return replace(plan, target=target, comfyui=ComfyUISettings())
    if target == "worker-comfyui":
        return replace(plan, target=target, worker_comfyui=WorkerBaseSettings(handler=handler))  # type: ignore[arg-type]
    return plan


@pytest.mark.parametrize("target", ["comfyui", "worker-comfyui"])
@pytest.mark.parametrize("name", ["Dockerfile", "image/start.sh"])
def test_the_files_of_images_with_a_comfyui(target: str, name: str, plan: Plan, lock: Lock) -> None:
    sources = (LockedSource("a-pack", "https://git.example/owner/a-pack", "1" * 40, "f" * 64, "MIT"),)
    rendered = render(for_target(plan, target), replace(lock, sources=sources))
    compare(f"{target}-{Path(name).name}", rendered.files[name])
    assert rendered.models_root == "/comfyui/models"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize(
    ("target", "handler"),
    [("engine", "base"), ("comfyui", "base"), ("worker-comfyui", "base"), ("worker-comfyui", "comfy-cpu")],
)
def test_shellcheck_has_nothing_to_say(target: str, handler: str, plan: Plan, lock: Lock, tmp_path: Path) -> None:
    script = tmp_path / "start.sh"
    plan = replace(for_target(plan, target, handler), start_arguments=("--preview-method", "it's none"))
    script.write_text(render(plan, lock).files["image/start.sh"])
    # SC2016: a value with a dollar sign in single quotes is meant as it stands.
    command = ["shellcheck", "--exclude=SC2016", str(script)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_takes_cuda_out_knows_the_libraries_that_verify_looks_for() -> None:
    from comfy_cpu_builder.verify import inside

    source = resources.files("comfy_cpu_builder").joinpath("templates", "remove_cuda.py").read_text()
    scope: dict[str, Any] = {"__name__": "remove_cuda"}
    exec(source, scope)
    assert scope["LIBRARY"].pattern == inside.CUDA.pattern
