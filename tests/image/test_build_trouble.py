"""`comfy-cpu build` with a real Docker that is stopped, fails at a step, or is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from docker_host import DockerHost
from image_lock import adapt_lock
from image_project import TEST_BASE, Project, write_spec


@pytest.fixture
def trouble_project(docker: DockerHost, engine_project: Project, tmp_path: Path, stand_in_source: Path) -> Project:
    """The engine's project under another name, with its lock and its caches."""
    write_spec(tmp_path, stand_in_source, tag="localhost/trouble:1")
    (tmp_path / "comfy-cpu.lock").write_bytes((engine_project.folder / "comfy-cpu.lock").read_bytes())
    return Project(tmp_path, engine_project.cache, engine_project.environment)


def images(docker: DockerHost, name: str) -> list[str]:
    return docker.docker("image", "ls", "--quiet", name).split()


def test_docker_that_is_stopped(trouble_project: Project, tmp_path: Path) -> None:
    done = trouble_project.comfy_cpu("build", code=5, DOCKER_HOST=f"unix://{tmp_path}/docker.sock")
    assert "error: docker does not answer: " in done.stderr
    assert "start it" in done.stderr
    assert "--output DIR" in done.stderr
    trouble_project.comfy_cpu("build", "--output", tmp_path / "out", DOCKER_HOST=f"unix://{tmp_path}/docker.sock")
    assert (tmp_path / "out" / "Dockerfile").is_file()


def test_a_step_that_fails_is_named_with_its_last_lines(
    docker: DockerHost, trouble_project: Project, engine_project: Project, stand_in_source: Path
) -> None:
    base = "localhost/comfy-cpu-broken-base:1"
    identity = docker.derive(
        TEST_BASE, "RUN printf '#!/bin/sh\\necho no venv today >&2\\nexit 3\\n' > /usr/bin/python3"
    )
    docker.docker("tag", identity, base)
    spec = write_spec(trouble_project.folder, stand_in_source, base=base, tag="localhost/trouble:broken")
    adapt_lock(engine_project.folder / "comfy-cpu.lock", spec, identity)
    done = trouble_project.comfy_cpu("build", code=5)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: the build failed at `RUN ")
    assert "no venv today" in line
    assert len(line) < 1500
    assert "no venv today" in (trouble_project.folder / "comfy-cpu-build.log").read_text()
    assert images(docker, "localhost/trouble:broken") == []


def test_an_image_that_fails_its_verification_gets_no_name_and_is_told_as_json(
    docker: DockerHost, trouble_project: Project
) -> None:
    spec = trouble_project.folder / "comfy-cpu.toml"
    spec.write_text(spec.read_text().replace(':1"]', ':large"]') + "\n[limits]\nmax_image_mb = 5\n")
    answer = trouble_project.json("build", code=5)
    assert answer["verification"]["ok"] is False
    assert [found.partition(",")[2] for found in answer["verification"]["problems"]] == [" over max_image_mb = 5"]
    assert answer["id"].startswith("sha256:")
    assert answer["tags"] == []
    assert images(docker, "localhost/trouble:large") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_build_that_is_interrupted_leaves_no_image_under_its_name(
    number: signal.Signals, docker: DockerHost, trouble_project: Project
) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("COMFY_CPU_", "HF_", "DOCKER_"))}
    log = trouble_project.folder / "comfy-cpu-build.log"
    with subprocess.Popen(
        [sys.executable, "-m", "comfy_cpu_core.cli", "build", "--no-verify", "--no-cache"],
        cwd=trouble_project.folder,
        env={
            **clean,
            "COMFY_CPU_MODELS": str(trouble_project.models),
            "XDG_CACHE_HOME": str(trouble_project.cache),
            **trouble_project.environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not (log.is_file() and "--require-hashes" in log.read_text()):  # the step that takes longest is under way
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGKILL: -9}[number]
    assert "Traceback" not in err
    assert images(docker, "localhost/trouble:1") == []
    answer = trouble_project.json("build", "--no-verify")
    assert images(docker, "localhost/trouble:1") == [answer["id"].removeprefix("sha256:")[:12]]
    assert json.loads(docker.docker("image", "inspect", answer["id"]))[0]["Config"]["Cmd"] == ["/start.sh"]
    docker.docker("rmi", "localhost/trouble:1")
