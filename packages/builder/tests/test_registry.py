"""Registries and engines, and what they say of a base image."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from comfy_cpu_builder.lock import LockedBase
from comfy_cpu_builder.registry import find_base, registry_digest, split_name
from comfy_cpu_core.errors import BuildError
from comfy_cpu_core.image import ImageInfo

DIGEST = f"sha256:{'a' * 64}"


class Registry:
    """A registry on a loopback port that answers each request for a manifest the same way."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {"Docker-Content-Digest": DIGEST}
        self.asked: list[str] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                registry.asked.append(self.path)
                self.send_response(registry.status)
                for name, value in registry.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Registry()
    yield server
    server.close()


class Engine:
    """An engine that has one image."""

    def __init__(self, info: ImageInfo | None) -> None:
        self._info = info

    def inspect(self, image: str) -> ImageInfo | None:
        return self._info


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("python", ("registry-1.docker.io", "library/python", "latest")),
        ("python:3.11", ("registry-1.docker.io", "library/python", "3.11")),
        ("runpod/worker-comfyui:5", ("registry-1.docker.io", "runpod/worker-comfyui", "5")),
        ("localhost:5000/a/b", ("localhost:5000", "a/b", "latest")),
        ("localhost/a:1", ("localhost", "a", "1")),
        ("registry.example/a:1", ("registry.example", "a", "1")),
    ],
)
def test_an_images_name_has_three_parts(name: str, parts: tuple[str, str, str]) -> None:
    assert split_name(name) == parts


def test_the_registry_is_asked_for_the_digest(registry: Registry) -> None:
    assert registry_digest(f"{registry.host}/me/base:1") == DIGEST
    assert registry.asked == ["/v2/me/base/manifests/1"]


@pytest.mark.parametrize(
    ("status", "headers", "problem"),
    [
        (404, {}, "has no such image"),
        (500, {}, "answered 500 Internal Server Error"),
        (401, {"WWW-Authenticate": 'Bearer realm="http://127.0.0.1/"'}, "it wants a login that is not known here"),
        (401, {}, "it wants a login that is not known here"),
        (200, {}, "names no digest for it"),
        (200, {"Docker-Content-Digest": "sha256:x$(id)"}, "names no digest for it"),
    ],
)
def test_a_registry_that_does_not_help(status: int, headers: dict[str, str], problem: str, registry: Registry) -> None:
    registry.status, registry.headers = status, headers
    with pytest.raises(BuildError, match=f"base image {registry.host}/me/base:1: ") as caught:
        registry_digest(f"{registry.host}/me/base:1")
    assert problem in str(caught.value)


def test_a_registry_that_is_not_there(registry: Registry) -> None:
    name = f"{registry.host}/me/base:1"
    registry.close()
    with pytest.raises(BuildError, match=r"cannot be reached: .*refused") as caught:
        registry_digest(name)
    assert "pull it first" in str(caught.value.remedy)


def test_a_name_with_a_digest_is_not_looked_up() -> None:
    assert find_base(f"python:3.11@{DIGEST}", None) == LockedBase("python:3.11", digest=DIGEST)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("python:3.11", f"python@{DIGEST}"),
        ("python:3.11", f"docker.io/library/python@{DIGEST}"),
        ("me/base", f"docker.io/me/base@{DIGEST}"),
        ("localhost:5000/me/base:1", f"localhost:5000/me/base@{DIGEST}"),
    ],
)
def test_the_engine_knows_an_image_that_it_pulled(name: str, known: str) -> None:
    engine: Any = Engine(ImageInfo("sha256:1", digests=(f"other/base@sha256:{'b' * 64}", known)))
    assert find_base(name, engine) == LockedBase(name, digest=DIGEST)


def test_an_image_that_only_the_engine_has_is_known_by_its_id() -> None:
    engine: Any = Engine(ImageInfo("sha256:1", digests=(f"other/base@{DIGEST}",)))
    assert find_base("me/base:1", engine) == LockedBase("me/base:1", image_id="sha256:1")


def test_what_the_engine_does_not_have_the_registry_is_asked_for(registry: Registry) -> None:
    engine: Any = Engine(None)
    assert find_base(f"{registry.host}/me/base:1", engine).digest == DIGEST
