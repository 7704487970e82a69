from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_client import Client, FileInput
from comfy_cpu_client import values as values_module
from comfy_cpu_core.errors import InputError, TargetError, UsageError, WorkflowError
from comfy_cpu_core.results import Progress, Result

PROMPT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "old.png"}},
    "4": {"class_type": "Cut", "inputs": {"image": ["1", 0], "provider": "CUDA", "strength": 1}},
}


def test_a_run_hands_over_the_converted_workflow_and_the_files(target: Any, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"jpeg")
    result = Client("fake").run(PROMPT, inputs={"1.image": photo}, set={"4.strength": 0.5}, timeout_s=9)
    (request,) = target.requests
    assert request.prompt["1"]["inputs"] == {"image": "photo.jpg"}
    assert request.prompt["4"]["inputs"] == {"image": ["1", 0], "provider": "CPU", "strength": 0.5}
    assert request.files == {"photo.jpg": b"jpeg"}
    assert request.timeout_s == 9
    assert result.changes is not None
    assert [change["input"] for change in result.changes["changes"]] == ["provider"]


def test_the_callers_workflow_is_not_changed(target: Any) -> None:
    before = json.dumps(PROMPT)
    Client("fake").run(PROMPT, set={"4.strength": 0.5})
    assert json.dumps(PROMPT) == before


def test_conversion_can_be_left_out(target: Any) -> None:
    result = Client("fake").run(PROMPT, convert=False)
    assert target.requests[0].prompt["4"]["inputs"]["provider"] == "CUDA"
    assert result.changes is None


def test_options_reach_the_target(target: Any) -> None:
    Client("fake", models="tree")
    assert target.options == {"models": "tree"}


def test_events_reach_the_caller(target: Any) -> None:
    events: list[Progress] = []
    Client("fake").run(PROMPT, on_event=events.append)
    assert [event.kind for event in events] == ["finished"]


def test_an_interrupt_cancels_the_run_before_it_is_passed_on(target: Any) -> None:
    target.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        Client("fake").run(PROMPT)
    assert target.jobs[0].cancelled


def test_submit_gives_a_run_that_can_be_asked_and_cancelled(target: Any) -> None:
    run = Client("fake").submit(PROMPT)
    assert (run.id, run.status()) == ("job-1", "completed")
    assert isinstance(run.wait(1), Result)
    run.cancel()
    assert target.jobs[0].cancelled


def test_a_client_closes_its_target(target: Any) -> None:
    with Client("fake") as client:
        assert client.health() == {"ready": True}
    assert target.closed == 1


def test_an_unknown_target_names_those_that_are_there(target: Any) -> None:
    with pytest.raises(UsageError, match="unknown target 'mars://1'") as caught:
        Client("mars://1?token=secret")
    assert "fake" in str(caught.value.remedy)
    assert "secret" not in str(caught.value)


def test_repr_shows_no_query(target: Any) -> None:
    assert repr(Client("fake:x?token=secret")) == "Client('fake:x')"


@pytest.mark.parametrize(("make", "text"), [(lambda p: p / "no.jpg", "no file"), (lambda p: p, "directory")])
def test_a_file_that_cannot_be_read(make: Any, text: str, target: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"input 1.image: .*{text}"):
        Client("fake").run(PROMPT, inputs={"1.image": make(tmp_path)})
    assert target.requests == []


def test_an_input_that_the_workflow_does_not_have(target: Any) -> None:
    with pytest.raises(WorkflowError, match="77"):
        Client("fake").run(PROMPT, inputs={"77.image": b"x"})


def test_bytes_and_named_bytes(target: Any) -> None:
    prompt = {**PROMPT, "2": {"class_type": "LoadImage", "inputs": {"image": "b"}}}
    Client("fake").run(prompt, inputs={"1.image": b"one", "2.image": FileInput("dir/two.png", b"two")})
    assert target.requests[0].files == {"1.image.bin": b"one", "two.png": b"two"}


def test_a_targets_error_passes_through(target: Any) -> None:
    target.error = TargetError("gone")
    with pytest.raises(TargetError):
        Client("fake").run(PROMPT)


def test_a_file_without_an_end_does_not_fill_the_memory(target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values_module, "MAX_FILE_BYTES", 1000)
    with pytest.raises(InputError, match="/dev/zero has more than 1,000 bytes"):
        Client("fake").run(PROMPT, inputs={"1.image": "/dev/zero"})


def test_a_name_that_no_file_can_have(target: Any) -> None:
    with pytest.raises(InputError, match="is not a path"):
        Client("fake").run(PROMPT, inputs={"1.image": "a\0b"})


@pytest.mark.parametrize("name", ["x://u:secret@host/", "x://secret@host/", "x://host/?key=secret", "x://host/#secret"])
def test_messages_have_no_secrets_of_the_target(target: Any, name: str) -> None:
    with pytest.raises(UsageError, match="unknown target 'x://host/'"):
        Client(name)


def test_files_that_the_workflow_names_keep_their_names(target: Any, tmp_path: Path) -> None:
    (tmp_path / "on-disk.png").write_bytes(b"two")
    files = {"old.png": b"one", "faces/b.png": tmp_path / "on-disk.png"}
    Client("fake").run(PROMPT, files=files)
    (request,) = target.requests
    assert request.prompt["1"]["inputs"]["image"] == "old.png"
    assert request.files == {"old.png": b"one", "faces/b.png": b"two"}


def test_an_upload_never_takes_the_place_of_a_file_that_the_workflow_names(target: Any) -> None:
    prompt = {**PROMPT, "2": {"class_type": "LoadImage", "inputs": {"image": "old.png"}}}
    Client("fake").run(prompt, files={"old.png": b"named"}, inputs={"2.image": FileInput("old.png", b"uploaded")})
    (request,) = target.requests
    names = [request.prompt[node]["inputs"]["image"] for node in ("1", "2")]
    assert [request.files[name] for name in names] == [b"named", b"uploaded"]
    assert names[0] == "old.png"


def test_a_file_that_the_workflow_names_and_that_is_not_there(target: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"file old.png: there is no file"):
        Client("fake").run(PROMPT, files={"old.png": tmp_path / "no.png"})


def test_the_file_for_the_only_picture_needs_no_name(target: Any, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"jpeg")
    client = Client("fake")
    for value in (photo, str(photo), FileInput("photo.jpg", b"jpeg")):
        client.run(PROMPT, inputs=value)
        assert target.requests[-1].files == {"photo.jpg": b"jpeg"}
        assert target.requests[-1].prompt["1"]["inputs"]["image"] == "photo.jpg"
    with pytest.raises(WorkflowError, match="several LoadImage"):
        client.run({**PROMPT, "2": {"class_type": "LoadImage", "inputs": {"image": "b"}}}, inputs=photo)


def test_progress_is_kept_for_those_who_ask_for_it(target: Any) -> None:
    client = Client("fake")
    run = client.submit(PROMPT)
    assert [event.kind for event in run.stream()] == [event.kind for event in run.stream()] == ["finished"]
    assert run.progress == Progress("finished", "1", "LoadImage", done=1, nodes=1)
    assert [event.kind for event in client.stream(PROMPT)] == ["finished"]
    assert run.result(1) == run.wait(1)


def test_a_key_reaches_the_target_and_no_repr(target: Any) -> None:
    Client("fake").run(PROMPT, idempotency_key="mine", comfy_org_api_key="secret")
    (request,) = target.requests
    assert (request.idempotency_key, request.comfy_org_api_key) == ("mine", "secret")
    assert "secret" not in repr(request)


@pytest.mark.parametrize("call", [lambda c: c.attach("j"), lambda c: c.retry("j"), lambda c: c.purge()])
def test_a_target_that_keeps_no_runs(target: Any, call: Any) -> None:
    with pytest.raises(UsageError, match="keeps no runs"):
        call(Client("fake"))


def test_a_key_for_paid_nodes_is_handed_over_and_not_shown(target: Any) -> None:
    Client("fake").run(PROMPT, comfy_org_api_key="hunter2")
    (request,) = target.requests
    assert request.comfy_org_api_key == "hunter2"
    assert "hunter2" not in repr(request)


def test_a_target_that_knows_node_classes_is_asked_once(target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []

    def object_info() -> dict[str, Any]:
        asked.append(None)
        return {"Cut": {"input": {"required": {"strength": ["FLOAT", {}]}}, "output": ["IMAGE"]}}

    client = Client("fake")
    assert "Cut" not in client.signatures()
    monkeypatch.setattr(target, "object_info", object_info, raising=False)
    client = Client("fake")
    assert asked == []
    assert client.run(PROMPT).changes["unknown"] == [{"node_id": "1", "class_type": "LoadImage"}]  # type: ignore[index]
    assert client.signatures()["Cut"].outputs == ("IMAGE",)
    assert asked == [None]
