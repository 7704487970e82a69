from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from comfy_cpu_worker.api.answers import error_response
from comfy_cpu_worker.api.app import make_guard
from comfy_cpu_worker.api.security import SECURITY_HEADERS, Guard, SecurityMiddleware
from comfy_cpu_worker.errors import NotAllowed
from comfy_cpu_worker.settings import WorkerSettings

LOCAL = {"host": "127.0.0.1:8000"}


def check(guard: Guard, method: str = "GET", path: str = "/v2/local/health", **headers: str) -> int:
    """The status with which a request is refused; 0 if it is let pass."""
    given = {name.replace("_", "-"): value for name, value in {**LOCAL, **headers}.items()}
    try:
        guard.check(method, path, Headers(given))
    except NotAllowed as error:
        return error.http_status
    return 0


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8000", "localhost", "LOCALHOST:8000", "[::1]:8000", "10.1.2.3:8000", "worker.localhost", "localhost.",
     "mine.example", "mine.example:1234", "worker", "worker:8000"],
)  # fmt: skip
def test_hosts_that_are_allowed(host: str) -> None:
    assert check(Guard(hosts={"mine.example"}), host=host) == 0


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403), ("localhost.evil.example", 403), ("127.0.0.1.evil.example", 403),
        ("", 400), ("127.0.0.1/path", 400), ("user@127.0.0.1", 400), ("127.0.0.1:port", 400), ("[::1", 400),
        ("mine.example.evil", 403), ("127.0.0.1?x", 400), ("127.0.0.1:99999", 400),
    ],
)  # fmt: skip
def test_hosts_that_are_not(host: str, status: int) -> None:
    assert check(Guard(hosts={"mine.example"}), host=host) == status


def test_two_hosts_are_none() -> None:
    raw = [(b"host", b"127.0.0.1"), (b"host", b"evil.example")]
    with pytest.raises(NotAllowed) as caught:
        Guard().check("GET", "/", Headers(raw=raw))
    assert caught.value.http_status == 400


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://127.0.0.1:8000"},
        {"origin": "http://127.0.0.1:8000", "sec_fetch_site": "same-origin"},
        {"host": "localhost", "origin": "http://localhost"},
        {"host": "localhost:80", "origin": "http://localhost"},
        {"host": "localhost", "origin": "https://localhost"},  # a proxy ends TLS
        {"sec_fetch_site": "none"},
    ],
)
def test_a_post_from_the_own_page_or_a_program_is_allowed(headers: dict[str, str]) -> None:
    assert check(Guard(), "POST", **headers) == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:8001"},
        {"origin": "http://localhost:8000"},
        {"origin": "null"},
        {"origin": "http://[::1"},
        {"origin": "file://127.0.0.1:8000"},
        {"origin": ""},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site", "origin": "http://127.0.0.1:8000"},
    ],
)
def test_a_post_from_another_page_is_not(headers: dict[str, str]) -> None:
    assert check(Guard(), "POST", **headers) == 403
    assert check(Guard(), "GET", **headers) == 0  # reading is what the browser itself forbids


@pytest.mark.parametrize("given", ["Bearer right", "bearer right", "Bearer  right "])
def test_the_right_token(given: str) -> None:
    assert check(Guard(token="right"), authorization=given) == 0


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer wrong", "Bearer right2", "right", "Basic right", "Bearer \xe9", "Bearer right right"],
)
def test_a_wrong_token(given: str) -> None:
    guard = Guard(token="right", open_paths={"/ready"})
    assert check(guard, authorization=given) == 401
    assert check(guard, path="/ready", authorization=given) == 0


def test_a_proxy_may_ask_under_another_name_than_the_page() -> None:
    guard = Guard(hosts={"mine.example"})
    assert check(guard, "POST", origin="https://mine.example") == 0
    assert check(guard, "POST", origin="https://mine.example.evil") == 403


def test_two_tokens_are_none() -> None:
    raw = [(b"host", b"127.0.0.1"), (b"authorization", b"Bearer right"), (b"authorization", b"Bearer right")]
    with pytest.raises(NotAllowed):
        Guard(token="right").check("GET", "/", Headers(raw=raw))


def test_the_token_is_in_no_repr_and_no_error() -> None:
    guard = Guard(token="s3cret")
    assert "s3cret" not in repr(guard)
    with pytest.raises(NotAllowed) as caught:
        guard.check("GET", "/", Headers({**LOCAL, "authorization": "Bearer s3cre"}))
    assert "s3cre" not in f"{caught.value} {caught.value.remedy}"


def test_which_hosts_a_worker_answers_to() -> None:
    local = make_guard(WorkerSettings(), ["/"])
    assert check(local, host="worker.example") == 403
    named = make_guard(WorkerSettings(allow_hosts=("Worker.Example",)), ["/"])
    assert check(named, host="worker.example:80") == 0
    assert check(make_guard(WorkerSettings(host="worker.lan", token="t"), ["/"]), host="any.example", path="/") == 0
    remote = make_guard(WorkerSettings(host="0.0.0.0", token="t"), ["/"])
    assert check(remote, host="any.example", path="/") == 0
    assert check(remote, host="any.example") == 401
    careless = make_guard(WorkerSettings(host="0.0.0.0", allow_remote=True), ["/"])
    assert check(careless, host="any.example") == 403
    assert check(careless, host="192.168.1.2:8000") == 0


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/ready", "/healthz", "/openapi.json"])
def test_what_needs_no_token(path: str) -> None:
    assert check(make_guard(WorkerSettings(token="t"), ["/", "/static/app.js"]), path=path) == 0


@pytest.mark.parametrize("path", ["/metrics", "/workflows", "/v2/local/status/x", "/status/x", "/static/", "/static/x"])
def test_what_needs_one(path: str) -> None:
    assert check(make_guard(WorkerSettings(token="t"), ["/", "/static/app.js"]), path=path) == 401


def ask(guard: Guard, answer: PlainTextResponse, **headers: str) -> tuple[int, dict[str, str]]:
    """Send a GET through the middleware; the status and the headers of the answer."""
    sent: list[Any] = []
    scope = {
        "type": "http", "method": "GET", "path": "/x", "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
    }  # fmt: skip

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(SecurityMiddleware(answer, guard, error_response)(scope, receive, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def test_every_answer_carries_the_security_headers() -> None:
    for headers in (LOCAL, {"host": "evil.example"}):
        status, found = ask(Guard(), PlainTextResponse("x"), **headers)
        assert status == (200 if headers is LOCAL else 403)
        assert {name.lower(): value for name, value in SECURITY_HEADERS.items()}.items() <= found.items()


def test_a_route_may_have_its_own() -> None:
    _, found = ask(Guard(), PlainTextResponse("x", headers={"Content-Security-Policy": "default-src 'self'"}), **LOCAL)
    assert found["content-security-policy"] == "default-src 'self'"


def test_a_refusal_says_what_to_send() -> None:
    status, found = ask(Guard(token="t"), PlainTextResponse("x"), **LOCAL)
    assert (status, found["www-authenticate"]) == (401, "Bearer")
