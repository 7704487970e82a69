"""The page in a real browser, against a worker that says what each test tells it to."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_worker import (
    DOMAINS,
    EVIL,
    ONE,
    FakeWorker,
    Script,
    completed,
    cut_out,
    failed,
    picture_item,
    step,
    text_item,
    timing,
)
from PIL import Image
from visitor import EXAMPLES, PHOTO, drop, give, pixels, press_run, run

from comfy_cpu_worker.shelf import Shelf

if TYPE_CHECKING:
    from playwright.sync_api import Page

TWO = {
    "name": "two",
    "title": "Two pictures",
    "inputs": [{"key": "1.image", "title": "Picture"}, {"key": "7.image", "title": "Picture"}],
    "gate": False,
}


# ---- a run that completes


def test_a_dropped_picture_is_run_and_its_result_shown(open_page: Callable[..., Page]) -> None:
    worker = FakeWorker(lambda job: completed(picture_item(cut_out(PHOTO))), [ONE])
    page = open_page(worker)
    page.locator(".option").first.wait_for()
    drop(page, ".drop", "me.jpg", "image/jpeg", PHOTO.read_bytes())
    page.locator(".preview").wait_for()
    assert page.locator(".slot").inner_text().split("\n")[:2] == ["Photo", "me.jpg"]
    press_run(page)
    page.get_by_role("heading", name="Done").wait_for()

    (job,) = worker.jobs
    assert job["workflow"] == "cutout"
    assert job["inputs"] == {"1.image": {"name": "me.jpg", "data": base64.b64encode(PHOTO.read_bytes()).decode()}}
    after = pixels(page, ".stage .after")
    assert (after["size"], after["alpha"]) == ([512, 512], [0, 255])
    assert pixels(page, ".stage .before")["alpha"] == [255, 255]
    assert "ran 1.25\xa0s · waited 2\xa0ms" in page.locator(".verdict").inner_text()
    assert page.locator("#answer-heading").evaluate("node => node === document.activeElement"), "focus is at the result"


def test_a_file_dropped_beside_its_place_is_taken_all_the_same(open_page: Callable[..., Page]) -> None:
    page = open_page(FakeWorker(lambda job: completed(), [ONE]))
    page.locator(".option").first.wait_for()
    drop(page, "header", "me.jpg", "image/jpeg", PHOTO.read_bytes())
    page.locator(".preview").wait_for()


def test_before_and_after_are_compared_with_mouse_and_keyboard(open_page: Callable[..., Page]) -> None:
    page = open_page(FakeWorker(lambda job: completed(picture_item(cut_out(PHOTO))), [ONE]))
    run(page)
    split = "node => getComputedStyle(node).getPropertyValue('--split')"
    stage, slider = page.locator(".stage"), page.get_by_role("slider")
    assert stage.evaluate(split) == "50%"
    box = stage.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 80, steps=4)
    page.mouse.up()
    assert stage.evaluate(split) == "80%"
    slider.press("ArrowLeft")
    assert stage.evaluate(split) == "79%"
    assert slider.get_attribute("aria-valuetext") == "79 % before, 21 % after"
    clips = [
        page.locator(f".stage .{name}").evaluate("node => getComputedStyle(node).clipPath")
        for name in ("before", "after")
    ]
    assert clips == ["inset(0px 21% 0px 0px)", "inset(0px 0px 0px 79%)"]


def test_the_mask_is_drawn_from_the_transparency(open_page: Callable[..., Page]) -> None:
    page = open_page(FakeWorker(lambda job: completed(picture_item(cut_out(PHOTO))), [ONE]))
    run(page)
    page.get_by_role("radio", name="Mask").check()
    assert pixels(page, ".cut canvas") == {"size": [512, 512], "red": [0, 255], "alpha": [255, 255]}
    assert not page.locator(".stage .after").is_visible()
    page.get_by_role("radio", name="Result").check()
    assert page.locator(".stage .after").is_visible()
    assert not page.get_by_role("slider").is_visible()
    page.get_by_role("radio", name="White").check()
    assert page.locator(".stage").evaluate("node => getComputedStyle(node).backgroundColor") == "rgb(255, 255, 255)"


def test_of_several_pictures_the_cut_out_comes_first_and_a_mask_is_called_one(open_page: Callable[..., Page]) -> None:
    photo = Image.open(PHOTO)
    mask = cut_out(PHOTO).getchannel("A").convert("RGB")
    preview = {**picture_item(cut_out(PHOTO), "temp_1.png", node_id="8", class_type="PreviewImage"), "folder": "temp"}
    items = (
        picture_item(mask, "mask.png", node_id="12", class_type="PreviewImage"),
        preview,
        picture_item(cut_out(PHOTO), "cutout.png"),
        picture_item(photo.convert("RGB"), "photo.png", node_id="13"),
    )
    page = open_page(FakeWorker(lambda job: completed(*items), [ONE]))
    run(page)
    assert page.locator(".thumb").all_inner_texts() == ["SaveImage", "SaveImage", "PreviewImage (mask)"], "once each"
    assert "cutout.png" in page.locator("figcaption").inner_text()
    page.locator(".thumb").nth(2).click()
    assert page.locator(".thumb").nth(2).get_attribute("aria-pressed") == "true"
    assert "mask.png" in page.locator("figcaption").inner_text()
    assert not page.get_by_role("radio", name="Mask").is_visible(), "an opaque picture has no mask of its own"


def test_every_output_and_the_record_can_be_downloaded(open_page: Callable[..., Page], tmp_path: Path) -> None:
    picture, text = picture_item(cut_out(PHOTO), "cutout.png"), text_item("A woman smiles.")
    page = open_page(FakeWorker(lambda job: completed(picture, text), [ONE]))
    run(page)
    files = {}
    for link in page.locator(".downloads a").all():
        with page.expect_download() as waiting:
            link.click()
        waiting.value.save_as(tmp_path / "file")
        files[waiting.value.suggested_filename] = (tmp_path / "file").read_bytes()
    assert set(files) == {"cutout.png", "text_18.txt", "result.json"}
    assert files["cutout.png"] == base64.b64decode(picture["data"])
    assert files["text_18.txt"] == b"A woman smiles."
    record = json.loads(files["result.json"])
    assert (record["status"], record["execution_seconds"]) == ("completed", 1.25)
    assert [(item["filename"], item["sha256"]) for item in record["outputs"]] == [
        ("cutout.png", picture["sha256"]),
        ("text_18.txt", text["sha256"]),
    ]
    assert not any("data" in item for item in record["outputs"])


def test_an_output_in_a_bucket_is_linked_and_not_loaded(open_page: Callable[..., Page]) -> None:
    picture = picture_item(cut_out(PHOTO))
    there = {**picture, "type": "s3_url", "data": "https://bucket.invalid/cutout.png?signature=1", "sha256": "1"}
    evil = {**picture, "type": "s3_url", "data": "javascript:alert(1)", "filename": "evil.png", "sha256": "2"}
    page = open_page(FakeWorker(lambda job: completed(there, evil), [ONE]))
    run(page)
    links = {link.inner_text(): link.get_attribute("href") for link in page.locator(".downloads a").all()}
    assert links.pop("ComfyUI_00001_.png") == there["data"]
    assert set(links) == {"result.json"}
    assert "evil.png" in page.locator(".downloads").inner_text()
    assert page.locator(".viewer").count() == 0


def test_texts_times_changes_models_and_warnings_are_shown(open_page: Callable[..., Page]) -> None:
    model = {
        "name": "ben2_onnx/BEN2_Base.onnx",
        "runtime": "openvino 1",
        "precision": "bf16",
        "threads": 2,
        "stand_in": True,
        "load_seconds": 0.4,
    }
    change = {
        "node_id": "4",
        "class_type": "BEN2_ONNX_RemoveBg",
        "input": "provider",
        "old": "CUDA",
        "new": "CPU",
        "reason": "there is no CUDA",
        "plugin": "ben2",
    }
    dropped = {"node_id": "7", "class_type": "SaveImageNoMetadata", "reason": "bypassed"}
    script = completed(
        text_item("A woman smiles."),
        text_item('{"a": 1}', node_id="19", kind="json"),
        stand_in=True,
        models=[model],
        changes={"ok": True, "changes": [change], "cannot_run": [], "unknown": [], "dropped": [dropped], "guessed": [], "problems": []},
        warnings=["the safety check of node 30 was left out", "ben2_onnx/BEN2_Base.onnx is a stand-in"],
        timings=[timing("1", "LoadImage", 0.01, cached=True), timing("4", "Florence2Run", 1.0), timing("9", "SaveImage", 0.25)],
    )  # fmt: skip
    page = open_page(FakeWorker(lambda job: script, [ONE]))
    run(page)
    text = page.locator("#result").inner_text()
    assert page.locator("pre").all_inner_texts() == ["A woman smiles.", '{\n  "a": 1\n}']
    assert page.locator("section h3").all_inner_texts()[:4] == ["Done", "Safety", "Caption", "JSON"]
    banners = page.locator(".banner").all_inner_texts()
    assert banners[0].startswith("Not the real model. A stand-in took the place of ben2_onnx/BEN2_Base.onnx.")
    assert banners[1:] == ["the safety check of node 30 was left out"], "what the first says is not said twice"
    assert "BEN2_ONNX_RemoveBg (node 4) provider CUDA → CPU" in text
    assert "left out: bypassed in the workflow" in text
    assert "openvino 1 · bf16 · 2 threads · loaded in 0.40\xa0s" in text
    rows = [" ".join(row.split()) for row in page.locator(".times li").all_inner_texts()]
    assert rows == ["LoadImage 1 cached", "Florence2Run 4 1.00 s", "SaveImage 9 0.25 s"]
    widths = [fill.evaluate("node => node.style.width") for fill in page.locator(".fill").all()]
    assert widths == ["100%", "25%"]


# ---- under way


def test_progress_is_shown_and_a_job_can_be_cancelled(open_page: Callable[..., Page]) -> None:
    updates = [step(0, 4, "1", "LoadImage", 0.0), step(1, 4, "4", "BEN2_ONNX_RemoveBg", 25.0)]
    worker = FakeWorker(lambda job: Script(completed().answer, updates, hold=True), [ONE])
    page = open_page(worker)
    give(page)
    press_run(page)
    detail = page.locator("#progress-detail")
    detail.get_by_text("BEN2_ONNX_RemoveBg (node 4) · 2 of 4").wait_for()
    assert detail.get_attribute("aria-live") == "polite"
    assert page.get_by_role("progressbar").evaluate("node => node.value") == 25
    assert page.locator("#progress-percent").inner_text().startswith("25 %")
    assert page.locator("#progress-elapsed").inner_text().endswith("s")
    assert page.get_by_role("button", name="Run", exact=True).is_disabled()
    page.get_by_role("button", name="Cancel").click()
    page.locator(".verdict.cancelled").wait_for()
    assert ("POST", "/v2/local/cancel/job-0") in worker.calls
    assert not page.locator("#progress").is_visible()
    assert page.get_by_role("button", name="Run", exact=True).is_enabled()


def test_a_worker_that_is_silent_for_a_while_is_asked_again(open_page: Callable[..., Page]) -> None:
    worker = FakeWorker(lambda job: Script(completed(text_item("here I am")).answer, hold=True), [ONE])
    page = open_page(worker, allowed="net::ERR_CONNECTION_REFUSED")
    give(page)
    page.route("**/v2/local/stream/*", lambda route: route.abort("connectionrefused"))
    press_run(page)
    page.get_by_text("The worker does not answer; trying again").wait_for()
    page.unroute("**/v2/local/stream/*")
    worker.released.set()
    page.get_by_text("here I am").wait_for()
    assert len(worker.jobs) == 1


# ---- workflows


def test_several_pictures_go_to_their_inputs(open_page: Callable[..., Page], tmp_path: Path) -> None:
    second = tmp_path / "second.png"
    Image.new("RGB", (64, 64), "red").save(second)
    worker = FakeWorker(lambda job: completed(picture_item(cut_out(PHOTO))), [ONE, TWO])
    page = open_page(worker)
    page.get_by_text("Two pictures").click()
    assert page.locator(".slot .strong").all_inner_texts() == ["Picture (1.image)", "Picture (7.image)"]
    give(page, second, place=1)
    give(page, PHOTO, place=0)
    press_run(page)
    page.locator(".verdict").wait_for()
    names = {key: file["name"] for key, file in worker.jobs[0]["inputs"].items()}
    assert names == {"1.image": "astronaut.jpg", "7.image": "second.png"}
    page.get_by_label("Before:").select_option("Picture (7.image)")
    assert pixels(page, ".stage .before")["size"] == [64, 64]


@pytest.mark.parametrize(
    ("document", "places"),
    [
        (json.loads((EXAMPLES / "workflows" / "BG_remove_BEN2_simple_2nd.json").read_text()), {"1.image": "LoadImage"}),
        ({"5": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Portrait"}}, "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0]}}}, {"5.image": "Portrait"}),
        ({"nodes": [{"id": 3, "type": "sub"}, {"id": 4, "type": "LoadImage", "mode": 4}], "definitions": {"subgraphs": [{"id": "sub", "nodes": [{"id": 8, "type": "LoadImageMask", "title": EVIL}]}]}}, {"3:8.image": EVIL}),
    ],
    ids=["UI", "API", "subgraph"],
)  # fmt: skip
def test_a_workflow_file_of_ones_own(
    open_page: Callable[..., Page], tmp_path: Path, document: dict[str, Any], places: dict[str, str]
) -> None:
    worker = FakeWorker(lambda job: completed(), [ONE])
    page = open_page(worker)
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(document))
    page.get_by_label("Workflow file").set_input_files(file)
    page.get_by_text("mine.json").wait_for()
    assert page.locator(".slot .strong").all_inner_texts() == list(places.values())
    run(page)
    assert worker.jobs[0]["workflow"] == document
    assert list(worker.jobs[0]["inputs"]) == list(places)


#: Workflows whose file inputs are not plain to see.
TRICKY: dict[str, dict[str, Any]] = {
    "linked": {
        "1": {"class_type": "LoadImage", "inputs": {"image": ["2", 0]}},
        "2": {"class_type": "SomeName", "inputs": {"image": "a.png"}},
        "3": {"class_type": "ETN_LoadImageBase64", "inputs": {"image": "a.png"}, "_meta": {"title": "In"}},
        "4": {"class_type": "VHS_LoadVideo", "inputs": {"video": "a.mp4", "frames": 3}},
        "5": {"class_type": "LoadAudio", "inputs": {"audio": "a.mp3"}},
        "6": {"class_type": "LoadImageMask", "inputs": {"image": "a.png", "channel": "alpha"}},
        "7": {"class_type": "NSFWFilter", "inputs": {"images": ["6", 0]}},
        "8": {"class_type": "PreviewImage", "inputs": {"images": ["7", 0]}},
    },
    "muted": {
        "nodes": [
            {"id": 1, "type": "LoadImage", "mode": 2, "inputs": [], "outputs": [], "widgets_values": ["a.png", "image"]},
            {"id": 2, "type": "LoadImage", "title": "Kept", "inputs": [], "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}], "widgets_values": ["a.png", "image"]},
            {"id": 3, "type": "PreviewImage", "inputs": [{"name": "images", "type": "IMAGE", "link": 1}], "outputs": []},
        ],
        "links": [[1, 2, 0, 3, 0, "IMAGE"]],
    },
    "a widget of a subgraph": {
        "nodes": [
            {"id": 3, "type": "sub", "inputs": [{"name": "image", "type": "COMBO", "widget": {"name": "image"}, "link": None}], "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}], "widgets_values": ["a.png"]},
            {"id": 4, "type": "PreviewImage", "inputs": [{"name": "images", "type": "IMAGE", "link": 1}], "outputs": []},
        ],
        "links": [[1, 3, 0, 4, 0, "IMAGE"]],
        "definitions": {"subgraphs": [{
            "id": "sub", "name": "Sub", "inputNode": {"id": -10}, "outputNode": {"id": -20},
            "inputs": [{"id": "a", "name": "image", "type": "COMBO", "linkIds": [10]}],
            "outputs": [{"id": "b", "name": "IMAGE", "type": "IMAGE", "linkIds": [11]}],
            "nodes": [{"id": 8, "type": "LoadImage", "inputs": [{"name": "image", "type": "COMBO", "widget": {"name": "image"}, "link": 10}], "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [11]}], "widgets_values": ["a.png", "image"]}],
            "links": [
                {"id": 10, "origin_id": -10, "origin_slot": 0, "target_id": 8, "target_slot": 0, "type": "COMBO"},
                {"id": 11, "origin_id": 8, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "IMAGE"},
            ],
        }]},
    },
}  # fmt: skip


def test_a_file_of_ones_own_is_read_as_the_same_file_in_the_image_is(
    open_page: Callable[..., Page], tmp_path: Path
) -> None:
    for file in (EXAMPLES / "workflows").glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for name, document in TRICKY.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    page = open_page(FakeWorker(lambda job: completed(), [ONE]))
    entries = Shelf(tmp_path).entries()
    assert len(entries) >= 5
    for entry in entries:
        assert entry.problem == ""
        ours, theirs = page.evaluate(
            """async ([text, entry]) => {
                const { baked, own } = await import("/static/workflows.js");
                const seen = ({ files, gate }) => [files.toSorted((a, b) => a.key.localeCompare(b.key)), gate];
                return [seen(own("x.json", text)), seen(baked(entry))];
            }""",
            [(tmp_path / f"{entry.name}.json").read_text(), entry.to_json()],
        )
        assert ours == theirs, entry.name
        assert len(theirs[0]) >= 1, entry.name


def test_a_workflow_that_is_broken_cannot_be_chosen(open_page: Callable[..., Page]) -> None:
    broken = {**TWO, "inputs": [], "problem": "two.json is not JSON"}
    page = open_page(FakeWorker(lambda job: completed(), [broken, ONE]))
    page.get_by_text("It cannot be run: two.json is not JSON").wait_for()
    assert page.get_by_role("radio", name="Two pictures").is_disabled()
    assert page.get_by_role("radio", name="Cut out").is_checked()


def test_a_file_that_is_no_workflow_is_refused_at_once(open_page: Callable[..., Page], tmp_path: Path) -> None:
    worker = FakeWorker(lambda job: completed(), [ONE])
    page = open_page(worker)
    for number, text in enumerate(["{", "[]", "{}", '{"a": 1}', "null", '"x"', '{"nodes": [null]}']):
        file = tmp_path / f"mine-{number}.json"
        file.write_text(text)
        page.get_by_label("Workflow file").set_input_files(file)
        page.locator("#workflow-note").get_by_text(file.name).wait_for()
        press_run(page)
        page.get_by_text("Choose a workflow first.").wait_for()
    assert worker.jobs == []


# ---- for everybody


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("script", ["completed", "blocked", "failed"])
def test_text_has_contrast_and_controls_have_names(open_page: Callable[..., Page], scheme: str, script: str) -> None:
    error = {"message": "so it is", "node_id": "1", "class_type": "LoadImage", "details": "…", "remedy": "do"}
    scripts = {
        "completed": completed(picture_item(cut_out(PHOTO)), text_item(json.dumps({"classification": {**DOMAINS, "hate": "UNSAFE", "drugs": "BORDERLINE"}})), warnings=["look"], stand_in=True),
        "blocked": failed({**error, "code": "blocked"}, status="blocked"),
        "failed": failed(error),
    }  # fmt: skip
    page = open_page(FakeWorker(lambda job: scripts[script], [ONE, TWO]), color_scheme=scheme, reduced_motion="reduce")
    run(page)
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate(NAMELESS) == []


def test_it_fits_on_a_phone(open_page: Callable[..., Page]) -> None:
    long = "AVeryLongNameWithoutAnySpaceInItThatWouldNotFitOnThePhoneOfAnybodyWhoHasOne"
    script = completed(
        {**picture_item(cut_out(PHOTO), f"{long}.png"), "reencoded": {"media_type": "image/png", "size": 4_000_000}}, text_item(long), text_item(json.dumps({long: long})),
        timings=[timing("1", long, 1.0)], warnings=[long],
    )  # fmt: skip
    page = open_page(
        FakeWorker(lambda job: script, [{**ONE, "title": long, "name": long}]), viewport={"width": 360, "height": 740}
    )
    too_wide = "document.documentElement.scrollWidth - innerWidth"
    page.locator(".option").first.wait_for()
    assert page.evaluate(too_wide) <= 0
    run(page)
    assert page.evaluate(too_wide) <= 0
    assert "re-encoded; was image/png, 4.0\xa0MB" in page.locator(".downloads").inner_text()
    assert page.locator(".verdict").is_visible()
    top = page.locator(".verdict").evaluate("node => node.getBoundingClientRect().top")
    assert 0 <= top < 740, "the result is scrolled into view"


def test_it_can_be_used_with_the_keyboard_alone(open_page: Callable[..., Page]) -> None:
    page = open_page(FakeWorker(lambda job: completed(picture_item(cut_out(PHOTO))), [ONE, TWO]))
    page.on("filechooser", lambda chooser: chooser.set_files(PHOTO))
    page.locator(".option").first.wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert page.locator(".slot").count() == 2, "the second workflow is chosen"
    page.keyboard.press("ArrowUp")
    for _ in range(2):  # the button for a file of one's own, the picture
        page.keyboard.press("Tab")
    assert page.locator(".slot input").evaluate("node => node === document.activeElement")
    page.keyboard.press("Enter")
    page.locator(".preview").wait_for()
    for _ in range(2):  # Remove, Run
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator(".verdict").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")  # from Before / after to Result
    assert page.get_by_role("radio", name="Result").is_checked()


#: The texts whose colour is too near to what is behind them (WCAG 2, level AA).
CONTRAST = """() => {
    const parse = (color) => {
        const numbers = color.match(/[\\d.]+/g).map(Number);
        return { rgb: numbers.slice(0, 3), alpha: numbers[3] ?? 1 };
    };
    const behind = (node) => {
        for (let one = node; one; one = one.parentElement) {
            const { rgb, alpha } = parse(getComputedStyle(one).backgroundColor);
            if (alpha > 0.5) return rgb;
        }
        return [255, 255, 255];
    };
    const light = (rgb) => rgb.map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    return [...document.body.querySelectorAll("*")]
        .filter((node) => node.checkVisibility() && node.getBoundingClientRect().width > 1 && !node.closest(".swatches"))
        .filter((node) => [...node.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.data.trim()))
        .map((node) => {
            const [a, b] = [light(parse(getComputedStyle(node).color).rgb), light(behind(node))];
            return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.className, node.textContent.slice(0, 40)];
        })
        .filter(([ratio]) => ratio < 4.5);
}"""

#: The controls and pictures that have no name.
NAMELESS = """() => [...document.querySelectorAll("input, button, select, a, progress, summary")]
    .filter((node) => node.checkVisibility())
    .filter((node) => !(node.getAttribute("aria-label") || document.getElementById(node.getAttribute("aria-labelledby"))
        || [...(node.labels ?? [])].some((label) => label.textContent.trim()) || node.textContent.trim()))
    .map((node) => node.outerHTML.slice(0, 80))
    .concat([...document.querySelectorAll("img:not([alt])")].map((node) => node.outerHTML.slice(0, 80)))"""
