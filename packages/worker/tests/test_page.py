"""The page's routes: what they serve, and with which headers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

import comfy_cpu_worker.page
from comfy_cpu_worker.page import CONTENT_SECURITY_POLICY, routes

SOURCE = Path(comfy_cpu_worker.page.__file__).parent
PATHS = [route.path for route in routes()]
SCRIPTS = sorted(SOURCE.glob("*.js"))


@pytest.fixture
def client() -> TestClient:
    return TestClient(Starlette(routes=list(routes())))


def test_every_file_of_the_page_is_served(client: TestClient) -> None:
    assert {"/", "/static/app.js", "/static/style.css"} <= set(PATHS)
    names = {path.name for path in SOURCE.iterdir() if path.suffix in {".js", ".css", ".svg"}}
    assert set(PATHS) == {"/", *(f"/static/{name}" for name in names)}
    for name in names:
        assert client.get(f"/static/{name}").content == (SOURCE / name).read_bytes()


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/static/app.js", "text/javascript; charset=utf-8"),
        ("/static/style.css", "text/css; charset=utf-8"),
        ("/static/icon.svg", "image/svg+xml"),
    ],
)
def test_a_browser_is_told_what_a_file_is(client: TestClient, path: str, media_type: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", PATHS)
def test_nothing_but_this_origin_may_be_loaded(client: TestClient, path: str) -> None:
    policy = client.get(path).headers["content-security-policy"]
    assert policy == CONTENT_SECURITY_POLICY
    assert policy.startswith(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'"
    )
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", PATHS)
def test_a_browser_asks_again_and_is_answered_briefly(client: TestClient, path: str) -> None:
    first = client.get(path)
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    for known in (etag, f'"other", W/{etag}'):
        again = client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert len({client.get(one).headers["etag"] for one in PATHS}) == len(PATHS)


@pytest.mark.parametrize("path", PATHS)
def test_head_gives_the_headers_alone(client: TestClient, path: str) -> None:
    answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(client.get(path).content))


@pytest.mark.parametrize(
    "path",
    [
        "/static/",
        "/static/__init__.py",
        "/static/../__init__.py",
        "/static/%2e%2e/__init__.py",
        "/static/index.html",
        "/app.js",
    ],
)
def test_no_other_file_can_be_named(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_the_page_takes_no_data(client: TestClient) -> None:
    assert client.post("/").status_code == 405


def test_the_html_has_no_script_and_no_style_inside() -> None:
    html = (SOURCE / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\ssrc=)", html) == []
    assert "<style" not in html
    assert re.findall(r"\s(?:on\w+|style)=", html) == []


def test_all_that_the_page_loads_is_served() -> None:
    loaded = set(re.findall(r'(?:src|href)="([^"]+)"', (SOURCE / "index.html").read_text()))
    assert {f"/{name}" for name in loaded} <= set(PATHS)
    for script in SCRIPTS:
        imported = re.findall(r'from "\./([^"]+)"', script.read_text())
        assert {f"/static/{name}" for name in imported} <= set(PATHS), script.name


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_html_or_code_of_text(script: Path) -> None:
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|createContextualFragment|\bstyle\.cssText"
    assert re.findall(ways, script.read_text()) == []


@pytest.mark.parametrize("path", sorted(SOURCE.glob("*.*")), ids=lambda path: path.name)
def test_no_file_names_another_host(path: Path) -> None:
    hosts = set(re.findall(r"https?://[\w.]+", path.read_text()))
    assert hosts <= {"http://www.w3.org"}  # the name of SVG, which nobody visits
