from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_cpu_client.payload import (
    Parcel,
    choose_outputs,
    output_to_result,
    read_output,
    result_to_output,
)
from comfy_cpu_core.errors import TargetError
from comfy_cpu_core.results import ModelUse, NodeFailure, NodeTiming, Output, Result

PNG = b"\x89PNG\r\n\x1a\nrest"
B64 = base64.b64encode(PNG).decode()


def picture(name: str = "a.png", data: bytes = PNG, **more: Any) -> Output:
    return Output("9", "SaveImage", "image", name, "image/png", data, **more)


def text(data: str | bytes, kind: Any = "text") -> Output:
    return Output("7", "ShowText", kind, "7_text.txt", "text/plain", data if isinstance(data, bytes) else data.encode())


def sent(result: Result, *parcels: Parcel, **options: Any) -> Any:
    """The document after its way through JSON."""
    return json.loads(json.dumps(result_to_output(result, parcels or None, **options)))


names = st.from_regex(r"[\w -]{1,20}\.[a-z]{2,4}", fullmatch=True)
outputs = st.builds(
    Output,
    node_id=st.text(max_size=5),
    class_type=st.text(max_size=10),
    kind=st.sampled_from(["image", "mask", "text", "json", "audio", "video", "file"]),
    filename=names,
    media_type=st.sampled_from(["image/png", "text/plain", "application/octet-stream"]),
    data=st.binary(max_size=200) | st.text(max_size=100).map(lambda t: t.encode("utf-8", "replace")),
    subfolder=st.sampled_from(["", "faces", "a/b"]),
    folder=st.sampled_from(["output", "temp"]),
)


@settings(deadline=None)
@given(st.lists(outputs, max_size=8))
def test_every_byte_comes_back_in_order(made: list[Output]) -> None:
    result = Result("completed", outputs=tuple(made), timings=(NodeTiming("1", "X", 0.5),), execution_seconds=1.5)
    assert output_to_result(sent(result, previews=True)) == result


def test_a_whole_result_comes_back() -> None:
    result = Result(
        "completed",
        outputs=(picture(),),
        timings=(NodeTiming("1", "LoadImage", 0.1, cached=True),),
        models=(ModelUse("a.onnx", "openvino 2025", "bf16", 2, stand_in=True),),
        changes={"ok": True, "changes": []},
        warnings=("careful",),
        queue_seconds=0.5,
        execution_seconds=2.0,
    )
    document = sent(result)
    assert document["result"]["stand_in"] is True
    assert "outputs" not in document["result"]
    assert output_to_result(document) == result


def test_items_have_the_payload_under_data_and_say_what_they_are() -> None:
    document = sent(Result("completed", outputs=(picture(), text("hi"), text("{}", "json"))))
    (item,) = document["images"]
    assert item["type"] == "base64"
    assert item["filename"] == "a.png"
    assert base64.b64decode(item["data"]) == PNG
    assert item["size"] == len(PNG)
    assert item["media_type"] == "image/png"
    assert [(item["type"], item["data"], item["kind"]) for item in document["texts"]] == [
        ("text", "hi", "text"),
        ("text", "{}", "json"),
    ]
    assert document["status"] == "completed"
    assert "errors" not in document
    assert not {"videos", "audio", "files", "blocked"} & set(document)


def test_text_that_is_no_utf_8_travels_as_bytes() -> None:
    result = Result("completed", outputs=(text(b"\xff\xfe"),))
    document = sent(result)
    assert document["texts"][0]["type"] == "base64"
    assert output_to_result(document) == result


def test_previews_are_delivered_if_there_is_nothing_else_or_they_are_asked_for() -> None:
    kept, preview = picture(), picture("p.png", folder="temp")
    both, only = Result("completed", outputs=(preview, kept)), Result("completed", outputs=(preview,))
    assert choose_outputs(both) == [kept]
    assert choose_outputs(both, True) == [preview, kept]
    assert choose_outputs(only) == [preview]
    assert choose_outputs(only, False) == []


def test_nothing_made_is_said_as_the_reference_says_it() -> None:
    document = sent(Result("completed"))
    assert (document["status"], document["images"]) == ("success_no_images", [])
    assert output_to_result(document).status == "completed"
    assert sent(Result("completed", outputs=(text("only text"),)))["status"] == "completed"


def test_nothing_gets_out_of_a_run_that_did_not_complete() -> None:
    gate = NodeFailure("blocked", "Content blocked by safety gate: nsfw", "5", "LLMSafetyGate")
    document = sent(Result("blocked", outputs=(picture(),), errors=(gate,)))
    assert document["images"] == []
    assert document["status"] == "blocked"
    assert document["blocked"] == {"node_id": "5", "class_type": "LLMSafetyGate", "message": gate.message}
    assert document["errors"] == [f"node 5 (LLMSafetyGate): {gate.message}"]
    assert output_to_result(document, state="FAILED", error=gate.message) == Result("blocked", errors=(gate,))


def test_a_failure_keeps_its_traceback_and_remedy() -> None:
    failure = NodeFailure("node_failed", "it broke", "4", "X", "Traceback…\n  line", "mend it")
    result = Result("failed", errors=(failure,))
    document = sent(result)
    assert document["errors"] == ["node 4 (X): it broke"]
    assert output_to_result(document, state="FAILED", error="node 4 (X): it broke") == result


def test_an_output_that_was_made_smaller_says_what_it_was() -> None:
    small = Output("9", "SaveImage", "image", "a.webp", "image/webp", b"small")
    item = sent(Result("completed", outputs=(picture(),)), Parcel(small, original=picture()))["images"][0]
    assert item["reencoded"] == {
        "filename": "a.png", "media_type": "image/png", "size": len(PNG), "sha256": picture().sha256,
    }  # fmt: skip
    assert (item["media_type"], item["size"], item["sha256"]) == ("image/webp", 5, small.sha256)


# Outputs in a bucket ---------------------------------------------------------------------------------------------------


def test_an_output_in_a_bucket_is_fetched_later() -> None:
    result = Result("completed", outputs=(picture("a.png"), picture("b.png", b"other")))
    url = "https://bucket.example/a.png?X-Amz-Signature=0123"
    received = read_output(sent(result, Parcel(result.outputs[0], url), Parcel(result.outputs[1])))
    (remote,) = received.remote
    assert remote.url == url
    assert "0123" not in repr(received)
    assert (remote.size, remote.sha256) == (len(PNG), result.outputs[0].sha256)
    assert received.complete([PNG]) == result
    with pytest.raises(TargetError, match="did not arrive as the worker sent it"):
        received.complete([PNG + b"!"])
    with pytest.raises(TargetError, match="1 outputs of the worker are in a bucket and 0 were fetched"):
        received.complete()


def test_a_damaged_item_is_an_error() -> None:
    document = sent(Result("completed", outputs=(picture(),)))
    document["images"][0]["data"] = base64.b64encode(PNG + b"x").decode()
    with pytest.raises(TargetError, match=r"output\.images\[0\] did not arrive"):
        output_to_result(document)


# Other workers ---------------------------------------------------------------------------------------------------------


def test_the_reference_worker() -> None:
    result = output_to_result(
        {"images": [{"filename": "ComfyUI_00001_.png", "type": "base64", "data": B64}]},
        queue_seconds=1.0,
        execution_seconds=2.0,
    )
    (output,) = result.outputs
    assert (result.status, output.filename, output.kind, output.media_type, output.data) == (
        "completed", "ComfyUI_00001_.png", "image", "image/png", PNG,
    )  # fmt: skip
    assert (result.queue_seconds, result.execution_seconds) == (1.0, 2.0)
    remote = read_output({"images": [{"filename": "x.png", "type": "s3_url", "data": "https://b/x.png"}]}).remote
    assert [(part.url, part.sha256, part.output.filename) for part in remote] == [("https://b/x.png", None, "x.png")]


@pytest.mark.parametrize(
    "document",
    [
        {"images": [B64]},
        {"images": [f"data:image/png;base64,{B64}"]},
        {"images": [{"image": B64}]},
        {"status": "success", "message": B64},
        {"images": [f"{B64[:8]}\n{B64[8:]}"]},
    ],
    ids=["bare", "data URI", "image instead of data", "message", "line breaks"],
)
def test_older_workers(document: Any) -> None:
    result = output_to_result(document)
    (output,) = result.outputs
    assert (output.data, output.filename, output.media_type) == (PNG, "image_00001.png", "image/png")
    assert result.ok


def test_a_message_may_be_a_url() -> None:
    assert read_output({"status": "success", "message": "https://b/x.png"}).remote[0].url == "https://b/x.png"


def test_an_error_with_a_picture_is_no_success() -> None:
    """The reference completes such a job. The picture is there all the same."""
    result = output_to_result({"images": [{"filename": "a.png", "data": B64}], "errors": ["node 3 failed"]})
    assert (result.status, [e.message for e in result.errors]) == ("failed", ["node 3 failed"])
    assert len(result.outputs) == 1


def test_a_block_lets_nothing_out_whatever_the_document_holds() -> None:
    message = "Content blocked by safety gate: nsfw"
    result = output_to_result({"images": [B64], "errors": [f"Node 5: {message}"]})
    assert (result.status, result.outputs) == ("blocked", ())
    assert output_to_result(None, state="FAILED", error=message).status == "blocked"


@pytest.mark.parametrize(
    ("output", "said", "status", "messages"),
    [
        (None, {"state": "FAILED", "error": "boom"}, "failed", ["boom"]),
        (None, {"state": "FAILED"}, "failed", ["the job ended FAILED, and did not say why"]),
        (None, {"state": "TIMED_OUT"}, "timed_out", ["the job ended TIMED_OUT, and did not say why"]),
        (None, {"state": "CANCELLED"}, "cancelled", ["the job ended CANCELLED, and did not say why"]),
        (None, {"state": "SOMETHING"}, "failed", ["the job ended SOMETHING, and did not say why"]),
        ({"error": "boom", "details": ["more", "lines"]}, {}, "failed", ["boom"]),
        (None, {}, "failed", ["the job completed, and its output is gone: it was too large, or kept too long"]),
        ({"status": "completed", "result": {"status": "completed"}}, {"state": "FAILED", "error": "x"}, "failed", ["x"]),
        ({"status": "failed", "result": {"status": "failed"}}, {}, "failed", ["the job ended COMPLETED, and did not say why"]),
    ],
)  # fmt: skip
def test_what_did_not_complete(output: Any, said: dict[str, str], status: str, messages: list[str]) -> None:
    result = output_to_result(output, **said)
    assert (result.status, [error.message for error in result.errors]) == (status, messages)
    assert result.outputs == ()
    if isinstance(output, dict) and "details" in output:
        assert result.errors[0].details == "more\nlines"


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("text", "output is not an object"),
        ({"images": "x"}, "output.images is not a list"),
        ({"images": [{"filename": "a.png"}]}, r"output\.images\[0\] has no data"),
        ({"images": ["not base64!"]}, r"output\.images\[0\] is not base64"),
        ({"result": {"status": "splendid"}}, r"output\.result\.status is 'splendid'"),
    ],
)
def test_what_makes_no_sense(output: Any, problem: str) -> None:
    with pytest.raises(TargetError, match=problem):
        output_to_result(output)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "", 5, None])
def test_a_name_is_never_a_path(name: Any) -> None:
    (output,) = output_to_result({"images": [{"filename": name, "data": B64}]}).outputs
    assert output.filename in {"passwd", "image_00001.png"}
