"""What builds and runs images: Docker, Podman, Buildah, or whatever a plugin brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

__all__ = [
    "BuildEngine",
    "BuildEngineType",
    "BuildEvent",
    "BuildRequest",
    "CommandOutput",
    "Container",
    "ContainerRequest",
    "EngineFeatures",
    "ImageInfo",
]


@dataclass(frozen=True)
class EngineFeatures:
    """What an engine can do.

    Attributes:
        version: what it calls itself, for messages.
        builder: ``buildkit``, ``classic`` or ``buildah``.
        copy_link: whether its Dockerfiles know ``COPY --link``.
        runs_containers: whether it can run what it builds.
    """

    version: str
    builder: Literal["buildkit", "classic", "buildah"]
    copy_link: bool
    runs_containers: bool = True


@dataclass(frozen=True)
class BuildRequest:
    """A build.

    Attributes:
        context: the directory with the Dockerfile.
        log: the file that takes everything that the engine prints.
        network: ``none``, or what the engine calls another.
        platform: ``linux/amd64``; None for the engine's own.
        build_args: proxies and the like, which do not stay in the image. Their values are in no log of ours.
        no_cache: whether to forget what was built before.
    """

    context: Path
    log: Path
    network: str = "none"
    platform: str | None = None
    build_args: Mapping[str, str] = field(default_factory=dict, repr=False)
    no_cache: bool = False


@dataclass(frozen=True)
class BuildEvent:
    """Something that a build says of itself: a step that began, or a line of its output."""

    kind: Literal["step", "line"]
    text: str
    number: int = 0
    total: int = 0


@dataclass(frozen=True)
class ImageInfo:
    """What an engine says of an image.

    Attributes:
        id: ``sha256:…`` of its configuration.
        digests: ``NAME@sha256:…`` under which registries know it.
        size: bytes, uncompressed, its base included.
        layers: (what made it, bytes), the lowest first.
        layer_digests: ``sha256:…`` of each layer's uncompressed archive, the lowest first.
        user, command, environment, labels, healthcheck: of its configuration.
    """

    id: str
    digests: tuple[str, ...] = ()
    size: int = 0
    layers: tuple[tuple[str, int], ...] = ()
    layer_digests: tuple[str, ...] = ()
    user: str = ""
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    healthcheck: tuple[str, ...] = ()


@dataclass(frozen=True)
class CommandOutput:
    """What a command inside a container gave."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class ContainerRequest:
    """A container to start.

    Attributes:
        image: its id or name.
        command: instead of the image's own; None for that.
        environment: added to the image's.
        network: ``none`` but for the loopback interface, or what the engine calls another.
        read_only: whether its root file system is.
        scratch: directories that can be written, in memory.
        mounts: (directory of the host, path in the container), read-only.
        user: instead of the image's own; None for that.
    """

    image: str
    command: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    network: str = "none"
    read_only: bool = True
    scratch: tuple[str, ...] = ("/tmp",)  # noqa: S108 - inside the container
    mounts: tuple[tuple[Path, str], ...] = ()
    user: str | None = None


class Container(Protocol):
    """A container that was started."""

    @property
    def id(self) -> str:
        """The engine's name for it."""

    def execute(self, command: tuple[str, ...], *, data: bytes = b"", timeout_s: float = 60) -> CommandOutput:
        """Run a command in it to its end, with `data` as its input.

        Raises:
            BuildError: the container has ended, or the command did not within `timeout_s`.
        """

    def running(self) -> bool:
        """Whether it still runs."""

    def log(self) -> str:
        """What it has printed so far."""

    def stop(self, *, grace_s: float = 10) -> int:
        """Ask it to end (SIGTERM), kill it after `grace_s`; give its exit code."""

    def remove(self) -> None:
        """Remove it, running or not. May be called twice."""


class BuildEngine(Protocol):
    """Builds, looks at, runs and pushes images. Every method raises `BuildError` where the engine fails."""

    @property
    def name(self) -> str:
        """As in `BuildEngineType`."""

    def features(self) -> EngineFeatures:
        """What it can do, asked once.

        Raises:
            BuildError: it is not installed or does not answer; the remedy says what to do.
        """

    def build(self, request: BuildRequest, on_event: Callable[[BuildEvent], None]) -> str:
        """Build an image; give its id. It has no name yet.

        Raises:
            BuildError: a step failed; the message names it, with its last lines.
        """

    def inspect(self, image: str) -> ImageInfo | None:
        """What it says of an image; None if it has no such image."""

    def tag(self, image: str, name: str) -> None:
        """Give an image a name."""

    def push(self, name: str, on_event: Callable[[BuildEvent], None]) -> str:
        """Push an image to the registry in its name; give the digest that it has there (``sha256:…``)."""

    def start(self, request: ContainerRequest) -> Container:
        """Start a container in the background."""


@dataclass(frozen=True)
class BuildEngineType:
    """A kind of engine that a plugin contributes (hook ``comfy_cpu_build_engines``).

    Attributes:
        name: for ``--engine``: ``docker``.
        open: makes one, out of the environment; starts and asks nothing yet.
        summary: one line for ``--help``.
        rank: which one is taken where none is asked for: the lowest whose program is installed.
        installed: whether its program is there.
    """

    name: str
    open: Callable[[Mapping[str, Any]], BuildEngine]
    summary: str
    rank: int
    installed: Callable[[Mapping[str, Any]], bool]
