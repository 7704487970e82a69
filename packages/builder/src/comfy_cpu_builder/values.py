"""What may stand in a Dockerfile, a start script or a lock: each kind of value has a pattern that it must match in full.

Values come from a spec, from plugins and from indexes; a value that passes here means nothing to a shell or to Docker
but itself. What cannot be held to a pattern (a command's arguments) is quoted where it is written.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

__all__ = [
    "APT_PACKAGE",
    "COMMIT",
    "GIT_SOURCE",
    "IMAGE_DIGEST",
    "IMAGE_NAME",
    "NAME",
    "PACKAGE_VERSION",
    "PLATFORM",
    "PYTHON_VERSION",
    "SHA256",
    "TAG",
    "URL",
    "VARIABLE",
    "WHEEL",
    "is_absolute_path",
    "is_plain_text",
]

_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = rf"(?:{_HOST}(?::[0-9]{{1,5}})?/)?{_COMPONENT}(?:/{_COMPONENT})*"
_IMAGE_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"

#: An image as a Dockerfile's FROM takes it: ``python:3.11-slim``, ``HOST:5000/NAME:TAG``, with or without a digest.
IMAGE_NAME = re.compile(rf"{_REPOSITORY}(?::{_IMAGE_TAG})?(?:@sha256:[0-9a-f]{{64}})?")

#: The name that an image is to have: no digest.
TAG = re.compile(rf"{_REPOSITORY}(?::{_IMAGE_TAG})?")

IMAGE_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
SHA256 = re.compile(r"[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}")

#: A Debian package, with or without a version: ``libgomp1``, ``libgomp1=12.2.0-14``.
APT_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?:=[A-Za-z0-9.+:~-]+)?")

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

#: A file, a folder, a workflow, a step: one component of a path that begins with a letter or a digit.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

PACKAGE_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")
WHEEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*\.whl")

PLATFORM = re.compile(r"linux/(?:amd64|arm64)")
PYTHON_VERSION = re.compile(r"3\.(?:1[1-9]|[2-9][0-9])")
GIT_SOURCE = re.compile(r"https://[A-Za-z0-9.-]+(?::[0-9]{1,5})?/[A-Za-z0-9._~/-]+")
URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(?:/[A-Za-z0-9._~/%+-]*)?")

_PATH = re.compile(r"/[A-Za-z0-9._/+-]*")


def is_absolute_path(text: str) -> bool:
    """Whether a text is an absolute path that needs no quotes anywhere, and does not climb."""
    return bool(_PATH.fullmatch(text)) and ".." not in PurePosixPath(text).parts


def is_plain_text(text: str) -> bool:
    """Whether a text is one line of printable characters, so that quotes are enough to carry it."""
    return text.isprintable()
