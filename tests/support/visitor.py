"""What a visitor does on the worker's page."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["EXAMPLES", "PHOTO", "drop", "give", "pixels", "press_run", "run"]

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
PHOTO = EXAMPLES / "astronaut.jpg"


def press_run(page: Page) -> None:
    page.get_by_role("button", name="Run", exact=True).click()


def give(page: Page, file: Path = PHOTO, place: int = 0) -> None:
    """Choose a picture for one of the workflow's inputs."""
    page.locator(".slot input").nth(place).set_input_files(file)


def run(page: Page, file: Path = PHOTO) -> None:
    """Choose a picture, press Run and wait for what comes of it."""
    give(page, file)
    press_run(page)
    page.locator(".verdict").wait_for()


def drop(page: Page, selector: str, name: str, media_type: str, data: bytes) -> None:
    """Drop a file, as from a file manager."""
    transfer = page.evaluate_handle(
        """([name, type, data]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, { type }));
            return transfer;
        }""",
        [name, media_type, base64.b64encode(data).decode()],
    )
    page.dispatch_event(selector, "drop", {"dataTransfer": transfer})


def pixels(page: Page, selector: str) -> dict[str, Any]:
    """Size, and the least and greatest alpha and brightness, of a picture or canvas as the browser has it."""
    found: dict[str, Any] = page.locator(selector).evaluate(
        """async (node) => {
            if (node.decode) await node.decode();
            const [width, height] = [node.naturalWidth ?? node.width, node.naturalHeight ?? node.height];
            const canvas = new OffscreenCanvas(width, height);
            const context = canvas.getContext("2d");
            context.drawImage(node, 0, 0);
            const { data } = context.getImageData(0, 0, width, height);
            const range = (offset) => [...data].filter((_, i) => i % 4 === offset).reduce(
                ([low, high], value) => [Math.min(low, value), Math.max(high, value)], [255, 0]);
            return { size: [width, height], red: range(0), alpha: range(3) };
        }"""
    )
    return found
