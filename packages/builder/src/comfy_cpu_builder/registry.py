"""What a base image's name stands for: asked of the engine that has it, else of its registry."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING

from comfy_cpu_builder import values
from comfy_cpu_builder.lock import LockedBase
from comfy_cpu_core.errors import BuildError

if TYPE_CHECKING:
    from comfy_cpu_core.image import BuildEngine

__all__ = ["find_base", "registry_digest", "split_name"]

_HUB = "registry-1.docker.io"
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_TIMEOUT_S = 30


def find_base(name: str, engine: BuildEngine | None) -> LockedBase:
    """What an image's name stands for now.

    Args:
        engine: asked first: an image that only it has is known by its id.

    Raises:
        BuildError: neither the engine nor the registry knows the image.
    """
    if "@" in name:
        name, _, digest = name.partition("@")
        return LockedBase(name, digest=digest)
    info = engine.inspect(name) if engine is not None else None
    if info is not None:
        repository = name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
        for known in info.digests:
            place, _, digest = known.partition("@")
            if place in {repository, f"docker.io/{repository}", f"docker.io/library/{repository}"}:
                return LockedBase(name, digest=digest)
        return LockedBase(name, image_id=info.id)
    return LockedBase(name, digest=registry_digest(name))


def registry_digest(name: str) -> str:
    """The digest that a registry has for an image's name.

    Raises:
        BuildError: the registry cannot be reached, refuses, or has no such image.
    """
    host, repository, tag = split_name(name)
    scheme = "http" if host.partition(":")[0] in {"localhost", "127.0.0.1"} else "https"
    url = f"{scheme}://{host}/v2/{repository}/manifests/{tag}"
    try:
        try:
            digest = _head(url, {})
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise
            error.close()
            digest = _head(url, {"Authorization": f"Bearer {_token(error.headers.get('WWW-Authenticate', ''))}"})
    except urllib.error.HTTPError as error:
        error.close()
        problem = "has no such image" if error.code == 404 else f"answered {error.code} {error.reason}"
        raise BuildError(f"base image {name}: {host} {problem}", remedy="check the field base of the spec") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise BuildError(
            f"base image {name}: {host} cannot be reached: {reason}",
            remedy="name the base with its digest (NAME@sha256:…), or pull it first",
        ) from None
    if not values.IMAGE_DIGEST.fullmatch(digest):
        raise BuildError(f"base image {name}: {host} names no digest for it")
    return digest


def split_name(name: str) -> tuple[str, str, str]:
    """An image's name as registry, repository and tag."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        host, path = first, rest
    else:
        host, path = _HUB, name if slash else f"library/{name}"
    repository, colon, tag = path.rpartition(":")
    return (host, repository, tag) if colon else (host, path, "latest")


def _head(url: str, headers: Mapping[str, str]) -> str:
    request = urllib.request.Request(url, method="HEAD", headers={"Accept": _ACCEPT, **headers})  # noqa: S310
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
        return str(answer.headers.get("Docker-Content-Digest", ""))


def _token(challenge: str) -> str:
    """A token for whoever asks: what public images need."""
    parameters = dict(_PARAMETER.findall(challenge))
    realm = parameters.pop("realm", "")
    if not realm.startswith("https://"):
        raise ValueError("it wants a login that is not known here")
    query = urllib.parse.urlencode({k: v for k, v in parameters.items() if k in {"service", "scope"}})
    with urllib.request.urlopen(f"{realm}?{query}", timeout=_TIMEOUT_S) as answer:  # noqa: S310
        document = json.load(answer)
    return str(document.get("token") or document.get("access_token") or "")
