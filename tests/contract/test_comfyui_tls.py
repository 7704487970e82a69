"""The way to a ComfyUI: https with certificates of one's own, and proxies."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from fake_comfyui import FakeComfyUI
from proxy_server import ProxyServer

from comfy_cpu_client import Client
from comfy_cpu_client.errors import TargetUnreachable
from comfy_cpu_core.errors import UsageError
from comfy_cpu_core.results import Progress

PROMPT = {
    "1": {"class_type": "Steps", "inputs": {"count": 3}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def secure(authority: Authority, tmp_path: Path) -> Iterator[FakeComfyUI]:
    with FakeComfyUI(tmp_path / "secure", tls=authority.server) as server:
        yield server


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[FakeComfyUI]:
    with FakeComfyUI(tmp_path / "plain") as server:
        yield server


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def works(target: str, **options: Any) -> None:
    """A run completes, and the websocket told of it."""
    events: list[Progress] = []
    with Client(target, **options) as client:
        assert client.run(PROMPT, on_event=events.append).ok
    assert [event.kind for event in events if event.node_id == "1"] == ["started", "step", "step", "step", "finished"]


def test_certificates_of_one_s_own(secure: FakeComfyUI, authority: Authority) -> None:
    assert secure.target.startswith("comfyui+https://")
    works(secure.target, verify=authority.bundle)


def test_certificates_that_the_environment_names(
    secure: FakeComfyUI, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.bundle))
    works(secure.target)


def test_any_certificate(secure: FakeComfyUI) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unverified HTTPS request")
        works(secure.target, verify=False)


def test_a_certificate_that_is_not_trusted(secure: FakeComfyUI) -> None:
    with (
        Client(secure.target) as client,
        pytest.raises(TargetUnreachable, match="its certificate is not trusted") as caught,
    ):
        client.run(PROMPT)
    assert not caught.value.sent


def test_certificates_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no CA certificates at"):
        Client("comfyui+https://127.0.0.1:9", verify=tmp_path / "gone.pem")
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    with pytest.raises(UsageError, match=r"the CA certificates in .*empty\.pem cannot be read"):
        Client("comfyui+https://127.0.0.1:9", verify=empty)


@pytest.mark.parametrize("login", [None, "mona:hunter2"])
def test_a_proxy(plain: FakeComfyUI, secure: FakeComfyUI, authority: Authority, login: str | None) -> None:
    with ProxyServer(login) as proxy:
        works(plain.target, proxy=proxy.url)
        assert f"CONNECT 127.0.0.1:{plain.port} HTTP/1.1" in proxy.asked, "the websocket"
        assert any(line.startswith(f"GET {plain.url}/") for line in proxy.asked)
        proxy.asked.clear()
        works(secure.target, proxy=proxy.url, verify=authority.bundle)
        assert {line.split()[0] for line in proxy.asked} == {"CONNECT"}


def test_the_environment_s_proxy(plain: FakeComfyUI, monkeypatch: pytest.MonkeyPatch) -> None:
    with ProxyServer() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        works(plain.target)
        assert proxy.asked
        proxy.asked.clear()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        plain.clear_cache()
        works(plain.target)
        assert proxy.asked == []
        monkeypatch.delenv("no_proxy")
        plain.clear_cache()
        works(plain.target, proxy=False)
        assert proxy.asked == []


def test_a_proxy_that_is_not_there_shows_no_password(plain: FakeComfyUI) -> None:
    with (
        Client(plain.target, proxy="http://mona:hunter2@127.0.0.1:9") as client,
        pytest.raises(TargetUnreachable) as caught,
    ):
        client.run(PROMPT)
    assert not caught.value.sent
    assert "hunter2" not in f"{caught.value} {caught.value.remedy}"
    assert plain.seen == []
