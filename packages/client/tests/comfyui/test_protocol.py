from __future__ import annotations

import json
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_client.comfyui import protocol
from comfy_cpu_client.comfyui.files import plan_upload
from comfy_cpu_client.comfyui.messages import Message
from comfy_cpu_client.comfyui.protocol import Answer, HistoryEntry
from comfy_cpu_core.errors import TargetError


def answer(document: Any) -> Answer:
    return Answer("http://host/x", 200, json.dumps(document).encode())


def test_requests() -> None:
    upload = plan_upload("a.png", b"data", "comfy-cpu")
    assert protocol.find_upload(upload).query == {
        "filename": upload.filename, "subfolder": "comfy-cpu", "type": "input",
    }  # fmt: skip
    assert protocol.view("temp", PurePosixPath("a/b/c.png")).query == {
        "filename": "c.png", "subfolder": "a/b", "type": "temp",
    }  # fmt: skip
    assert protocol.view("output", PurePosixPath("c.png")).query["subfolder"] == ""
    assert protocol.get_object_info("ShowText|pysssss").path == "/object_info/ShowText%7Cpysssss"


def test_only_requests_that_do_no_harm_twice_may_be_repeated() -> None:
    upload = plan_upload("a.png", b"data", "comfy-cpu")
    assert not protocol.post_prompt({}, "p", "c").repeatable
    assert not protocol.interrupt("p").repeatable
    for request in (protocol.get_queue(), protocol.get_history("p"), protocol.upload(upload)):
        assert request.repeatable


def test_a_key_is_sent_and_not_shown() -> None:
    request = protocol.post_prompt({"1": {}}, "p", "c", "hunter2")
    assert request.document == {
        "prompt": {"1": {}}, "prompt_id": "p", "client_id": "c", "extra_data": {"api_key_comfy_org": "hunter2"},
    }  # fmt: skip
    assert "hunter2" not in repr(request)
    assert "extra_data" not in protocol.post_prompt({}, "p", "c").document


def test_the_queue() -> None:
    queue = protocol.parse_queue(
        answer(
            {
                "queue_running": [[1, "a", {}, {"client_id": "me"}, []]],
                "queue_pending": [[2, "b", {}, {}, []], [3, "c", {}, {"client_id": "you"}, [], {}]],
            }
        )
    )
    assert [queue.place(prompt_id) for prompt_id in "abcd"] == ["running", "pending", "pending", None]
    assert (queue.of_client("me"), queue.of_client("you"), queue.of_client("who")) == ("a", "c", None)


def test_the_history() -> None:
    messages = [
        ["execution_start", {"prompt_id": "p", "timestamp": 1000}],
        ["execution_cached", {"nodes": ["1"], "timestamp": 1001}],
        ["execution_success", {"timestamp": 3500}],
        "nonsense",
    ]
    entry = protocol.parse_history(
        answer(
            {
                "p": {
                    "outputs": {"3": {"text": ["a"], "number": 3}},
                    "status": {"status_str": "success", "completed": True, "messages": messages},
                }
            }
        ),
        "p",
    )
    assert entry is not None
    assert (entry.succeeded, entry.cached, entry.seconds) == (True, ("1",), 2.5)
    assert entry.outputs == {"3": {"text": ["a"], "number": [3]}}
    assert entry.message("execution_error") is None
    assert protocol.parse_history(answer({}), "p") is None


@pytest.mark.parametrize(
    ("status", "succeeded"),
    [
        (None, None),
        ({"status_str": "success", "completed": False}, False),
        ({"status_str": "error", "completed": True}, False),
        ({"status_str": "success"}, False),
        ({"status_str": "success", "completed": True, "messages": None}, True),
    ],
)
def test_success_must_be_said_in_full(status: Any, succeeded: bool | None) -> None:
    entry = protocol.parse_history(answer({"p": {"outputs": {}, "status": status}}), "p")
    assert entry is not None
    assert entry.succeeded is succeeded


def test_times_that_go_back_count_as_none() -> None:
    messages = (Message("a", {"timestamp": 9000}), Message("b", {"timestamp": 1000}))
    assert HistoryEntry(True, messages).seconds == 0.0
    assert HistoryEntry(True, messages[:1]).seconds is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.just("p"), inner, max_size=4),
    max_leaves=10,
)


@given(JSON)
def test_whatever_a_server_answers_is_read_or_refused_by_an_error_of_ours(document: Any) -> None:
    for read in (
        protocol.parse_queue,
        protocol.parse_upload,
        lambda told: protocol.parse_history(told, "p"),
        lambda told: protocol.parse_history(told, "q"),
    ):
        for shape in (
            document,
            {"p": document},
            {"p": {"outputs": {}, "status": document}},
            {"p": {"outputs": document}},
        ):
            with suppress(TargetError):
                read(answer(shape))


def test_no_json() -> None:
    with pytest.raises(TargetError, match=r"the answer of http://host/x is not JSON") as caught:
        protocol.parse_queue(Answer("http://host/x", 200, b"<html>"))
    assert caught.value.remedy == "is a ComfyUI at that address?"


def test_an_upload_s_name() -> None:
    assert protocol.parse_upload(answer({"name": "a.png", "subfolder": "x", "type": "input"})) == "x/a.png"
    assert protocol.parse_upload(answer({"name": "a (1).png", "subfolder": ""})) == "a (1).png"
    with pytest.raises(TargetError, match="names no file"):
        protocol.parse_upload(answer({"subfolder": ""}))
