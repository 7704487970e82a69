"""What the page shows when it is not all well: blocks, errors, strangers' words, a token."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fake_worker import (
    DOMAINS,
    EVIL,
    ONE,
    FakeWorker,
    Script,
    completed,
    cut_out,
    failed,
    output,
    picture_item,
    step,
    text_item,
    timing,
)
from PIL import Image
from visitor import PHOTO, give, press_run, run

if TYPE_CHECKING:
    from playwright.sync_api import Page

NUDENET = {"is_nsfw": False, "max_score": 0.31, "threshold": 0.6, "detections": [], "model": "NudeNet"}


# ---- safety


#: Texts and classes of the nodes that ran → what the page says of the picture's safety.
SAFETY = [
    ([json.dumps(NUDENET), "SAFE: Passed NudeNet + Multi-Domain checks"], "HybridSafetyGate", "Passed: the workflow's safety gate"),
    ([json.dumps(NUDENET)], "NudeNetSafetyChecker", "Checked: nothing was found. No gate ran"),
    ([json.dumps({**NUDENET, "is_nsfw": True})], "NudeNetSafetyChecker", "Flagged by a check, and not stopped"),
    ([json.dumps({"classification": {**DOMAINS, "hate": "BORDERLINE"}})], "MultiDomainSafetyGate", "though a check flagged it"),
    ([json.dumps({"classification": {**DOMAINS, "hate": "what?"}})], "ShowText", "Flagged by a check, and not stopped"),
    ([json.dumps({**NUDENET, "detections": 5, "max_score": "x"})], "NudeNetSafetyGate", "Passed: the workflow's safety gate"),
    (["A woman smiles."], "Florence2Run", "The workflow's safety check is not among the nodes that ran."),
]  # fmt: skip


def test_the_safety_result_is_never_better_than_what_is_known(open_page: Callable[..., Page]) -> None:
    scripts = [completed(*map(text_item, texts), timings=[timing("1", name, 0.1)]) for texts, name, _ in SAFETY]
    page = open_page(FakeWorker(lambda job: scripts.pop(0), [ONE]))
    for _, _, said in SAFETY:
        run(page)
        assert said in page.locator(".safety").inner_text()


def test_a_block_is_shown_as_one_and_not_as_an_error(open_page: Callable[..., Page]) -> None:
    message = "Content blocked by hybrid safety gate: Violence content (UNSAFE)"
    script = failed(
        {"code": "blocked", "message": message, "node_id": "27", "class_type": "HybridSafetyGate"}, status="blocked"
    )
    page = open_page(FakeWorker(lambda job: script, [ONE]))
    run(page)
    verdict = page.locator(".verdict.blocked")
    assert verdict.get_by_role("heading").inner_text() == "Blocked by a safety gate"
    assert message in verdict.inner_text()
    assert "HybridSafetyGate (node 27)" in verdict.inner_text()
    assert page.locator(".verdict.failed").count() == 0
    assert page.locator(".viewer").count() == 0
    assert page.locator(".safety").count() == 0, "nothing says that it passed"


def test_what_does_not_say_that_it_completed_is_no_success(open_page: Callable[..., Page]) -> None:
    said = ["blocked", "failed", None, "fine"]
    picture = picture_item(cut_out(PHOTO))
    answers = [{"status": "COMPLETED", "output": {**output("completed", picture), "status": status}} for status in said]
    page = open_page(FakeWorker(lambda job: Script(answers.pop(0)), [ONE]))
    for status in said:
        run(page)
        assert page.locator(".verdict.failed").count() == 1, status
        assert page.locator(".safety, .viewer").count() == 0, status


# ---- what goes wrong


def test_an_error_is_shown_with_node_remedy_and_details(open_page: Callable[..., Page]) -> None:
    error = {
        "code": "input", "message": "photo.jpg is no picture", "node_id": "1", "class_type": "LoadImage",
        "details": "Traceback (most recent call last):\n  …", "remedy": "give a PNG, JPEG or WebP file",
    }  # fmt: skip
    page = open_page(FakeWorker(lambda job: failed(error), [ONE]))
    run(page)
    verdict = page.get_by_role("alert").filter(has_text="Failed")
    text = verdict.inner_text()
    assert "photo.jpg is no picture" in text
    assert "LoadImage (node 1)" in text
    assert "What to do: give a PNG, JPEG or WebP file" in text
    assert not verdict.locator("pre").is_visible()
    verdict.get_by_text("Details").click()
    assert verdict.locator("pre").inner_text().startswith("Traceback")


def test_other_ends_have_names_of_their_own(open_page: Callable[..., Page]) -> None:
    ends = [("TIMED_OUT", "timed_out", "Out of time"), ("CANCELLED", "cancelled", "Cancelled")]
    scripts = [failed({"message": "so it ended"}, status=status, state=state) for state, status, _ in ends]
    page = open_page(FakeWorker(lambda job: scripts.pop(0), [ONE]))
    for _, status, heading in ends:
        run(page)
        assert page.locator(f".verdict.{status}").get_by_role("heading").inner_text() == heading
        assert "so it ended" in page.locator(".verdict").inner_text()


def test_a_failure_without_a_record_is_shown_too(open_page: Callable[..., Page]) -> None:
    answers = [
        {"error": "out of\nmemory"},
        {"output": None, "error": "out of memory"},
        {"output": [], "error": "out of memory"},
    ]
    page = open_page(FakeWorker(lambda job: Script({"status": "FAILED", **answers.pop(0)}), [ONE]))
    for _ in range(3):
        run(page)
        assert "out of memory" in page.locator(".verdict.failed").inner_text()


def test_a_refusal_is_shown_with_the_workers_words(open_page: Callable[..., Page]) -> None:
    refusals: list[tuple[int, dict[str, Any], list[str]]] = [
        (413, {"error": "the picture is too large", "remedy": "give a smaller one"}, ["the picture is too large", "What to do: give a smaller one"]),
        (429, {"error": "50 jobs wait already", "code": "queue_full"}, ["50 jobs wait already"]),
        (500, {"error": {"message": "it is broken"}}, ["it is broken"]),
        (502, {}, ["the worker answered 502"]),
    ]  # fmt: skip
    worker = FakeWorker(lambda job: completed(), [ONE])
    page = open_page(worker, allowed="the server responded with a status of")
    for status, body, said in refusals:
        worker.refusal = (status, body)
        run(page)
        text = page.locator(".verdict.failed").inner_text()
        assert all(part in text for part in ["Not run", *said]), text
        assert page.get_by_role("button", name="Run", exact=True).is_enabled()


def test_a_picture_that_the_browser_cannot_show_goes_to_the_worker_all_the_same(
    open_page: Callable[..., Page], tmp_path: Path
) -> None:
    worker = FakeWorker(lambda job: failed({"message": "broken.jpg is no picture"}), [ONE])
    page = open_page(worker)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no picture")
    give(page, broken)
    page.get_by_text("this browser cannot show it").wait_for()
    run(page, broken)
    assert worker.jobs[0]["inputs"]["1.image"]["data"] == base64.b64encode(broken.read_bytes()).decode()
    assert "broken.jpg is no picture" in page.locator(".verdict.failed").inner_text()


def test_without_a_picture_nothing_is_sent(open_page: Callable[..., Page]) -> None:
    worker = FakeWorker(lambda job: completed(), [ONE])
    page = open_page(worker)
    press_run(page)
    page.get_by_text("Choose a file for Photo first.").wait_for()
    assert page.locator(".slot input").evaluate("node => node === document.activeElement")
    assert worker.jobs == []


# ---- strangers' words


def test_what_comes_from_a_workflow_stays_text(open_page: Callable[..., Page]) -> None:
    evil = {"name": EVIL, "title": EVIL, "inputs": [{"key": "1.image", "title": EVIL}], "gate": True}
    named = {**picture_item(cut_out(PHOTO), EVIL), "class_type": EVIL, "node_id": EVIL}
    change = {"node_id": EVIL, "class_type": EVIL, "input": EVIL, "old": EVIL, "new": {EVIL: EVIL}, "reason": EVIL}
    nudenet = {**NUDENET, "model": EVIL, "detections": [{"label": EVIL, "score": 0.9}]}
    script = completed(
        named, text_item(EVIL), text_item(json.dumps(nudenet)), text_item(json.dumps({"classification": {EVIL: EVIL}})),
        text_item(f"SAFE: {EVIL}"), text_item(json.dumps({EVIL: EVIL})),
        timings=[timing(EVIL, EVIL, 1.0)], warnings=[EVIL], stand_in=True,
        models=[{"name": EVIL, "runtime": EVIL, "precision": EVIL, "threads": EVIL, "stand_in": True, "load_seconds": EVIL}],
        changes={"changes": [change], "dropped": [{**change, "reason": "muted"}], "unknown": [change], "problems": [{**change, "problem": EVIL}]},
    )  # fmt: skip
    script.updates = [step(0, 1, EVIL, EVIL, 10.0), {**step(0, 1, EVIL, EVIL, 20.0), "message": EVIL}]
    page = open_page(FakeWorker(lambda job: script, [evil]))
    run(page)
    assert page.locator("img[src=x], #result script, #job script").count() == 0
    assert page.locator("#result").inner_text().count("<script>") >= 10

    press_run(page)
    page.locator(".verdict").wait_for()


def test_errors_stay_text_too(open_page: Callable[..., Page]) -> None:
    error = dict.fromkeys(("code", "message", "node_id", "class_type", "details", "remedy"), EVIL)
    page = open_page(FakeWorker(lambda job: failed(error), [ONE]))
    run(page)
    assert page.locator("img[src=x], #result script").count() == 0
    assert EVIL in page.locator(".message").inner_text()


def test_what_a_workflow_makes_is_never_opened_as_a_page(open_page: Callable[..., Page]) -> None:
    data = f"<script>{EVIL}</script>".encode()
    item = {
        **picture_item(Image.new("RGB", (1, 1))),
        "media_type": "text/html",
        "filename": "x.html",
        "data": base64.b64encode(data).decode(),
    }
    svg = {**item, "media_type": "image/svg+xml", "filename": "x.svg", "sha256": "2"}
    page = open_page(FakeWorker(lambda job: completed(item, svg), [ONE]))
    run(page)
    for link in page.locator(".downloads a").all():
        assert link.get_attribute("download")
        kind = link.evaluate(
            """async (node) => new Promise((resolve) => {
                const image = new Image();
                image.onload = () => resolve("picture");
                image.onerror = () => resolve("data");
                image.src = node.href;
            })"""
        )
        assert kind == "data"


# ---- the token


def test_the_token_is_asked_for_only_where_the_worker_wants_one(open_page: Callable[..., Page]) -> None:
    page = open_page(FakeWorker(lambda job: completed(), [ONE]))
    page.locator(".option").first.wait_for()
    assert not page.get_by_label("Token").is_visible()


def test_the_token_is_asked_for_and_kept_in_the_tab(open_page: Callable[..., Page]) -> None:
    worker = FakeWorker(lambda job: completed(), [ONE], token="s3cret")
    page = open_page(worker, allowed="status of 401")
    field = page.get_by_label("Token")
    field.wait_for()
    assert not page.locator("#main").is_visible()
    assert field.get_attribute("type") == "password"
    field.fill("wrong")
    field.press("Enter")
    page.get_by_text("That token was refused.").wait_for()
    field.fill("s3cret")
    page.get_by_role("button", name="Continue").click()
    run(page)
    assert page.locator(".verdict.completed").count() == 1
    assert not field.is_visible()
    kept = page.evaluate("[localStorage.length, Object.values(sessionStorage), document.cookie, location.href]")
    assert kept[:3] == [0, ["s3cret"], ""]
    assert "s3cret" not in kept[3]
    assert "s3cret" not in page.content()
    page.reload()
    page.locator(".option").first.wait_for()
    assert not field.is_visible()


def test_a_token_that_is_asked_for_later_lets_the_job_go_on(open_page: Callable[..., Page]) -> None:
    worker = FakeWorker(lambda job: completed(text_item("here I am")), [ONE])
    page = open_page(worker, allowed="status of 401")
    give(page)
    worker.token = "s3cret"
    press_run(page)
    page.get_by_label("Token").fill("s3cret")
    page.get_by_label("Token").press("Enter")
    page.get_by_text("here I am").wait_for()
    assert len(worker.jobs) == 1
