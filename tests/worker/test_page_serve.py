"""The page in a real browser, against the real worker: ``comfy-cpu serve`` with a stand-in for BEN2."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chromium import visit
from fake_worker import EVIL
from faulty_nodes import one_node
from visitor import EXAMPLES, PHOTO, drop, give, pixels, press_run, run
from worker_server import WorkerServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FACTS = {"primary_subject": "x", "secondary_subjects": [], "nsfw": True, "violence": False}

#: A gate that blocks whatever it is shown.
GATE: dict[str, dict[str, Any]] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photo.jpg"}, "_meta": {"title": "Photo"}},
    "2": {
        "class_type": "ImageSafetyGate",
        "inputs": {
            "image": ["1", 0],
            "json_string": json.dumps(FACTS),
        },
    },
    "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
}


@pytest.fixture(scope="module")
def workflows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workflows")
    real = EXAMPLES / "workflows" / "BG_remove_BEN2_simple_2nd.json"
    (folder / "cut_out.json").write_bytes(real.read_bytes())
    (folder / "gate.json").write_text(json.dumps(GATE))
    (folder / "broken.json").write_text("{")
    return folder


@pytest.fixture(scope="module")
def worker(workflows: Path, stand_in_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerServer]:
    options = ("--workflows", str(workflows), "--models", str(stand_in_models))
    with WorkerServer(tmp_path_factory.mktemp("serve"), *options) as worker:
        yield worker


@pytest.fixture
def page(browser: Browser, worker: WorkerServer) -> Iterator[Page]:
    with visit(browser, address(worker)) as page:
        page.locator(".option").first.wait_for()
        yield page


def address(worker: WorkerServer) -> str:
    return f"http://127.0.0.1:{worker.client.port}"


def choose(page: Page, title: str) -> None:
    page.locator(".option").get_by_text(title, exact=True).click()


def load(page: Page, folder: Path, document: dict[str, Any]) -> None:
    """Choose a workflow of one's own."""
    file = folder / "mine.json"
    file.write_text(json.dumps(document))
    page.get_by_label("Workflow file").set_input_files(file)
    page.locator(".own").get_by_text("mine.json").wait_for()


def test_a_photo_is_cut_out(page: Page, tmp_path: Path) -> None:
    choose(page, "cut out")
    drop(page, ".drop", "astronaut.jpg", "image/jpeg", PHOTO.read_bytes())
    page.locator(".preview").wait_for()
    press_run(page)
    page.get_by_role("heading", name="Done").wait_for()

    after = pixels(page, ".stage .after")
    assert (after["size"], after["alpha"]) == ([512, 512], [0, 255])
    assert pixels(page, ".stage .before")["size"] == [512, 512]
    page.get_by_role("radio", name="Mask").check()
    assert pixels(page, ".cut canvas")["red"] == [0, 255]
    text = page.locator("#result").inner_text()
    assert "Not the real model." in text
    assert "BEN2_ONNX_RemoveBg (node 4) provider CUDA → CPU" in text
    assert "Nothing was checked: this workflow has no safety gate." in text
    assert any(row.startswith("BEN2_ONNX_RemoveBg") for row in page.locator(".times li").all_inner_texts())

    files = {}
    for link in page.locator(".downloads a").all():
        with page.expect_download() as waiting:
            link.click()
        waiting.value.save_as(tmp_path / "file")
        files[waiting.value.suggested_filename] = (tmp_path / "file").read_bytes()
    record = json.loads(files.pop("result.json"))
    assert record["status"] == "completed"
    assert {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} == {
        output["filename"]: output["sha256"] for output in record["outputs"]
    }


def test_a_broken_picture_is_an_error_with_its_node(page: Page, tmp_path: Path) -> None:
    choose(page, "cut out")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no picture")
    run(page, broken)
    verdict = page.locator(".verdict.failed")
    assert "LoadImage (node 1)" in verdict.inner_text()
    assert "broken.jpg" in verdict.inner_text()
    run(page)
    assert page.locator(".verdict.completed").count() == 1, "the next one is none the worse for it"


def test_a_gate_blocks_and_shows_no_picture(page: Page) -> None:
    choose(page, "gate")
    run(page)
    verdict = page.locator(".verdict.blocked")
    assert "Content blocked by safety gate: NSFW content detected" in verdict.inner_text()
    assert "ImageSafetyGate (node 2)" in verdict.inner_text()
    assert page.locator("#result img").count() == 0


def test_a_workflow_of_ones_own_with_evil_names(page: Page, tmp_path: Path) -> None:
    document = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "photo.jpg"}, "_meta": {"title": EVIL}},
        "2": {"class_type": EVIL, "inputs": {"images": ["1", 0]}},
    }
    load(page, tmp_path, document)
    page.locator(".slot").get_by_text(EVIL, exact=True).wait_for()
    run(page)
    assert "<script>" in page.locator(".verdict.failed").inner_text()
    assert page.locator("img[src=x], #result script").count() == 0


def test_a_text_stays_text(page: Page, tmp_path: Path) -> None:
    document = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "photo.jpg"}},
        "2": {"class_type": "ShowText|pysssss", "inputs": {"text": EVIL}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    load(page, tmp_path, document)
    run(page)
    assert page.locator("pre.prose").inner_text() == EVIL
    assert page.locator("img[src=x], #result script").count() == 0


def test_a_job_that_takes_long_can_be_cancelled(page: Page, tmp_path: Path) -> None:
    load(page, tmp_path, one_node("TestSleep", seconds=600))
    press_run(page)
    page.locator("#progress-detail").get_by_text("TestSleep (node 1) · 1 of 1").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.locator(".verdict.cancelled").wait_for()


def test_progress_inside_a_node_moves_the_bar(page: Page, tmp_path: Path) -> None:
    page.evaluate(
        """() => {
            window.seen = [];
            const bar = document.getElementById("progress-bar");
            new MutationObserver(() => window.seen.push(bar.value)).observe(bar, { attributes: true });
        }"""
    )
    load(page, tmp_path, one_node("TestSteps", steps=8, seconds=0.25))
    press_run(page)
    page.get_by_role("heading", name="Done").wait_for()
    seen = page.evaluate("window.seen")
    assert seen == sorted(seen)
    assert [value for value in seen if 0 < value < 100]


def test_a_worker_that_is_killed_in_a_job_is_an_error_and_the_next_job_runs(page: Page, tmp_path: Path) -> None:
    load(page, tmp_path, one_node("TestCrash", how="SIGKILL"))
    press_run(page)
    page.locator(".verdict.failed").wait_for()
    assert "What to do:" in page.locator(".verdict").inner_text()
    load(page, tmp_path, one_node("TestText", text="none the worse"))
    press_run(page)
    page.get_by_text("none the worse").wait_for()


def test_a_broken_workflow_is_named_and_cannot_be_chosen(page: Page) -> None:
    page.get_by_text("It cannot be run:").wait_for()
    assert page.get_by_role("radio", name="broken").is_disabled()


def test_the_worker_says_that_it_is_ready(page: Page) -> None:
    page.locator("#worker").get_by_text("ready", exact=True).wait_for()


def test_a_token_opens_the_page_to_its_owner_alone(
    browser: Browser, workflows: Path, stand_in_models: Path, tmp_path: Path
) -> None:
    options = ("--workflows", str(workflows), "--models", str(stand_in_models), "--no-warm-up")
    with (
        WorkerServer(tmp_path, *options, environment={"COMFY_CPU_TOKEN": "s3cret-token"}) as worker,
        visit(browser, address(worker), allowed="status of 401") as page,
    ):
        page.get_by_label("Token").fill("wrong")
        page.get_by_label("Token").press("Enter")
        page.get_by_text("That token was refused.").wait_for()
        page.get_by_label("Token").fill("s3cret-token")
        page.get_by_label("Token").press("Enter")
        page.locator(".option").first.wait_for()
        choose(page, "gate")
        give(page)
        press_run(page)
        page.locator(".verdict.blocked").wait_for()
