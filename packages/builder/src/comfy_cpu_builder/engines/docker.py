"""Docker, through its command line: it knows contexts, credentials and remote daemons, which its API leaves to others."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from comfy_cpu_builder.engines import NEEDS_NONE
from comfy_cpu_builder.engines.buildlog import BuildLog
from comfy_cpu_builder.engines.process import run, stream
from comfy_cpu_core.errors import BuildError
from comfy_cpu_core.image import (
    BuildEvent,
    BuildRequest,
    CommandOutput,
    ContainerRequest,
    EngineFeatures,
    ImageInfo,
)

__all__ = ["CommandContainer", "DockerEngine", "image_info", "program"]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

#: The first Docker that builds with BuildKit by itself, and knows --link.
_MODERN = 23


def program(name: str, environ: Mapping[str, str]) -> str | None:
    """Where a program is, going by the PATH of `environ`."""
    return shutil.which(name, path=environ.get("PATH"))


class DockerEngine:
    """Docker's command line.

    Args:
        environ: of the programs that are started; DOCKER_HOST, DOCKER_CONTEXT and DOCKER_BUILDKIT count.
    """

    name = "docker"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        self._program = program(self.name, environ) or self.name

    def features(self) -> EngineFeatures:
        """What it can do, asked once.

        Raises:
            BuildError: it is not installed or does not answer.
        """
        return self._features

    @cached_property
    def _features(self) -> EngineFeatures:
        done = self._run("version", "--format", "{{json .}}", check=False)
        if done.code:
            reason = (done.err.strip() or done.out.strip()).splitlines()
            raise BuildError(
                f"{self.name} does not answer: {reason[-1] if reason else f'exit code {done.code}'}",
                remedy=f"start it, or see whether you may use it; {NEEDS_NONE}",
            )
        versions = json.loads(done.out)
        client, server = versions["Client"]["Version"], versions["Server"]["Version"]
        buildkit = self._environ.get("DOCKER_BUILDKIT") != "0"
        if buildkit and _major(client) >= _MODERN:
            # Later clients leave BuildKit to a plugin that need not be installed.
            buildkit = self._run("buildx", "version", check=False).code == 0
        return EngineFeatures(
            version=f"docker {server}",
            builder="buildkit" if buildkit else "classic",
            copy_link=buildkit and _major(server) >= _MODERN and _major(client) >= _MODERN,
        )

    def build(self, request: BuildRequest, on_event: Callable[[BuildEvent], None]) -> str:
        """Build an image; give its id.

        Raises:
            BuildError: a step failed.
        """
        features = self.features()
        with tempfile.TemporaryDirectory(prefix="comfy-cpu-build-") as scratch:
            identity = Path(scratch) / "id"
            command = [self._program, *self._build_command(request, features), "--iidfile", str(identity)]
            code, log = self._stream([*command, str(request.context)], request, on_event)
            if code or not identity.is_file():
                raise _step_failed(log, code, request.log)
            return identity.read_text().strip()

    def _build_command(self, request: BuildRequest, features: EngineFeatures) -> list[str]:
        command = ["build", "--network", request.network]
        if features.builder == "buildkit":
            command += ["--progress", "plain"]
            if _major(features.version.split()[-1]) >= _MODERN:
                command += ["--load", "--provenance=false"]
        if request.platform is not None:
            command += ["--platform", request.platform]
        if request.no_cache:
            command.append("--no-cache")
        for name in sorted(request.build_args):
            command += ["--build-arg", name]  # the value comes from the environment: nobody reads it off the command
        return command

    def _stream(
        self, command: list[str], request: BuildRequest, on_event: Callable[[BuildEvent], None]
    ) -> tuple[int, BuildLog]:
        log = BuildLog()

        def on_line(line: str) -> None:
            if event := log.feed(line):
                on_event(event)

        environ = {**self._environ, **request.build_args}
        environ["DOCKER_BUILDKIT"] = "1" if self.features().builder == "buildkit" else "0"
        return stream(command, environ, request.log, on_line), log

    def inspect(self, image: str) -> ImageInfo | None:
        """What it says of an image; None if it has no such image."""
        done = self._run("image", "inspect", image, check=False)
        if done.code:
            self.features()  # an engine that does not answer is another matter
            return None
        return image_info(json.loads(done.out)[0], self._history(image))

    def _history(self, image: str) -> list[tuple[str, int]]:
        done = self._run("image", "history", "--no-trunc", "--human=false", "--format", "{{json .}}", image)
        rows = [json.loads(line) for line in done.out.splitlines() if line.strip()]
        return [(str(row["CreatedBy"]), int(float(row["Size"] or 0))) for row in reversed(rows)]

    def tag(self, image: str, name: str) -> None:
        """Give an image a name."""
        self._run("tag", image, name)

    def push(self, name: str, on_event: Callable[[BuildEvent], None]) -> str:
        """Push an image; give its digest in the registry.

        Raises:
            BuildError: the registry refuses, or cannot be reached.
        """
        found: list[str] = []
        last = ""

        def on_line(line: str) -> None:
            nonlocal last
            last = line.strip() or last
            if "digest:" in line and (match := _DIGEST.search(line)):
                found.append(match[0])
            on_event(BuildEvent("line", line))

        code = stream([self._program, "push", name], self._environ, None, on_line)
        if code or not found:
            raise BuildError(f"{name} was not pushed: {last or f'exit code {code}'}", remedy=f"`{self.name} login`?")
        return found[-1]

    def start(self, request: ContainerRequest) -> CommandContainer:
        """Start a container in the background, without any rights.

        Raises:
            BuildError: it does not start.
        """
        command = ["run", "--detach", "--network", request.network]
        command += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        if request.read_only:
            command.append("--read-only")
        if request.user is not None:
            command += ["--user", request.user]
        for place in request.scratch:
            command += ["--tmpfs", f"{place}:rw,exec,mode=1777"]
        for source, target in request.mounts:
            command += ["--volume", f"{source}:{target}:ro"]
        for name, value in request.environment.items():
            command += ["--env", f"{name}={value}"]
        done = self._run(*command, request.image, *(request.command or ()))
        return CommandContainer(self._program, self._environ, done.out.strip().splitlines()[-1])

    def _run(self, *arguments: str, check: bool = True) -> CommandOutput:
        try:
            done = run([self._program, *arguments], self._environ)
        except BuildError as error:
            raise BuildError(str(error), remedy=f"install it, and start it; {NEEDS_NONE}") from None
        if check and done.code:
            reason = (done.err.strip() or done.out.strip()).splitlines()
            raise BuildError(
                f"{self.name} {arguments[0]}: {reason[-1] if reason else f'exit code {done.code}'}",
                remedy="the engine's own log may say more",
            )
        return done


class CommandContainer:
    """A container, through an engine's command line."""

    def __init__(self, program: str, environ: Mapping[str, str], identity: str) -> None:
        self._program = program
        self._environ = environ
        self._id = identity

    @property
    def id(self) -> str:
        """The engine's name for it."""
        return self._id

    def execute(self, command: tuple[str, ...], *, data: bytes = b"", timeout_s: float = 60) -> CommandOutput:
        """Run a command in it to its end."""
        return run(
            [self._program, "exec", "--interactive", self._id, *command], self._environ, data=data, timeout_s=timeout_s
        )

    def running(self) -> bool:
        """Whether it still runs."""
        return self._state("{{.State.Running}}") == "true"

    def log(self) -> str:
        """What it has printed so far, stdout and stderr."""
        done = run([self._program, "logs", self._id], self._environ)
        return done.out + done.err

    def stop(self, *, grace_s: float = 10) -> int:
        """Ask it to end (SIGTERM), kill it after `grace_s`; give its exit code."""
        run([self._program, "stop", "--time", str(round(grace_s)), self._id], self._environ, timeout_s=grace_s + 60)
        return int(self._state("{{.State.ExitCode}}") or -1)

    def remove(self) -> None:
        """Remove it, running or not."""
        run([self._program, "rm", "--force", "--volumes", self._id], self._environ)

    def _state(self, template: str) -> str:
        return run([self._program, "inspect", "--format", template, self._id], self._environ).out.strip()


def image_info(document: Mapping[str, Any], history: list[tuple[str, int]]) -> ImageInfo:
    """An ``image inspect`` of Docker or Podman."""
    config = document.get("Config") or {}
    health = tuple((config.get("Healthcheck") or document.get("Healthcheck") or {}).get("Test") or ())
    identity = str(document["Id"])
    return ImageInfo(
        id=identity if identity.startswith("sha256:") else f"sha256:{identity}",
        digests=tuple(document.get("RepoDigests") or ()),
        size=int(document.get("Size") or 0),
        layers=tuple(history),
        layer_digests=tuple((document.get("RootFS") or {}).get("Layers") or ()),
        user=str(config.get("User") or ""),
        command=(*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())),
        environment=dict(entry.partition("=")[::2] for entry in config.get("Env") or ()),
        labels=dict(config.get("Labels") or {}),
        healthcheck=() if health == ("NONE",) else health,
    )


def _step_failed(log: BuildLog, code: int, path: Path) -> BuildError:
    said = " | ".join(line.strip() for line in log.last_lines[-4:])
    step = log.failed_step
    where = f"the build failed at `{step[:160]}`" if step else f"the build failed (exit code {code})"
    return BuildError(f"{where}: {said}" if said else where, remedy=f"the whole log: {path}")


def _major(version: str) -> int:
    digits = re.match(r"\d+", version)
    return int(digits[0]) if digits else 0
