from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_core.errors import UsageError
from comfy_cpu_worker.errors import JobRejected
from comfy_cpu_worker.shelf import FileSlot, Shelf

EXAMPLES = Path(__file__).parents[3] / "examples" / "workflows"

API = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Photo"}},
    "2": {"class_type": "LLMSafetyGate", "inputs": {"primary_subject": "x"}},
    "3": {"class_type": "VHS_LoadVideo", "inputs": {"video": "a.mp4", "frame": 3}},
    "4": {"class_type": "LoadImageMask", "inputs": {"image": ["1", 0], "channel": "red"}},
    "5": {"class_type": "LoadImageModel", "inputs": {"name": "x"}},
}


def put(folder: Path, name: str, document: Any) -> None:
    (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))


def test_no_directory_means_no_workflows() -> None:
    assert Shelf(None).names() == []
    with pytest.raises(JobRejected, match="no workflow 'x' is baked") as caught:
        Shelf(None).get("x")
    assert caught.value.remedy == "those that are: there are none"


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no directory of workflows"):
        Shelf(tmp_path / "missing")


def test_what_a_workflow_takes(tmp_path: Path) -> None:
    put(tmp_path, "remove_background.json", API)
    (entry,) = Shelf(tmp_path).entries()
    assert (entry.name, entry.title, entry.gate, entry.problem) == ("remove_background", "remove background", True, "")
    assert entry.inputs == (FileSlot("1.image", "LoadImage", "Photo"), FileSlot("3.video", "VHS_LoadVideo", ""))
    assert entry.to_json()["inputs"][0] == {"key": "1.image", "class_type": "LoadImage", "title": "Photo"}
    assert json.loads(json.dumps(entry.to_json()))["gate"] is True


def test_the_examples_in_both_formats() -> None:
    shelf = Shelf(EXAMPLES)
    entries = {entry.name: entry for entry in shelf.entries()}
    assert {entry.problem for entry in entries.values()} == {""}
    assert all(any(slot.class_type == "LoadImage" for slot in entry.inputs) for entry in entries.values())
    for name in shelf.names():
        assert shelf.get(name) == json.loads((EXAMPLES / f"{name}.json").read_text())


def test_a_workflow_may_be_named_with_its_suffix(tmp_path: Path) -> None:
    put(tmp_path, "a.json", API)
    assert Shelf(tmp_path).get("a.json") == Shelf(tmp_path).get("a") == API


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "sub/inner", "..", "", "a\n", "a.json/../a", "A"])
def test_no_name_leads_out_of_the_directory(tmp_path: Path, name: str) -> None:
    put(tmp_path, "secret.json", API)
    shelf = tmp_path / "shelf"
    (shelf / "sub").mkdir(parents=True)
    put(shelf, "a.json", API)
    put(shelf / "sub", "inner.json", API)
    with pytest.raises(JobRejected, match=r"no workflow .* is baked"):
        Shelf(shelf).get(name)


@pytest.mark.parametrize("content", ["{", "[]", "", '{"a": 1}', '{"nodes": []}'])
def test_a_broken_file_is_reported_and_spoils_no_other(tmp_path: Path, content: str) -> None:
    put(tmp_path, "bad.json", content)
    put(tmp_path, "good.json", API)
    shelf = Shelf(tmp_path)
    bad, good = shelf.entries()
    assert bad.problem.startswith("bad.json: ")
    assert good.problem == ""
    assert shelf.names() == ["bad", "good"]


def test_a_broken_file_fails_the_job_that_names_it(tmp_path: Path) -> None:
    put(tmp_path, "bad.json", "{")
    put(tmp_path, "list.json", "[]")
    with pytest.raises(JobRejected, match=r"input\.workflow: bad\.json: not JSON"):
        Shelf(tmp_path).get("bad")
    with pytest.raises(JobRejected, match=r"input\.workflow: list\.json is not a workflow"):
        Shelf(tmp_path).get("list")


def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    put(tmp_path, "a.json", "{")
    shelf = Shelf(tmp_path)
    assert shelf.entries()[0].problem
    put(tmp_path, "a.json", API)
    assert shelf.entries()[0].problem == ""
    assert shelf.entries()[0] is shelf.entries()[0]
    (tmp_path / "a.json").unlink()
    assert shelf.entries() == []
