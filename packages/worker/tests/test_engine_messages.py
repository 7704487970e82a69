from __future__ import annotations

import pytest

from comfy_cpu_client import FileInput
from comfy_cpu_core.results import Output, Progress, Result
from comfy_cpu_worker.backends.engine_messages import (
    event_message,
    read_event,
    read_result,
    read_work,
    result_message,
    work_message,
)
from comfy_cpu_worker.frames import Decoder, FrameError, Message, encode
from comfy_cpu_worker.work import Work

WORK = Work(
    "job-1",
    {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}},
    files={"a.png": b"one", "b.png": b"two"},
    inputs={"1.image": FileInput("c.png", b"three")},
    values={"1.x": [1, None, "ü"]},
    convert=False,
    timeout_s=2.5,
)


def over_the_wire(message: Message) -> Message:
    decoder = Decoder()
    decoder.receive(b"".join(encode(message)))
    received = decoder.next_message()
    assert received is not None
    return received


def test_work_comes_over_whole() -> None:
    assert read_work(over_the_wire(work_message(7, WORK))) == (7, WORK)


def test_secrets_for_other_back_ends_do_not_leave() -> None:
    work = Work("j", {}, comfy_org_api_key="hidden-key")
    assert b"hidden-key" not in b"".join(encode(work_message(1, work)))


def test_events_come_over() -> None:
    event = Progress("step", "4", "Cut", 3, 8, 1, 5)
    message = over_the_wire(event_message(7, event))
    assert message.body["job"] == 7
    assert read_event(message.body) == event


def test_results_come_over() -> None:
    result = Result("completed", outputs=(Output("9", "SaveImage", "image", "a.png", "image/png", b"png"),))
    assert read_result(over_the_wire(result_message(7, result))) == result


@pytest.mark.parametrize("body", [{}, {"event": 3}, {"event": {"colour": "red"}}, {"event": {}}])
def test_what_is_no_event(body: dict[str, object]) -> None:
    with pytest.raises(FrameError, match="message event that is none"):
        read_event(body)


@pytest.mark.parametrize("body", [{}, {"result": 3}, {"result": {"status": "great"}}])
def test_what_is_no_result(body: dict[str, object]) -> None:
    with pytest.raises(FrameError, match="message result that is none"):
        read_result(Message("result", body))
