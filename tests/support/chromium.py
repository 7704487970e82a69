"""A headless Chromium, and a visit to a page that notes everything a good page never does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["Visit", "chromium", "visit"]

PROGRAM = Path("/usr/bin/chromium")

#: No sandbox, since tests run as root in containers; nothing of Chromium's own goes to the network.
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--no-default-browser-check", "--no-pings",
]  # fmt: skip


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium; skip the test where there is none, unless COMFY_CPU_REQUIRE_CHROMIUM=1."""
    if not PROGRAM.exists():
        reason = f"there is no {PROGRAM}: apt-get install chromium"
        if os.environ.get("COMFY_CPU_REQUIRE_CHROMIUM") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """What happened while a page was open.

    Attributes:
        page: it.
        complaints: errors of scripts, dialogs, what the Content-Security-Policy refused, what the console said.
        foreign: requests that went anywhere but to the page's own origin.
    """

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("console", lambda said: self.complaints.append(f"console: {said.text}"))
        page.on("dialog", self._dialog)
        page.on("request", lambda request: self._request(request.url, origin))

    def _dialog(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, url: str, origin: str) -> None:
        if not url.startswith((f"{origin}/", f"blob:{origin}/", "data:")):
            self.foreign.append(url)


@contextmanager
def visit(browser: Browser, origin: str, *, allowed: str | None = None, **context: Any) -> Iterator[Page]:
    """Open a page, and check in the end that it did nothing that a good page never does.

    Args:
        allowed: a part of the complaints that are expected: the console notes every answer like 401.
        context: options of the browser's context: the viewport, the color scheme, ….
    """
    with browser.new_context(**context) as tab:
        tab.set_default_timeout(20_000)
        page = tab.new_page()
        seen = Visit(page, origin)
        page.goto(origin)
        yield page
        assert [text for text in seen.complaints if allowed is None or allowed not in text] == []
        assert seen.foreign == []
