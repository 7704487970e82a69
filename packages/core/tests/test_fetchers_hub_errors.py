"""Every way in which the Hub can fail has one clear line; without a network, on exceptions that are made up.

The exceptions have the names that httpx and httpx2 both use; the real ones are raised in tests/contract.
"""

from __future__ import annotations

import ssl
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_cpu_core.errors import HubError
from comfy_cpu_core.fetchers.hub_errors import BodyTooShort, hub_error

SECRET = "X-Amz-Signature=5ec4e7"


def raised(name: str, *parents: str, text: str = f"for url https://cdn/?{SECRET}\nsecond line") -> Exception:
    cls: type[Exception] = Exception
    for parent in reversed(parents):
        cls = type(parent, (cls,), {})
    return type(name, (cls,), {})(text)


def answered(status: int, name: str = "HfHubHTTPError", **headers: str) -> Exception:
    error = raised(name)
    error.response = SimpleNamespace(status_code=status, headers=headers)  # type: ignore[attr-defined]
    return error


def said(error: Exception, *, has_token: bool = False, kept: int | None = None, **changes: Any) -> HubError:
    known: dict[str, Any] = {"repo": "a/b", "what": "model.onnx", "endpoint": "https://user:pass@hub.example:8443/x"}
    found = hub_error(error, **{**known, **changes}, has_token=has_token, kept=kept)
    for text in (str(found), str(found.remedy)):
        assert "\n" not in text
        assert SECRET not in text
        assert "user:pass" not in text
    return found


@pytest.mark.parametrize(
    ("error", "message", "remedy"),
    [
        (raised("OfflineModeIsEnabled"), "HF_HUB_OFFLINE forbids to ask the Hub", "unset HF_HUB_OFFLINE"),
        (raised("HFValidationError"), "'a/b' is not the name of a repository", "write hf:OWNER/NAME"),
        (raised("ProxyError", "NetworkError"), "the proxy on the way to hub.example:8443 failed", "HTTPS_PROXY"),
        (raised("ConnectError", "NetworkError", text="refused"), "cannot reach hub.example:8443: refused", "network"),
        (raised("ReadTimeout", "TimeoutException"), "hub.example:8443 did not answer in time", "try again; HF_HUB"),
        (raised("ReadError", "NetworkError"), "broke off its answer", "try again"),
        (raised("RemoteProtocolError"), "broke off its answer", "try again"),
        (raised("UnsupportedProtocol"), "is not a URL of a Hub", "https://HOST"),
        (raised("InvalidURL"), "is not a URL of a Hub", "https://HOST"),
        (raised("LocalProtocolError"), "cannot be sent as it is", "HF_TOKEN"),
        (raised("JSONDecodeError"), "does not answer as a Hub does (a/b, model.onnx: JSONDecodeError)", "HF_ENDPOINT"),
    ],
)
def test_no_answer(error: Exception, message: str, remedy: str) -> None:
    found = said(error)
    assert message in str(found)
    assert remedy in str(found.remedy)
    assert found.status is None


@pytest.mark.parametrize("error", [raised("ReadError", "NetworkError"), BodyTooShort()])
def test_in_the_middle_of_a_file(error: Exception) -> None:
    found = said(error, kept=1234567)
    assert str(found) == "hub.example:8443 broke off in the middle of model.onnx (a/b), after 1,234,567 bytes"
    assert found.remedy == "what has arrived is kept, and the next fetch goes on there"


def test_gone_in_the_middle_of_a_file() -> None:
    assert "what has arrived is kept" in str(said(raised("ConnectError", "NetworkError"), kept=9).remedy)
    assert "what has arrived is kept" in str(said(raised("ReadTimeout", "TimeoutException"), kept=9).remedy)


def test_tls() -> None:
    error = raised("ConnectError", "NetworkError", text="certificate verify failed")
    error.__cause__ = ssl.SSLError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    found = said(error)
    assert str(found).startswith("no secure connection to hub.example:8443: [SSL: CERTIFICATE_VERIFY_FAILED]")
    assert "SSL_CERT_FILE" in str(found.remedy)


@pytest.mark.parametrize("has_token", [True, False])
def test_the_remedy_knows_whether_there_was_a_token(has_token: bool) -> None:
    refused = said(answered(401), has_token=has_token)
    assert ("HF_TOKEN was sent" in str(refused.remedy)) is has_token
    assert ("set HF_TOKEN to a token" in str(refused.remedy)) is not has_token
    gated = said(answered(403, "GatedRepoError"), has_token=has_token)
    assert ("with the account that HF_TOKEN belongs to" in str(gated.remedy)) is has_token
    assert ("with HF_TOKEN set" in str(said(answered(429), has_token=has_token).remedy)) is not has_token


def test_disabled() -> None:
    assert "a/b was disabled" in str(said(answered(403, "DisabledRepoError")))


@pytest.mark.parametrize(
    ("headers", "remedy"),
    [
        ({"Retry-After": "120"}, "try again in 120 s"),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "try again in Wed, 21 Oct 2026 07:28:00 GMT"),
        ({"RateLimit": '"api";r=0;t=55'}, "try again in 55 s"),
        ({"Retry-After": "<script>"}, "try again later"),
        ({}, "try again later"),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], remedy: str) -> None:
    assert said(answered(429, **headers), has_token=True).remedy == remedy
