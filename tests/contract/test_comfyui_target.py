"""The client's ComfyUI target against a server on real sockets that does what a ComfyUI does, and what it does at its worst."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fake_comfyui import FakeComfyUI
from PIL import Image

from comfy_cpu_client import Client
from comfy_cpu_client.comfyui import Preview
from comfy_cpu_client.errors import TargetRefused, TargetUnreachable
from comfy_cpu_core.errors import DeadlineExceeded, TargetError, UsageError, WorkflowInvalid
from comfy_cpu_core.results import Progress

Prompt = dict[str, dict[str, Any]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeComfyUI]:
    with FakeComfyUI(tmp_path / "comfyui") as started:
        yield started


@pytest.fixture
def client(server: FakeComfyUI) -> Iterator[Client]:
    with Client(server.target, patience_s=1.0) as opened:
        yield opened


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def working(class_type: str, **inputs: Any) -> Prompt:
    """A node at work, and one that saves what it gives."""
    return {"1": node(class_type, **inputs), "2": node("PreviewImage", images=["1", 0])}


PICTURE: Prompt = {
    "1": node("LoadImage", image="photo.png"),
    "2": node("SaveImage", images=["1", 0], filename_prefix="out/cut"),
}


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "this did not come about"
        time.sleep(0.005)
    return found


def places(server: FakeComfyUI) -> list[str]:
    return [f"{seen.method} {seen.path.split('/')[1]}" for seen in server.seen]


# --- what works -----------------------------------------------------------------------------------------------------


def test_a_run_from_the_file_to_the_outputs(server: FakeComfyUI, client: Client) -> None:
    prompt = {
        "9": node("ShowText|pysssss", text={"__value__": ["a", "b"]}),
        "5": node("PreviewImage", images=["4", 0]),
        "4": node("Steps", count=2),
        "1": node("LoadImage", image="?"),
        "2": node("SaveImage", images=["1", 0], filename_prefix="out/cut"),
        "3": node("SaveVideo", images=["1", 0]),
        "6": node("SaveAudio", images=["1", 0]),
        "7": node("ShowBoxes", boxes={"__value__": [[1, 2], [3]]}),
    }
    events: list[Progress] = []
    result = client.run(prompt, inputs={"1.image": b"picture"}, on_event=events.append)
    assert result.ok, result.errors
    assert [(o.node_id, o.kind, o.folder, o.subfolder, o.filename, o.data) for o in result.outputs] == [
        ("9", "text", "output", "", "9_text_1.txt", b"a"),
        ("9", "text", "output", "", "9_text_2.txt", b"b"),
        ("5", "image", "temp", "", "ComfyUI_00001_.png", b"steps"),
        ("2", "image", "output", "out", "cut_00001_.png", b"picture"),
        ("3", "video", "output", "", "ComfyUI_00001_.webm", b"picture"),
        ("6", "audio", "output", "", "ComfyUI_00002_.flac", b"picture"),
        ("7", "json", "output", "", "7_boxes.json", b"[[1, 2], [3]]"),
    ]
    assert {timing.node_id for timing in result.timings} == set(prompt)
    assert [event.kind for event in events if event.node_id == "4"] == ["started", "step", "step", "finished"]
    assert events[-1].done == events[-1].nodes == 8
    assert {event.class_type for event in events} == {entry["class_type"] for entry in prompt.values()}
    assert (result.warnings, result.execution_seconds < 20, result.queue_seconds >= 0) == ((), True, True)
    # The websocket is there before anything can happen on it, and the history is looked at, not polled.
    order = places(server)
    assert order.index("GET ws") < order.index("POST prompt") < order.index("GET history")
    assert order.count("GET history") + order.count("GET queue") <= 4


def test_a_second_run_sends_the_file_no_second_time_and_says_what_was_cached(
    server: FakeComfyUI, client: Client
) -> None:
    first = client.run(PICTURE, files={"photo.png": b"picture"})
    second = client.run(PICTURE, files={"photo.png": b"picture"})
    assert first.outputs == second.outputs
    assert len(server.requests("upload")) == 1
    assert [timing.cached for timing in first.timings] == [False, False]
    assert [timing.cached for timing in second.timings] == [True, True]


def test_nothing_of_the_user_s_is_overwritten(server: FakeComfyUI, client: Client) -> None:
    (server.input / "photo.png").write_bytes(b"the user's")
    for data in (b"one", b"two"):
        result = client.run(PICTURE, files={"photo.png": data})
        assert result.outputs[0].data == data
    assert (server.input / "photo.png").read_bytes() == b"the user's"
    assert client.run(PICTURE).outputs[0].data == b"the user's"
    assert {path.parent.name for path in server.input.rglob("*.png")} == {"input", "comfy-cpu"}


def test_a_file_of_another_size_under_the_same_name_is_not_taken_for_ours(server: FakeComfyUI, client: Client) -> None:
    client.run(PICTURE, files={"photo.png": b"picture"})
    (upload,) = server.input.rglob("photo-*.png")
    upload.write_bytes(b"pict")  # half of it: the server's disk was full
    result = client.run(PICTURE, files={"photo.png": b"picture"})
    assert result.outputs[0].data == b"picture"


def test_a_class_that_lists_the_input_folder_gets_its_file_there(server: FakeComfyUI, client: Client) -> None:
    prompt = {"1": node("OldLoader", file="a.png"), "2": node("SaveImage", images=["1", 0], filename_prefix="x")}
    result = client.run(prompt, files={"a.png": b"picture"})
    assert result.ok
    assert result.outputs[0].data == b"picture"
    assert len(server.requests("prompt")) == 2


def test_a_file_that_no_input_names(client: Client) -> None:
    result = client.run({**PICTURE, "1": node("Sleep", seconds=0)}, files={"a.png": b"x"})
    assert result.ok
    assert result.warnings == ("the file 'a.png' was not sent: no input of the workflow names it",)


def test_a_workflow_in_ui_format_with_classes_that_only_the_server_knows(server: FakeComfyUI, client: Client) -> None:
    ui = {
        "nodes": [
            {"id": 1, "type": "Steps", "mode": 0, "inputs": [], "widgets_values": [3],
             "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}]},
            {"id": 2, "type": "SaveImage", "mode": 0, "widgets_values": ["ui"],
             "inputs": [{"name": "images", "type": "IMAGE", "link": 1}], "outputs": []},
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"]],
    }  # fmt: skip
    for _ in range(2):
        result = client.run(ui)
        assert result.ok, result.errors
        assert result.outputs[0].filename.startswith("ui_")
        assert result.changes is not None
        assert result.changes["unknown"] == []
    assert [seen.path for seen in server.requests("object_info")] == ["/object_info"]


def test_where_the_server_may_not_be_asked_for_its_classes(server: FakeComfyUI, client: Client) -> None:
    server.fault("object_info", status=403)
    result = client.run(PICTURE, files={"photo.png": b"picture"})
    assert result.ok


def test_outputs_run_again_where_their_files_may_be_gone(server: FakeComfyUI, client: Client) -> None:
    def lose_the_files() -> None:
        for path in server.folder("output").rglob("*.png"):
            path.unlink()

    prompt = {**PICTURE, "1": node("Steps", count=1)}
    assert client.run(prompt).ok
    lose_the_files()
    result = client.run(prompt)
    assert (result.status, result.errors[0].code, result.errors[0].node_id) == ("failed", "output", "2")
    assert "earlier run" in str(result.errors[0].remedy)
    with Client(server.target, rerun_outputs=True) as careful:
        for _ in range(2):
            result = careful.run(prompt)
            assert result.ok
            assert {timing.node_id: timing.cached for timing in result.timings} == {"1": True, "2": False}
            lose_the_files()


def test_previews(server: FakeComfyUI) -> None:
    seen: list[Preview] = []
    with Client(server.target, on_preview=seen.append) as client:
        assert client.run(working("Steps", count=2, seconds=0.2, preview=True)).ok
    assert [(p.media_type, p.node_id, p.data) for p in seen] == [
        ("image/jpeg", "1", b"\xff\xd8preview 1"), ("image/jpeg", "1", b"\xff\xd8preview 2"),
    ]  # fmt: skip


def test_a_key_for_paid_nodes_reaches_the_server_alone(server: FakeComfyUI, client: Client, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    result = client.run(working("Fail", message="no"), comfy_org_api_key="hunter2")
    assert server.requests("prompt")[0].document["extra_data"] == {"api_key_comfy_org": "hunter2"}
    assert "hunter2" not in json.dumps(result.to_json()) + caplog.text + repr(result)


def test_many_at_once(server: FakeComfyUI, client: Client) -> None:
    def run(number: int) -> bytes:
        result = client.run(PICTURE, files={"photo.png": b"picture %d" % number})
        assert result.ok, result.errors
        return result.outputs[0].data

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(24))) == [b"picture %d" % number for number in range(24)]
    assert threading.active_count() < 24


def test_health(server: FakeComfyUI, client: Client) -> None:
    assert client.health() == {
        "ready": True, "target": "comfyui", "url": server.url, "version": "0.3.64", "queued": 0, "running": 0,
    }  # fmt: skip
    server.die()
    health = client.health()
    assert health["ready"] is False
    assert "cannot be reached" in health["problem"]


def test_the_command_line(server: FakeComfyUI, cli: Any, tmp_path: Path) -> None:
    workflow, photo = tmp_path / "w.json", tmp_path / "p.png"
    workflow.write_text(json.dumps(PICTURE))
    Image.new("RGB", (4, 4)).save(photo)
    answer = cli("run", workflow, "--input", f"1.image={photo}", "--target", server.target, "--json")
    assert answer.code == 0, answer.err
    assert Path(answer.json()["outputs"][0]["path"]).read_bytes() == photo.read_bytes()
    assert cli("run", workflow, "--target", "comfyui+http://127.0.0.1:9").code == 7


# --- what the server refuses ----------------------------------------------------------------------------------------


def test_node_errors(server: FakeComfyUI, client: Client) -> None:
    with pytest.raises(WorkflowInvalid, match=r"node 1 \(LoadImage\): .*Invalid image file: photo\.png") as caught:
        client.submit(PICTURE)
    assert caught.value.remedy == "give the file with --input 1.image=FILE"
    assert caught.value.node_errors["1"]["errors"][0]["type"] == "custom_validation_failed"
    assert caught.value.error["type"] == "prompt_outputs_failed_validation"


def test_a_class_that_the_server_does_not_have(client: Client) -> None:
    with pytest.raises(WorkflowInvalid, match="node Magic does not exist"):
        client.submit(working("Magic"))


def test_a_workflow_of_which_a_part_would_be_left_out_does_not_run(server: FakeComfyUI, client: Client) -> None:
    prompt = {
        **working("Sleep", seconds=30),
        "8": node("LoadImage", image="gone"),
        "9": node("SaveVideo", images=["8", 0]),
    }
    with pytest.raises(WorkflowInvalid, match=r"node 8 \(LoadImage\)"):
        client.submit(prompt)
    until(lambda: not server.queue()["queue_running"])
    assert server.queue()["queue_pending"] == []


def test_an_output_that_is_connected_to_nothing_is_left_out(client: Client) -> None:
    result = client.run({**working("Sleep", seconds=0), "9": node("SaveVideo")})
    assert result.ok
    assert result.warnings == ("node 9 (SaveVideo) was left out: its input 'images' is not connected",)


# --- how runs end ---------------------------------------------------------------------------------------------------


def test_a_node_that_fails_is_a_failure_though_another_has_saved_a_picture(server: FakeComfyUI, client: Client) -> None:
    prompt = {
        **working("Steps", count=1),
        "3": node("FailAtEnd", kind="torch.SomeError", message="boom", after=["1", 0]),
    }
    result = client.run(prompt)
    assert list(server.folder("temp").iterdir())
    assert (result.status, result.outputs) == ("failed", ())
    (error,) = result.errors
    assert (error.code, error.message) == ("node_failed", "SomeError: boom")
    assert (error.node_id, error.class_type) == ("3", "FailAtEnd")
    assert 'File "nodes.py"' in error.details


def test_a_block_is_no_failure(client: Client) -> None:
    result = client.run(working("Fail", message="Content blocked by hybrid safety gate: a | b"))
    assert (result.status, result.errors[0].message) == ("blocked", "Content blocked by hybrid safety gate: a | b")


def test_a_blocker_that_the_history_does_not_tell_of(client: Client) -> None:
    result = client.run({**working("Steps", count=1), "3": node("ExecutionBlock", message="not today")})
    assert (result.status, result.outputs, result.errors[0].message) == ("failed", (), "not today")


def test_a_node_that_shows_a_file_outside_its_folder(client: Client) -> None:
    result = client.run({"1": node("Lie", filename="../../etc/passwd")})
    assert (result.status, result.outputs, result.errors[0].code) == ("failed", (), "output")


def test_cancel_while_it_runs(server: FakeComfyUI, client: Client) -> None:
    run = client.submit(working("Sleep", seconds=60))
    until(lambda: run.status() == "running")
    run.cancel()
    assert run.wait(20).status == "cancelled"
    assert run.status() == "cancelled"
    assert server.requests("interrupt")[0].document == {"prompt_id": run.id}


def test_cancel_while_it_waits_leaves_what_runs_alone(server: FakeComfyUI, client: Client) -> None:
    first = client.submit(working("Sleep", seconds=60))
    until(lambda: first.status() == "running")
    second = client.submit(working("Sleep", seconds=60))
    assert second.status() == "queued"
    second.cancel()
    result = second.wait(20)
    assert (result.status, result.errors[0].message) == ("cancelled", "the run was cancelled before it began")
    assert server.requests("interrupt") == []
    assert first.status() == "running"
    first.cancel()
    assert first.wait(20).status == "cancelled"


def test_the_deadline_interrupts_and_the_next_run_is_whole(server: FakeComfyUI, client: Client) -> None:
    result = client.run(working("Sleep", seconds=60), timeout_s=0.3)
    assert (result.status, result.errors[0].code, result.outputs) == ("timed_out", "deadline", ())
    assert client.run(working("Sleep", seconds=0)).ok


def test_the_deadline_holds_for_a_node_that_takes_no_notice(client: Client) -> None:
    begin = time.monotonic()
    result = client.run(working("Stubborn", seconds=60), timeout_s=0.3)
    assert result.status == "timed_out"
    assert "may still be at it" in result.errors[0].message
    assert time.monotonic() - begin < 20


def test_the_deadline_counts_the_queue(client: Client) -> None:
    first = client.submit(working("Sleep", seconds=60))
    second = client.run(working("Sleep", seconds=0), timeout_s=0.3)
    assert second.status == "timed_out"
    assert first.status() == "running"


def test_waiting_has_a_limit_of_its_own(client: Client) -> None:
    run = client.submit(working("Sleep", seconds=60))
    with pytest.raises(DeadlineExceeded, match=r"was still (queued|running) after 0\.05 s"):
        run.wait(0.05)
    run.cancel()
    assert run.wait(20).status == "cancelled"


def test_close_cancels_what_is_under_way(server: FakeComfyUI) -> None:
    with Client(server.target) as client:
        run = client.submit(working("Sleep", seconds=60))
        until(lambda: run.status() == "running")
    until(lambda: not server.queue()["queue_running"])
    assert run.wait(20).status == "cancelled"
    with pytest.raises(UsageError, match="is closed"):
        client.submit(PICTURE)


def test_a_listener_that_raises_ends_nothing(client: Client) -> None:
    def listen(event: Progress) -> None:
        raise KeyError("mine")

    result = client.run(working("Steps", count=2), on_event=listen)
    assert result.ok
    assert result.warnings == ("progress was no longer reported: KeyError: 'mine'",)


@pytest.mark.parametrize("timeout_s", [0, -1])
def test_a_time_limit_that_makes_no_sense(client: Client, timeout_s: float) -> None:
    with pytest.raises(UsageError, match="must be above 0"):
        client.run(PICTURE, files={"photo.png": b"x"}, timeout_s=timeout_s)


# --- faults ---------------------------------------------------------------------------------------------------------


def complete(client: Client) -> list[Progress]:
    """A run of some steps comes out whole; its events."""
    events: list[Progress] = []
    prompt = {**working("Steps", count=5, seconds=0.02), "3": node("SaveImage", images=["1", 0], filename_prefix="x")}
    result = client.run(prompt, on_event=events.append, timeout_s=30)
    assert result.ok, result.errors
    assert [output.data for output in result.outputs] == [b"steps", b"steps"]
    return events


def test_the_websocket_breaks_again_and_again(server: FakeComfyUI, client: Client) -> None:
    server.drop_websocket_after = 3
    complete(client)


def test_the_websocket_breaks_at_the_end(server: FakeComfyUI, client: Client) -> None:
    run = client.submit(working("Sleep", seconds=0.3))
    until(lambda: run.status() == "running")
    server.fault("ws", status=503)
    server.drop_websockets()
    assert run.wait(20).ok


@pytest.mark.parametrize("status", [400, 404, 500])
def test_no_websocket_can_be_had(server: FakeComfyUI, client: Client, status: int) -> None:
    server.fault("ws", status=status)
    assert complete(client) == []


def test_a_websocket_that_says_nothing(server: FakeComfyUI, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_cpu_client.comfyui.run._LIVE_SECONDS", 0.1)
    server.silent = True
    assert complete(client) == []


def test_messages_in_the_wrong_order(server: FakeComfyUI, client: Client) -> None:
    server.scramble = True
    complete(client)


def test_an_older_version(server: FakeComfyUI, client: Client) -> None:
    server.old = True
    events = complete(client)
    assert [event.kind for event in events if event.node_id == "1"] == ["started", *["step"] * 5, "finished"]
    run = client.submit(working("Sleep", seconds=60))
    until(lambda: run.status() == "running")
    run.cancel()
    assert run.wait(20).status == "cancelled"


def test_the_history_is_late(server: FakeComfyUI, client: Client) -> None:
    server.history_delay_s = 1.5
    complete(client)


@pytest.mark.parametrize("place", ["history", "view", "upload", "object_info"])
@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"status": 429}, {"reset": True}, {"lose": True}, {"truncate_to": 3}]
)
def test_what_may_be_asked_twice_is(server: FakeComfyUI, client: Client, place: str, fault: dict[str, Any]) -> None:
    server.fault(place, times=1, **fault)
    result = client.run(PICTURE, files={"photo.png": b"picture"})
    assert result.ok
    assert result.outputs[0].data == b"picture"


def test_a_prompt_whose_answer_was_lost_is_found_and_runs_once(server: FakeComfyUI, client: Client) -> None:
    for old in (False, True):
        server.old = old
        server.fault("prompt", lose=True, times=1)
        run = client.submit(working("Sleep", seconds=0.5 + old))  # another time: not from the cache
        assert run.wait(20).ok
    assert len(server.history(None)) == len(server.requests("prompt")) == 2


def test_a_prompt_that_was_not_accepted_is_not_sent_again(server: FakeComfyUI, client: Client) -> None:
    server.fault("prompt", reset=True, times=1)
    with pytest.raises(
        TargetUnreachable, match=r"cannot be reached: (Connection reset|the connection broke off)"
    ) as caught:
        client.submit(working("Sleep", seconds=0))
    assert caught.value.sent
    assert len(server.requests("prompt")) == 1
    assert server.history(None) == {}


def test_a_prompt_that_timed_out_on_its_way_does_not_run_on(server: FakeComfyUI, client: Client) -> None:
    server.fault("prompt", delay_s=1.0, lose=True, times=1)
    blocker = client.submit(working("Sleep", seconds=60))  # it takes the fault
    assert blocker.status() in {"queued", "running"}
    server.fault("prompt", delay_s=0.3, times=1)
    with pytest.raises(DeadlineExceeded):
        client.submit(working("Sleep", seconds=61), timeout_s=0.2)
    until(lambda: [item[1] for item in server.queue()["queue_running"]] == [blocker.id])
    until(lambda: server.queue()["queue_pending"] == [])
    blocker.cancel()
    assert blocker.wait(20).status == "cancelled"


def test_a_server_that_dies_in_the_middle(server: FakeComfyUI, client: Client) -> None:
    run = client.submit(working("Sleep", seconds=60))
    until(lambda: run.status() == "running")
    server.die()
    with pytest.raises(TargetUnreachable, match=f"{server.url} cannot be reached: Connection refused"):
        run.wait(20)
    assert run.status() == "failed"


def test_a_server_that_was_started_again_knows_nothing(server: FakeComfyUI, client: Client) -> None:
    run = client.submit(working("Sleep", seconds=60))
    until(lambda: run.status() == "running")
    server.forget()
    server.drop_websockets()
    with pytest.raises(TargetError, match="no longer knows the prompt"):
        run.wait(20)


def test_a_server_that_hangs(server: FakeComfyUI) -> None:
    with Client(server.target, read_timeout_s=0.2) as client:
        server.hung.set()
        with pytest.raises(TargetUnreachable, match=r"was silent for 0\.2 s"):
            client.submit(working("Sleep", seconds=0))


def test_the_deadline_holds_while_outputs_drip_in(server: FakeComfyUI, client: Client) -> None:
    server.fault("view", drip_s=0.05)
    prompt = {**PICTURE, "2": node("SaveImage", images=["1", 0], filename_prefix="x")}
    result = client.run(prompt, files={"photo.png": b"x" * 2000}, timeout_s=1.0)
    assert (result.status, result.outputs) == ("timed_out", ())


def test_answers_that_are_compressed(server: FakeComfyUI, client: Client) -> None:
    server.fault("any", gzip=True)
    data = b"picture" * 50_000
    assert client.run(PICTURE, files={"photo.png": data}).outputs[0].data == data


@pytest.mark.parametrize("place", ["history", "prompt", "object_info"])
def test_a_page_in_place_of_an_answer(server: FakeComfyUI, client: Client, place: str) -> None:
    server.fault(place, html=True)
    with pytest.raises(TargetError, match="is not JSON"):
        client.run(working("Sleep", seconds=0))


# --- getting there --------------------------------------------------------------------------------------------------


def test_nobody_is_there() -> None:
    with Client("comfyui+http://127.0.0.1:9") as client:
        with pytest.raises(TargetUnreachable, match=r"http://127\.0\.0\.1:9 cannot be reached") as caught:
            client.run(working("Sleep", seconds=0))
        assert not caught.value.sent
        assert "--listen" in str(caught.value.remedy)


REFUSALS = {401: "wants a login", 403: "does not allow", 404: "no ComfyUI is there", 302: "elsewhere"}


@pytest.mark.parametrize(
    ("place", "status"),
    # 302 or 404 for the websocket: there is none, and the run is followed without.
    [*((place, status) for place in ("any", "prompt") for status in REFUSALS), ("ws", 401), ("ws", 403)],
)
def test_refusals_are_told_apart(server: FakeComfyUI, client: Client, place: str, status: int) -> None:
    server.fault(place, status=status, headers={"Location": "https://login.example.org/?token=hunter2"})
    with pytest.raises(TargetRefused, match=REFUSALS[status]) as caught:
        client.run(working("Sleep", seconds=0))
    assert caught.value.status == status
    assert "hunter2" not in f"{caught.value} {caught.value.remedy}"


def test_a_redirect_is_not_followed(server: FakeComfyUI, client: Client) -> None:
    server.fault("object_info", status=307, headers={"Location": f"{server.url}/elsewhere"})
    with pytest.raises(TargetRefused, match="elsewhere"):
        client.run(working("Sleep", seconds=0))
    assert server.requests("elsewhere") == []


def test_login_with_user_and_password(server: FakeComfyUI) -> None:
    server.authorization = "Basic bW9uYTpodW50ZXIy"
    with Client(server.target.replace("//", "//mona:hunter2@")) as client:
        assert complete(client)
        assert "hunter2" not in repr(client) + str(client.health())
    with Client(server.target.replace("//", "//mona:wrong-one@")) as client:
        with pytest.raises(TargetRefused, match="does not take this login") as caught:
            client.run(PICTURE)
        assert "wrong-one" not in f"{caught.value!r} {caught.value} {caught.value.remedy} {client.health()}"


def test_login_with_a_token_whatever_netrc_says(
    server: FakeComfyUI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.authorization = "Bearer hunter2"
    with Client(server.target, token="hunter2") as client:
        assert complete(client)
    server.authorization = None
    with Client(server.target) as client:
        assert complete(client)
    assert all(seen.headers["Authorization"] in {"Bearer hunter2", None} for seen in server.seen)


def test_secrets_reach_no_log(server: FakeComfyUI, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for logger in ("urllib3", "websockets"):
        caplog.set_level("INFO", logger)  # at DEBUG, theirs show all that is sent
    server.authorization = "Bearer hunter2"
    with Client(server.target, token="hunter2") as client:
        complete(client)
    assert "hunter2" not in caplog.text


def test_a_target_without_its_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "websockets.asyncio.client", None)
    with pytest.raises(UsageError, match=r"needs websockets") as caught:
        Client("comfyui+http://127.0.0.1:9")
    assert caught.value.remedy == "pip install 'comfy-cpu-client[comfyui]'"


def test_nothing_stays_open(server: FakeComfyUI) -> None:
    before = set(threading.enumerate())
    with Client(server.target) as client:
        complete(client)
        with contextlib.suppress(WorkflowInvalid):
            client.run(PICTURE)
    until(lambda: not server._sockets)
    until(lambda: {t for t in threading.enumerate() if "comfy-cpu" in t.name} <= before)
