"""The benchmark of an image's size: what it says of a real image, and of the lock that the image was built from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from docker_host import DockerHost
from image_project import TEST_BASE, Project

_BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "image_size.py"


def measure(project: Project, *arguments: str, code: int = 0) -> Any:
    done = subprocess.run(
        [sys.executable, str(_BENCHMARK), *arguments, "--json"],
        check=False,
        capture_output=True,
        text=True,
        cwd=project.folder,
        env={**os.environ, "XDG_CACHE_HOME": str(project.cache), **project.environment},
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_the_packages_explain_what_an_image_adds(docker: DockerHost, engine_project: Project) -> None:
    found = measure(engine_project, "localhost/cutout:1", "--base", TEST_BASE)
    assert {"numpy", "openvino", "pillow"} <= set(found["packages"])
    assert not found["over_bar"]
    assert 0.9 * found["added"] < sum(found["packages"].values()) < 1.1 * found["added"]
    alone = measure(engine_project, "--lock", "comfy-cpu.lock")
    assert 0.9 * alone["added"] < sum(found["packages"].values()) < 1.1 * alone["added"]


def test_a_sum_above_the_bar_is_told_by_the_exit_code(docker: DockerHost, engine_project: Project) -> None:
    arguments = ("localhost/cutout:1", "--base", TEST_BASE, "--bar", "5")
    assert measure(engine_project, *arguments, code=1)["over_bar"]
