from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest

from comfy_cpu_core.nodes import InputSpec, NodeSignature
from comfy_cpu_core.results import NodeFailure, Result
from comfy_cpu_worker.backends.warmup import find_image_inputs, warm_up, warm_up_picture, warm_up_work
from comfy_cpu_worker.work import Work

API = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photo.JPG"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
}
UI = {
    "nodes": [
        {"id": 1, "type": "LoadImage", "mode": 0, "widgets_values": ["faces/photo.webp [input]", "image"]},
        {"id": 2, "type": "SaveImage", "mode": 0, "widgets_values": ["out"]},
    ],
    "links": [],
}


def test_the_picture_is_one() -> None:
    from PIL import Image

    with Image.open(io.BytesIO(warm_up_picture())) as image:
        image.load()
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (64, 64))
        assert image.getpixel((32, 32)) == (240, 200, 160)
        assert image.getpixel((10, 50)) == (20, 100, 128)


@pytest.mark.parametrize(("workflow", "name"), [(API, "photo.JPG"), (UI, "faces/photo.webp")])
def test_pictures_that_a_workflow_names_are_made_up(workflow: dict[str, Any], name: str) -> None:
    work = warm_up_work("portrait", workflow)
    assert work.files == {name: warm_up_picture()}
    assert work.inputs == {}
    assert work.workflow == workflow


@pytest.mark.parametrize("value", ["", "example", "/etc/photo.png", "../photo.png", None])
def test_an_input_that_names_none_is_set(value: object) -> None:
    api = {"1": {"class_type": "LoadImage", "inputs": {"image": value}}}
    ui = {"nodes": [{"id": 1, "type": "LoadImage", "widgets_values": [value, "image"]}]}
    for workflow in (api, ui):
        work = warm_up_work("portrait", workflow)
        assert work.files == {}
        assert work.inputs["1.image"].data == warm_up_picture()


def test_inputs_of_other_classes_are_set_where_they_are_known() -> None:
    workflow = {"3": {"class_type": "TakesPicture", "inputs": {"photo": "", "x": 1}}}
    assert warm_up_work("a", workflow).inputs == {}
    assert set(warm_up_work("a", workflow, {"TakesPicture": ["photo"]}).inputs) == {"3.photo"}


def test_what_is_connected_or_does_not_run_is_left_alone() -> None:
    api = {"1": {"class_type": "LoadImage", "inputs": {"image": ["7", 0]}}}
    ui = {"nodes": [{"id": 1, "type": "LoadImage", "mode": mode, "widgets_values": [""]} for mode in (2, 4)]}
    assert warm_up_work("a", api).inputs == {}
    assert warm_up_work("a", ui).inputs == {}


@pytest.mark.parametrize("workflow", [{}, {"nodes": [3, {}]}, {"1": None, "2": []}, {"nodes": {"a": 1}}])
def test_what_is_no_workflow_is_left_to_whoever_runs_it(workflow: dict[str, Any]) -> None:
    assert warm_up_work("a", workflow).inputs == {}


def test_image_inputs_come_from_signatures() -> None:
    spec = InputSpec("photo", "COMBO", "required", (), {"image_upload": True})
    other = InputSpec("x", "INT", "required")
    signatures = {"A": NodeSignature("A", (spec, other)), "B": NodeSignature("B", (other,))}
    assert find_image_inputs(signatures) == {"A": ["photo"]}


def test_every_workflow_runs_once_and_the_failures_are_told(caplog: pytest.LogCaptureFixture) -> None:
    results = {
        "warm-up of a": Result("completed"),
        "warm-up of b": Result("failed", errors=(NodeFailure("model", "m.onnx is gone"),)),
        "warm-up of c": Result("blocked", errors=(NodeFailure("blocked", "not a cat"),)),
        "warm-up of d": Result("timed_out", errors=(NodeFailure("deadline", "too slow"),)),
    }
    ran: list[Work] = []

    async def run(work: Work) -> Result:
        ran.append(work)
        return results[work.job_id]

    problems = asyncio.run(warm_up(run, dict.fromkeys("abcd", API), timeout_s=9))
    assert problems == [
        "the warm-up of workflow b failed: m.onnx is gone",
        "the warm-up of workflow d timed out: too slow",
    ]
    assert [work.job_id for work in ran] == list(results)
    assert {work.timeout_s for work in ran} == {9}
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == problems
