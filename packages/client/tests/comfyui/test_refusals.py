from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_client.comfyui import protocol
from comfy_cpu_client.comfyui.files import plan_upload
from comfy_cpu_client.comfyui.protocol import Answer
from comfy_cpu_client.comfyui.refusals import read_acceptance, refusal
from comfy_cpu_core.errors import TargetError, WorkflowInvalid

PROMPT: dict[str, dict[str, Any]] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "gone.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    "9": {"class_type": "PreviewImage", "inputs": {}},
}


def answer(status: int, document: Any) -> Answer:
    return Answer("http://host/prompt", status, json.dumps(document).encode())


def problem(kind: str, message: str, details: str, name: str = "") -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": {"input_name": name}}


MISSING = problem("required_input_missing", "Required input is missing", "images", "images")
FILE = problem(
    "custom_validation_failed", "Custom validation failed for node", "image - Invalid image file: gone.png", "image"
)


@pytest.mark.parametrize(
    ("status", "authorized", "says"),
    [
        (401, False, "wants a login"),
        (401, True, "does not take this login"),
        (403, False, "does not allow GET /queue"),
        (404, False, "no ComfyUI is there"),
        (413, False, "no workflow of this size"),
        (500, False, "500 Internal Server Error to GET /queue"),
        (502, False, "502 Bad Gateway"),
        (799, False, "799 (an unknown status)"),
    ],
)
def test_each_status_is_told_apart(status: int, authorized: bool, says: str) -> None:
    error = refusal("http://host", protocol.get_queue(), status, authorized=authorized)
    assert error.status == status
    assert says in str(error)
    assert "http://host" in str(error)
    assert error.remedy


def test_a_file_that_is_too_large() -> None:
    error = refusal("http://host", protocol.upload(plan_upload("a.png", b"12345", "")), 413)
    assert "takes no file of 5 bytes" in str(error)
    assert "--max-upload-size" in str(error.remedy)


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("https://mona:pw@login.example.org/start?token=hunter2", ": to https://login.example.org/start"),
        ("/login?next=hunter2", ": to /login"),
        ("https://[hunter2", ""),
        (None, ""),
    ],
)
def test_a_redirect_is_shown_without_what_may_be_secret(location: str | None, says: str) -> None:
    error = refusal("http://host", protocol.get_queue(), 302, location=location)
    assert str(error) == f"http://host sends GET /queue elsewhere (302){says}"


def test_accepted() -> None:
    acceptance = read_acceptance(answer(200, {"prompt_id": "p", "node_errors": {}}), PROMPT)
    assert (acceptance.prompt_id, acceptance.invalid, acceptance.warnings) == ("p", None, ())
    assert read_acceptance(answer(200, {"prompt_id": "p", "node_errors": []}), PROMPT).invalid is None


def test_an_output_that_is_connected_to_nothing_may_be_left_out() -> None:
    errors = {"9": {"errors": [MISSING], "dependent_outputs": ["9"], "class_type": "PreviewImage"}}
    acceptance = read_acceptance(answer(200, {"prompt_id": "p", "node_errors": errors}), PROMPT)
    assert acceptance.invalid is None
    assert acceptance.warnings == ("node 9 (PreviewImage) was left out: its input 'images' is not connected",)


@pytest.mark.parametrize(
    ("node_id", "entry"),
    [
        ("1", {"errors": [FILE], "dependent_outputs": ["2"], "class_type": "LoadImage"}),
        ("2", {"errors": [MISSING], "dependent_outputs": ["2"], "class_type": "SaveImage"}),  # it is connected
        ("9", {"errors": [MISSING, FILE], "dependent_outputs": ["9"], "class_type": "PreviewImage"}),
    ],
)
def test_any_other_part_must_not_be_left_out(node_id: str, entry: dict[str, Any]) -> None:
    document = {"prompt_id": "p", "node_errors": {node_id: entry}}
    acceptance = read_acceptance(answer(200, document), PROMPT)
    assert acceptance.prompt_id == "p"
    assert acceptance.invalid is not None
    assert acceptance.invalid.node_errors == {node_id: entry}


def test_a_prompt_that_does_not_validate() -> None:
    errors = {
        "1": {"errors": [FILE], "dependent_outputs": ["2"], "class_type": "LoadImage"},
        "9": {"errors": [MISSING], "dependent_outputs": ["9"], "class_type": "PreviewImage"},
    }
    error = {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"}
    with pytest.raises(WorkflowInvalid) as caught:
        read_acceptance(answer(400, {"error": error, "node_errors": errors}), PROMPT)
    assert str(caught.value) == (
        "node 1 (LoadImage): Custom validation failed for node: image - Invalid image file: gone.png (and 1 more)"
    )
    assert caught.value.remedy == "give the file with --input 1.image=FILE"
    assert (caught.value.node_errors, caught.value.error) == (errors, error)


def test_a_class_that_is_not_there() -> None:
    error = {
        "type": "invalid_prompt",
        "message": "Cannot execute because node Magic does not exist.",
        "details": "Node ID '#4'",
    }
    with pytest.raises(WorkflowInvalid, match=r"node Magic does not exist\.: Node ID '#4'") as caught:
        read_acceptance(answer(400, {"error": error, "node_errors": {}}), PROMPT)
    assert "install the node pack" in str(caught.value.remedy)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(st.sampled_from([200, 400]), JSON, JSON)
def test_no_answer_is_taken_for_more_than_it_says(status: int, errors: Any, other: Any) -> None:
    for document in (other, {"prompt_id": "p", "node_errors": errors}, {"node_errors": {"1": errors}, "error": other}):
        try:
            acceptance = read_acceptance(answer(status, document), PROMPT)
        except (WorkflowInvalid, TargetError):
            continue
        assert status == 200
        assert acceptance.prompt_id == "p"
