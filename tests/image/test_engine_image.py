"""The target `engine`, built for real: what is in the image, and what it does."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from docker_host import DockerHost
from image_project import PHOTO, TEST_BASE, WORKFLOW, Project, write_spec

IMAGE = "localhost/cutout:1"
CONFINED = ("--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL")


def inspect(docker: DockerHost, image: str) -> Any:
    return json.loads(docker.docker("image", "inspect", image))[0]


def pixels(result: Any) -> list[tuple[str, str]]:
    """Node and hash of every picture; their names have the time in them."""
    return [(o["node_id"], o["sha256"]) for o in result["outputs"] if o["kind"] == "image"]


def test_it_gives_the_pictures_that_this_process_gives(
    docker: DockerHost, engine_project: Project, tmp_path: Path
) -> None:
    inside = docker.docker(
        "run", *CONFINED, "--volume", f"{PHOTO}:/photo.jpg:ro", IMAGE,
        "comfy-cpu", "run", "/opt/comfy-cpu/workflows/cutout.json", "-i", "1.image=/photo.jpg", "-o", "/tmp/out",
        "--json", "-q",
    )  # fmt: skip
    here = engine_project.json("run", WORKFLOW, "-i", f"1.image={PHOTO}", "-o", tmp_path, "-q")
    assert len(pixels(here)) == 2
    assert pixels(json.loads(inside)) == pixels(here)


def test_it_runs_as_nobody_in_particular(docker: DockerHost, engine_project: Project) -> None:
    assert docker.docker("run", *CONFINED, IMAGE, "id", "-u").strip() == "10001"
    config = inspect(docker, IMAGE)["Config"]
    assert config["Cmd"] == ["/start.sh"]
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert "CUDA_VISIBLE_DEVICES=" in config["Env"]
    assert config["Labels"]["io.github.comfy-cpu.workflow.cutout"].startswith("sha256:")


def test_every_model_is_a_layer_of_its_own(docker: DockerHost, engine_project: Project) -> None:
    history = docker.docker("image", "history", "--no-trunc", "--format", "{{.CreatedBy}}", IMAGE).splitlines()
    assert len([line for line in history if "ben2-base.tar" in line]) == 1
    assert len([line for line in history if "nudenet-320n.tar" in line]) == 1


def test_licences_and_bill_of_materials_travel_along(docker: DockerHost, engine_project: Project) -> None:
    text = docker.docker("run", *CONFINED, IMAGE, "cat", "/opt/comfy-cpu/sbom.cdx.json")
    components = {c["name"]: c for c in json.loads(text)["components"]}
    assert components["nudenet-320n"]["type"] == "machine-learning-model"
    assert "AGPL" in json.dumps(components["nudenet-320n"]["licenses"])
    assert components["numpy"]["hashes"][0]["alg"] == "SHA-256"
    models = docker.docker("run", *CONFINED, IMAGE, "cat", "/opt/comfy-cpu/licences/models.txt")
    assert "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f" in models


def test_this_machines_certificates_do_not_get_in(docker: DockerHost, engine_project: Project) -> None:
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    ours = hashlib.sha256(Path(bundle).read_bytes()).hexdigest()
    inside = docker.docker("run", *CONFINED, IMAGE, "sha256sum", bundle).split()[0]
    assert inside == docker.docker("run", *CONFINED, TEST_BASE, "sha256sum", bundle).split()[0]
    assert inside != ours or not any(Path("/usr/local/share/ca-certificates").glob("*.crt"))


def test_it_adds_less_than_700_mb_to_its_base(docker: DockerHost, engine_project: Project) -> None:
    models = sum(path.stat().st_size for path in engine_project.models.rglob("*.onnx"))
    added = inspect(docker, IMAGE)["Size"] - inspect(docker, TEST_BASE)["Size"] - models
    assert 0 < added < 700_000_000


def test_a_second_build_changes_nothing(docker: DockerHost, engine_project: Project) -> None:
    before = inspect(docker, IMAGE)["Id"]
    assert engine_project.json("build", "--no-verify")["id"] == before


def test_a_changed_workflow_leaves_the_large_layers_alone(
    docker: DockerHost, engine_project: Project, tmp_path: Path, stand_in_source: Path
) -> None:
    spec = write_spec(tmp_path, stand_in_source)
    document = json.loads(WORKFLOW.read_text())
    next(node for node in document["nodes"] if node["id"] == 4)["title"] = "another title"
    (tmp_path / "workflow.json").write_text(json.dumps(document))
    spec.write_text(spec.read_text().replace(str(WORKFLOW), "workflow.json"))
    shutil.copy(engine_project.folder / "comfy-cpu.lock", tmp_path)
    changed = Project(tmp_path, engine_project.cache, engine_project.environment).json("build", "--no-verify")
    before, after = inspect(docker, IMAGE), inspect(docker, changed["id"])
    new = set(after["RootFS"]["Layers"]) - set(before["RootFS"]["Layers"])
    assert 0 < len(new) <= 2
    assert abs(after["Size"] - before["Size"]) < 1_000_000


@pytest.mark.parametrize("builder", ["0", "1"], ids=["classic", "buildkit"])
def test_plain_docker_builds_the_exported_context(
    builder: str, docker: DockerHost, engine_project: Project, tmp_path: Path
) -> None:
    context = tmp_path / "context"
    engine_project.comfy_cpu("build", "--output", context, PATH="/nowhere")
    identity = tmp_path / "id"
    done = subprocess.run(
        ["/usr/bin/docker", "build", "--network", "none", "--iidfile", str(identity), str(context)],
        check=False,
        capture_output=True,
        text=True,
        env={**docker.environment, "DOCKER_BUILDKIT": builder},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    layers = inspect(docker, identity.read_text().strip())["RootFS"]["Layers"]
    shared = inspect(docker, IMAGE)["RootFS"]["Layers"]
    # The base's and the models' layers: the same bytes, whoever builds them.
    assert layers[:3] == shared[:3]


def test_with_the_lock_nothing_is_looked_up(engine_project: Project, tmp_path: Path) -> None:
    """In a network namespace of its own, which has no interface but a loopback that is down."""
    command = [
        "unshare",
        "--net",
        sys.executable,
        "-m",
        "comfy_cpu_core.cli",
        "build",
        "--output",
        tmp_path / "context",
    ]
    environment = {"COMFY_CPU_MODELS": str(engine_project.models), "XDG_CACHE_HOME": str(engine_project.cache)}
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=engine_project.folder,
        env={**os.environ, **environment, "DOCKER_HOST": "unix:///nowhere"},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "context" / "Dockerfile").is_file()


def test_values_reach_the_image_as_they_are(engine_project: Project, tmp_path: Path, stand_in_source: Path) -> None:
    project = Project(tmp_path, engine_project.cache, engine_project.environment)
    spec = write_spec(tmp_path, stand_in_source, extra='environment = { NASTY = "$(touch /pwned) `x` \\\\ ${HOME}" }')
    shutil.copy(engine_project.folder / "comfy-cpu.lock", tmp_path)
    identity = project.json("build", "--no-verify")["id"]
    shown = subprocess.run(
        ["/usr/bin/docker", "run", "--rm", "--network", "none", identity, "printenv", "NASTY"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **engine_project.environment},
    )
    assert shown.stdout == "$(touch /pwned) `x` \\ ${HOME}\n"
    spec.write_text(spec.read_text().replace(TEST_BASE, "localhost/not-there:1"))
    done = project.comfy_cpu("build", "--no-verify", code=5)
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
