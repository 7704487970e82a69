"""Certificates, proxies and ``.netrc`` on the way to an endpoint."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_runpod import KEY, FakeRunPod

from comfy_cpu_client import Client
from comfy_cpu_client.errors import TargetUnreachable
from comfy_cpu_core.errors import UsageError

PROMPT = {"1": {"class_type": "LoadImage", "inputs": {"image": "old.png"}}}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate that nobody knows, and a server's side of it."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return folder / "cert.pem", context


@pytest.fixture
def secure(certificate: tuple[Path, ssl.SSLContext]) -> Iterator[FakeRunPod]:
    with FakeRunPod(tls=certificate[1]) as server:
        yield server


def run(server: FakeRunPod, **options: Any) -> bool:
    with Client("runpod://abc123", api_key=KEY, base_url=server.url, **options) as client:
        return client.run(PROMPT).ok


def test_ones_own_certificates(
    secure: FakeRunPod, certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(secure, verify=certificate[0])
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    assert run(secure)


def test_a_certificate_that_is_not_trusted(secure: FakeRunPod) -> None:
    """Nothing was sent, so that the job cannot run."""
    with pytest.raises(TargetUnreachable, match="its certificate is not trusted"):
        run(secure, patience_s=0.1)
    assert secure.queue.jobs == []


def test_certificates_that_are_not_there(secure: FakeRunPod, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no CA certificates"):
        run(secure, verify=tmp_path / "nothing.pem")


def test_a_proxy_goes_before_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with FakeRunPod() as proxy:
        proxy_url = f"http://user:SECRET@127.0.0.1:{proxy.port}"
        with Client(
            "runpod://abc123", api_key=KEY, base_url="http://127.0.0.1:9/v2", proxy=proxy_url, sync=False
        ) as client:
            assert client.run(PROMPT).ok
            assert "SECRET" not in repr(vars(client._target))
        assert "Proxy-Authorization" in proxy.headers["run"][0]
    with FakeRunPod() as direct:
        assert run(direct, proxy=False)


def test_a_proxy_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        proxy = f"http://user:SECRET@127.0.0.1:{taken.getsockname()[1]}"
        with (
            Client("runpod://abc123", api_key=KEY, base_url="http://127.0.0.1:9/v2", proxy=proxy, patience_s=0.1) as c,
            pytest.raises(TargetUnreachable) as caught,
        ):
            c.run(PROMPT)
    assert not caught.value.sent
    assert "SECRET" not in f"{caught.value}{caught.value.remedy}{caught.value.__cause__}"


def test_netrc_does_not_take_the_place_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password SECRET\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with FakeRunPod() as server:
        assert run(server)
        assert server.headers["run"][0]["Authorization"] == f"Bearer {KEY}"
