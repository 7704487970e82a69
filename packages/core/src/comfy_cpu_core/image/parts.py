"""What goes into an image: node packs, steps of the build, parts of the start script."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ImageRequest", "ImageStep", "NodePack", "StartPart"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SOURCE = re.compile(r"https://[A-Za-z0-9.-]+(:[0-9]+)?/[A-Za-z0-9._~/-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{what} {name!r} has other characters than letters, digits, '.', '_' and '-'")


def _check_environment(what: str, environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{what}: {name!r} is no name of an environment variable")
        if not value.isprintable():
            raise ValueError(f"{what}: the value of {name} has characters that cannot be printed")


@dataclass(frozen=True)
class ImageRequest:
    """The image that is being planned, as plugins see it.

    Attributes:
        target: ``engine``, ``comfyui`` or ``worker-comfyui``.
        class_types: the node classes of its workflows.
        models: ids of the models that its workflows need.
        platform: ``linux/amd64``, ….
        python: the version of its Python: ``3.11``.
    """

    target: str
    class_types: frozenset[str]
    models: frozenset[str]
    platform: str = "linux/amd64"
    python: str = "3.11"


@dataclass(frozen=True)
class NodePack:
    """Node classes of somebody else, for an image with a ComfyUI (hook ``comfy_cpu_node_packs``).

    Attributes:
        name: the folder's name in ``custom_nodes``.
        source: a git repository: ``https://HOST/OWNER/NAME``.
        classes: the class_types that it brings.
        licence: an SPDX identifier, or a plain sentence where none fits.
        commit: 40 hexadecimal digits, or None if unresolved: the lock then records the newest.
        requirements: what pip must install for it.
        apt: the Debian packages that it needs.
    """

    name: str
    source: str
    classes: frozenset[str]
    licence: str
    commit: str | None = None
    requirements: tuple[str, ...] = ()
    apt: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_name("node pack", self.name)
        if not _SOURCE.fullmatch(self.source):
            raise ValueError(f"node pack {self.name}: {self.source!r} is not https://HOST/OWNER/NAME")
        if self.commit is not None and not _COMMIT.fullmatch(self.commit):
            raise ValueError(f"node pack {self.name}: commit {self.commit!r} is not 40 hexadecimal digits")


@dataclass(frozen=True)
class ImageStep:
    """Something that must be in an image beside models and nodes (hook ``comfy_cpu_image_steps``).

    Attributes:
        name: what messages call it; steps are carried out in the order of their names.
        requirements: what pip must install. It lands in the lock with its hashes.
        index_urls: where pip looks beside its usual places while the lock is made.
        apt: Debian packages.
        environment: environment variables of the image.
        files: absolute path in the image → its text.
        commands: argument lists that are run as root, once the Python packages are there. No shell sees them.
    """

    name: str
    requirements: tuple[str, ...] = ()
    index_urls: tuple[str, ...] = ()
    apt: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        _check_name("image step", self.name)
        _check_environment(f"image step {self.name}", self.environment)


@dataclass(frozen=True)
class StartPart:
    """What the start script must do beside starting the worker (hook ``comfy_cpu_start_script``).

    Attributes:
        name: what messages call it; parts come in the order of their names.
        environment: variables that are set when the container starts, unless its user has set them.
        arguments: further arguments of what runs the workflows: ``main.py`` of a ComfyUI; the engine takes none.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_name("start part", self.name)
        _check_environment(f"start part {self.name}", self.environment)
