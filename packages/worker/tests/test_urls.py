"""What a URL's text alone tells: no sockets."""

from __future__ import annotations

import pytest

from comfy_cpu_worker.errors import UrlRefused
from comfy_cpu_worker.urls import UrlClient, UrlPolicy


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "begins with neither"),
        ("ftp://example.com/a", "begins with neither"),
        ("file:///etc/passwd", "begins with neither"),
        ("javascript:alert(1)", "begins with neither"),
        ("//example.com/a", "begins with neither"),
        ("example.com/a", "begins with neither"),
        ("http:example.com", "host makes no sense"),
        ("http://", "host makes no sense"),
        ("http:///a", "host makes no sense"),
        ("http://user@example.com/", "user or a password"),
        ("http://user:hush@example.com/", "user or a password"),
        ("http://@example.com/", "user or a password"),
        ("http://example.com:hush/", "makes no sense"),
        ("http://example.com:65536/", "makes no sense"),
        ("http://[::1", "makes no sense"),
        ("http://[::1%25eth0]/", "makes no sense"),
        ("http://exa mple.com/", "space, a backslash or a control"),
        ("http://example.com/a b", "space, a backslash or a control"),
        ("http://example.com\\@evil.com/", "space, a backslash or a control"),
        ("http://example.com/\r\nX: y", "space, a backslash or a control"),
        ("http://exam\tple.com/", "space, a backslash or a control"),
        ("\x00http://example.com/", "space, a backslash or a control"),
        ("http://exämple.com/", "host makes no sense"),
        ("http://①②⑦.⓪.⓪.①/", "host makes no sense"),
        ("http://example.com%2f@evil/", "user or a password"),
        ("http://exa%6dple.com/", "host makes no sense"),
        ("http://example.com:22/", "port 22 of example.com is not one"),
        ("https://example.com:8080/", "port 8080 of example.com is not one"),
    ],
)
def test_urls_that_are_refused(url: str, problem: str) -> None:
    with pytest.raises(UrlRefused, match=problem) as caught:
        UrlClient(UrlPolicy()).check(url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com", "HTTPS://Example.COM/a?b=c#d", "https://example.com:443/", "http://example.com:80/",
        "http://example.com./", "https://xn--exmple-cua.com/", "https://example.com/@user", "http://[2606:4700::1111]/",
        "http://example.com:443/", "https://under_score.example.com/",
    ],
)  # fmt: skip
def test_urls_that_are_allowed(url: str) -> None:
    UrlClient(UrlPolicy()).check(url)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("files.example.com", True),
        ("FILES.EXAMPLE.COM.", True),
        ("a.cdn.example", True),
        ("a.b.cdn.example", True),
        ("cdn.example", False),
        ("evilcdn.example", False),
        ("bad.cdn.example", False),
        ("example.com", False),
        ("files.example.com.evil.org", False),
    ],
)
def test_lists_of_hosts(host: str, allowed: bool) -> None:
    policy = UrlPolicy(allow_hosts=("Files.Example.com", "*.cdn.example"), deny_hosts=("bad.cdn.example",))
    if allowed:
        UrlClient(policy).check(f"https://{host}/")
    else:
        with pytest.raises(UrlRefused, match="is not one that this worker goes to"):
            UrlClient(policy).check(f"https://{host}/")


def test_ports() -> None:
    UrlClient(UrlPolicy(allow_private=True)).check("http://minio:9000/")
    UrlClient(UrlPolicy(ports=(9000,))).check("http://minio:9000/")
    for policy in (UrlPolicy(ports=(9000,)), UrlPolicy(ports=(9000,), allow_private=True)):
        with pytest.raises(UrlRefused, match="port 80 of minio"):
            UrlClient(policy).check("http://minio/")
