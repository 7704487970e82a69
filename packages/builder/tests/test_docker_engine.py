"""Docker's command line, played by a script: what is asked of it, and what its answers mean."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_builder.engines import open_engine
from comfy_cpu_builder.engines.docker import DockerEngine, image_info
from comfy_cpu_core.errors import BuildError, UsageError
from comfy_cpu_core.image import BuildEvent, BuildRequest
from comfy_cpu_core.plugins import load_plugins


class FakeDocker:
    """A ``docker`` in a directory of its own that notes down how it is called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers(client="20.10.24", server="20.10.24")

    def answers(self, *, client: str, server: str, buildx: int = 0, build: str = "exit 0") -> None:
        versions = json.dumps({"Client": {"Version": client}, "Server": {"Version": server}})
        script = self.folder / "docker"
        script.write_text(
            f"""#!/bin/sh
echo "$DOCKER_BUILDKIT|$*" >> {self.folder}/calls
case "$1" in
  version) echo '{versions}' ;;
  buildx) exit {buildx} ;;
  build)
    while [ $# -gt 1 ]; do [ "$1" = --iidfile ] && printf sha256:made > "$2"; shift; done
    {build} ;;
esac
"""
        )
        script.chmod(0o755)

    @property
    def environ(self) -> dict[str, str]:
        return {"PATH": f"{self.folder}:{os.environ['PATH']}"}

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def fake(tmp_path: Path) -> FakeDocker:
    folder = tmp_path / "bin"
    folder.mkdir()
    return FakeDocker(folder)


def request(tmp_path: Path, **options: Any) -> BuildRequest:
    return BuildRequest(context=tmp_path, log=tmp_path / "build.log", **options)


def nothing(event: BuildEvent) -> None:
    pass


@pytest.mark.parametrize(
    ("client", "server", "buildx", "builder", "link"),
    [
        ("20.10.24", "20.10.24", 1, "buildkit", False),
        ("28.2.2", "20.10.24", 1, "classic", False),
        ("28.2.2", "28.2.2", 0, "buildkit", True),
        ("28.2.2", "28.2.2", 1, "classic", False),
    ],
)
def test_what_it_can_do(client: str, server: str, buildx: int, builder: str, link: bool, fake: FakeDocker) -> None:
    fake.answers(client=client, server=server, buildx=buildx)
    features = DockerEngine(fake.environ).features()
    assert (features.builder, features.copy_link) == (builder, link)


def test_the_user_may_want_the_classic_builder(fake: FakeDocker, tmp_path: Path) -> None:
    engine = DockerEngine({**fake.environ, "DOCKER_BUILDKIT": "0"})
    assert engine.build(request(tmp_path), nothing) == "sha256:made"
    assert fake.calls[-1].startswith("0|build --network none --iidfile ")


def test_values_of_build_arguments_are_on_no_command_line(fake: FakeDocker, tmp_path: Path) -> None:
    fake.answers(client="20.10", server="20.10", build='echo "the proxy is $HTTP_PROXY"')
    wanted = request(tmp_path, build_args={"HTTP_PROXY": "http://user:secret@proxy:1"}, network="default")
    DockerEngine(fake.environ).build(wanted, nothing)
    assert "--build-arg HTTP_PROXY" in fake.calls[-1]
    assert "secret" not in "".join(fake.calls)
    assert "secret" not in repr(wanted)


def test_a_step_that_fails_is_named_with_its_last_lines(fake: FakeDocker, tmp_path: Path) -> None:
    lines = ["#5 [2/3] RUN make", "#5 0.1 compiling", "#5 0.2 no such file", "#5 ERROR: process failed: exit code: 2"]
    fake.answers(client="20.10", server="20.10", build="".join(f"echo '{line}'; " for line in lines) + "exit 1")
    events: list[BuildEvent] = []
    with pytest.raises(BuildError) as caught:
        DockerEngine(fake.environ).build(request(tmp_path), events.append)
    assert str(caught.value) == "the build failed at `RUN make`: compiling | no such file | exit code: 2"
    assert caught.value.remedy == f"the whole log: {tmp_path / 'build.log'}"
    assert (tmp_path / "build.log").read_text().splitlines() == lines
    assert [event.text for event in events] == ["RUN make", "compiling", "no such file"]


def test_docker_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="docker is not installed") as caught:
        DockerEngine({"PATH": str(tmp_path)}).features()
    assert "--output DIR" in str(caught.value.remedy)


def test_docker_that_is_stopped(fake: FakeDocker) -> None:
    script = fake.folder / "docker"
    script.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon at unix:///x.' >&2\nexit 1\n")
    with pytest.raises(BuildError, match="docker does not answer: Cannot connect to the Docker daemon") as caught:
        DockerEngine(fake.environ).features()
    assert "--output DIR" in str(caught.value.remedy)


def test_an_engine_that_nobody_knows(tmp_path: Path) -> None:
    plugins = load_plugins({})
    with pytest.raises(UsageError, match="no build engine 'kaniko'"):
        open_engine("kaniko", plugins, {})
    with pytest.raises(BuildError, match="nothing that builds images is installed") as caught:
        open_engine(None, plugins, {"PATH": str(tmp_path)})
    assert "--output DIR" in str(caught.value.remedy)


def test_what_it_says_of_an_image() -> None:
    document = {
        "Id": "f" * 64,
        "Size": 5,
        "Config": {"User": "1", "Env": ["A=b=c"], "Cmd": ["/start.sh"], "Healthcheck": {"Test": ["NONE"]}},
        "RootFS": {"Layers": ["sha256:x"]},
    }
    info = image_info(document, [("ADD x", 3)])
    assert info.id == f"sha256:{'f' * 64}"
    assert (info.user, info.environment, info.command, info.healthcheck) == ("1", {"A": "b=c"}, ("/start.sh",), ())
