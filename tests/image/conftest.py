"""A Docker daemon, a base image, and one image with the target `engine`, which the tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker_host import DockerHost, docker_host, require_docker
from filelock import FileLock
from image_project import Project, write_spec


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all test workers share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session")
def docker(shared: Path) -> Iterator[DockerHost]:
    """The test run's own Docker daemon."""
    require_docker()
    in_worker = bool(os.environ.get("PYTEST_XDIST_WORKER"))
    host = docker_host(shared, os.getppid() if in_worker else os.getpid())
    yield host
    if not in_worker:
        (host.folder / "stop").touch()


@pytest.fixture(scope="session")
def stand_in_source(stand_in_models: Path) -> Path:
    """The directory that the stand-in of BEN2 comes from."""
    return stand_in_models / "ben2_onnx"


@pytest.fixture(scope="session")
def engine_project(docker: DockerHost, shared: Path, stand_in_source: Path) -> Project:
    """A project whose image was built as ``localhost/cutout:1``, not yet verified."""
    folder = shared / "engine-project"
    project = Project(folder, folder / "cache", docker.environment)
    with FileLock(f"{folder}.lock"):
        if not (folder / "built").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            write_spec(folder, stand_in_source, tag="localhost/cutout:1")
            project.comfy_cpu("lock")
            project.comfy_cpu("build", "--no-verify")
            (folder / "built").touch()
    return project
