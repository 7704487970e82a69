"""What a third party's plugin adds to an image, proved in the image; and a registry that gets it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker_host import DockerHost
from filelock import FileLock
from image_project import TEST_BASE, Project
from requires import require

IMAGE = "localhost/example:1"
WORKFLOW = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
    "2": {"class_type": "ExampleTone", "inputs": {"image": ["1", 0], "strength": 0.5, "device": "cuda"}},
    "3": {"class_type": "SaveImageNoMetadata", "inputs": {"images": ["2", 0], "filename_prefix": "tone"}},
    "4": {"class_type": "NudenetModelLoader", "inputs": {"model": "320n.onnx"}},
}
CONFINED = ("--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL")


@pytest.fixture(scope="session")
def example_project(docker: DockerHost, shared: Path) -> Project:
    """A project whose image was built and verified as ``localhost/example:1``."""
    folder = shared / "example-project"
    project = Project(folder, folder / "cache", docker.environment)
    with FileLock(f"{folder}.lock"):
        if not (folder / "built").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (folder / "tone.json").write_text(json.dumps(WORKFLOW))
            (folder / "comfy-cpu.toml").write_text(
                f'base = "{TEST_BASE}"\ntags = ["{IMAGE}"]\nworkflows = ["tone.json"]\n[bake]\nenabled = true\n'
            )
            project.comfy_cpu("lock")
            (folder / "answer.json").write_text(json.dumps(project.json("build")))
            (folder / "built").touch()
    return project


def inside(docker: DockerHost, *command: str) -> str:
    return docker.docker("run", "--rm", *CONFINED, IMAGE, *command)


def test_its_model_is_a_layer(docker: DockerHost, example_project: Project) -> None:
    assert "matrix" in inside(docker, "cat", "/opt/comfy-cpu/models/example/sepia.json")
    history = docker.docker("image", "history", "--no-trunc", "--format", "{{.CreatedBy}}", IMAGE)
    assert history.count("models/example-sepia.tar") == 1


def test_what_it_bakes_is_a_layer_too(docker: DockerHost, example_project: Project) -> None:
    flat = json.loads(inside(docker, "cat", "/opt/comfy-cpu/models/example/sepia-flat.json"))
    assert len(flat) == 9
    manifest = json.loads(inside(docker, "cat", "/opt/comfy-cpu/image.json"))
    (baked,) = manifest["baked"]
    assert (baked["model"], baked["step"]) == ("example-sepia", "flat")


def test_its_image_step_was_carried_out(docker: DockerHost, example_project: Project) -> None:
    assert inside(docker, "printenv", "EXAMPLE_TONE") == "sepia\n"
    assert inside(docker, "cat", "/opt/comfy-cpu/example.txt") == "Made for ExampleTone.\n"


@pytest.mark.parametrize(("options", "value"), [((), "1.0"), (("--env", "EXAMPLE_STRENGTH=0.2"), "0.2")])
def test_its_start_variable_is_set_unless_the_user_sets_it(
    options: tuple[str, ...], value: str, docker: DockerHost, example_project: Project
) -> None:
    container = docker.docker("run", "--detach", *CONFINED, *options, IMAGE).strip()
    try:
        deadline = time.monotonic() + 60
        while True:
            environment = docker.docker("exec", container, "cat", "/proc/1/environ").split("\0")
            if "SERVE_API_LOCALLY=true" in environment:  # the script has made way for the worker
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert f"EXAMPLE_STRENGTH={value}" in environment
        assert [entry for entry in environment if entry.startswith("OMP_NUM_THREADS=")]
    finally:
        docker.docker("rm", "--force", container)


def test_its_check_was_made_before_the_image_got_its_name(docker: DockerHost, example_project: Project) -> None:
    answer = json.loads((example_project.folder / "answer.json").read_text())
    checks = {check["name"]: check for check in answer["verification"]["checks"]}
    assert [finding["message"] for finding in checks["example"]["findings"]] == ["the note is there"]
    broken = docker.derive(IMAGE, "USER 0", "RUN rm /opt/comfy-cpu/example.txt", "USER 10001")
    found = example_project.json("verify", broken, "--no-start", code=5)
    assert "example: /opt/comfy-cpu/example.txt is missing" in found["problems"]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Debian's docker-registry on a port of its own; gives its host and port."""
    program = shutil.which("docker-registry")
    require("DOCKER", there=program is not None, reason="there is no docker-registry here")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {tmp_path}/registry\n"
        f"http:\n  addr: 127.0.0.1:{port}\n"
    )
    log = (tmp_path / "registry.log").open("wb")
    process = subprocess.Popen([str(program), "serve", str(config)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/").close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def layers(registry: str, name: str, reference: str) -> list[Any]:
    accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
    request = urllib.request.Request(f"http://{registry}/v2/{name}/manifests/{reference}", headers=accept)
    with urllib.request.urlopen(request) as answer:
        return [layer["digest"] for layer in json.load(answer)["layers"]]


def test_a_registry_keeps_a_shared_model_once(
    registry: str, docker: DockerHost, example_project: Project, engine_project: Project, tmp_path: Path
) -> None:
    for name in ("tone.json", "comfy-cpu.lock"):
        shutil.copy(example_project.folder / name, tmp_path)
    (tmp_path / "comfy-cpu.toml").write_text(
        f'base = "{TEST_BASE}"\ntags = ["{registry}/tone:1"]\nworkflows = ["tone.json"]\n[bake]\nenabled = true\n'
    )
    project = Project(tmp_path, example_project.cache, example_project.environment)
    answer = project.json("build", "--no-verify", "--push")
    digest = answer["digests"][f"{registry}/tone:1"]
    docker.docker("tag", "localhost/cutout:1", f"{registry}/cutout:1")
    docker.docker("push", f"{registry}/cutout:1")
    # The base is the first layer. The others are models in the order of their names: BEN2's and NudeNet's here,
    # the example's, NudeNet's and what was baked there.
    cutout, tone = layers(registry, "cutout", "1"), layers(registry, "tone", digest)
    assert tone[0] == cutout[0]
    assert tone[2] == cutout[2]
    lookup = f"from comfy_cpu_builder.registry import registry_digest; print(registry_digest('{registry}/tone:1'))"
    done = subprocess.run([sys.executable, "-c", lookup], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == digest
