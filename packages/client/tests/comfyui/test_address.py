from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_client.comfyui.address import Address, Settings
from comfy_cpu_core.errors import UsageError


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("comfyui+http://localhost:8188", "http://localhost:8188"),
        ("comfyui+https://example.org/", "https://example.org"),
        ("comfyui+https://example.org/a/comfy/", "https://example.org/a/comfy"),
        ("comfyui+http://[::1]:8188", "http://[::1]:8188"),
    ],
)
def test_an_address(name: str, url: str) -> None:
    address = Address.parse(name)
    assert address == Address(url)
    assert address.at("/view", {"filename": "a b&c.png"}) == f"{url}/view?filename=a+b%26c.png"
    assert address.websocket("me") == f"{url.replace('http', 'ws', 1)}/ws?clientId=me"


def test_user_and_password_are_sent_and_not_shown() -> None:
    address = Address.parse("comfyui+https://mona:p%40ss%3Aword@example.org")
    assert address.url == "https://example.org"
    assert address.headers == {"Authorization": f"Basic {base64.b64encode(b'mona:p@ss:word').decode()}"}
    assert "mona" not in repr(address)


def test_a_token() -> None:
    address = Address.parse("comfyui+https://example.org", "s3cret")
    assert address.headers == {"Authorization": "Bearer s3cret"}
    assert "s3cret" not in repr(address) + repr(Settings(token="s3cret", proxy="http://mona:pw@proxy"))
    assert "mona" not in repr(Settings(proxy="http://mona:pw@proxy"))


@pytest.mark.parametrize(
    "name",
    [
        "comfyui+http://",
        "comfyui+http:hunter2",
        "comfyui+http://hunter2@host:port",
        "comfyui+http://host:99999/?token=hunter2",
        "comfyui+http://host/?token=hunter2",
        "comfyui+http://host/#hunter2",
        "comfyui+http://[hunter2",
    ],
)
def test_what_is_no_address(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        Address.parse(name)
    assert "hunter2" not in str(caught.value)
    assert "comfyui+http" in str(caught.value.remedy)


def test_a_token_and_a_user_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="both a token and a user"):
        Address.parse("comfyui+http://mona@host", "token")


@given(st.text())
def test_any_text_is_an_address_or_an_error_of_ours(text: str) -> None:
    try:
        address = Address.parse(f"comfyui+http://{text}")
    except UsageError:
        return
    assert address.url.startswith("http://")
    assert "@" not in address.url.removeprefix("http://").partition("/")[0]


def test_options() -> None:
    assert Settings.of({"token": "t", "patience_s": 3}) == Settings(token="t", patience_s=3)
    with pytest.raises(UsageError, match=r"no option 'models'; it has .*patience_s"):
        Settings.of({"models": "x"})
