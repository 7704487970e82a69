"""A browser, for the tests of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fake_worker import FakeWorker
    from playwright.sync_api import Browser, Page


# Not for the session: while it is open, no other test in this process could start an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from chromium import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Serve a worker and open its page; in the end nothing may have gone wrong in the browser."""
    from chromium import visit
    from fake_worker import serve

    with ExitStack() as stack:

        def open_page(worker: FakeWorker, **options: Any) -> Page:
            origin = stack.enter_context(serve(worker.app()))
            page: Page = stack.enter_context(visit(browser, origin, **options))
            return page

        yield open_page
