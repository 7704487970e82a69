from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_client.batch.inputs import BatchInput, InputReader
from comfy_cpu_core.errors import InputError
from comfy_cpu_core.workflow import Workflow, load

PROMPT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
    "2": {"class_type": "LoadImageMask", "inputs": {"image": "m.png", "channel": "alpha"}},
    "4": {"class_type": "Cut", "inputs": {"sensitivity": 0.5, "note": ""}},
}


@pytest.fixture
def workflow() -> Workflow:
    return load(PROMPT, {})


def read(workflow: Workflow, *sources: str | Path, key: str | None = None) -> list[BatchInput]:
    return sorted(InputReader(workflow, key).read(sources), key=lambda one: one.order)


def test_a_directory_gives_its_pictures(workflow: Workflow, tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    found = read(workflow, tmp_path)
    assert [one.label for one in found] == ["a.jpg", "b.PNG"]
    assert found[0].files == {"1.image": str(tmp_path / "a.jpg")}


def test_a_directory_without_pictures_is_an_error(workflow: Workflow, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="no inputs in") as raised:
        read(workflow, tmp_path)
    assert "glob" in str(raised.value.remedy)


def test_a_glob_gives_what_it_matches(workflow: Workflow, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.tga", "deep/b.tga", "c.png"):
        (tmp_path / name).touch()
    assert [one.label for one in read(workflow, f"{tmp_path}/**/*.tga")] == ["a.tga", "b.tga"]
    with pytest.raises(InputError, match="no inputs in"):
        read(workflow, f"{tmp_path}/*.nothing")


def test_a_file_may_have_a_name_like_a_glob(workflow: Workflow, tmp_path: Path) -> None:
    (tmp_path / "a[1].png").touch()
    assert [one.label for one in read(workflow, tmp_path / "a[1].png")] == ["a[1].png"]


def test_a_relative_path_is_the_same_input(workflow: Workflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").touch()
    monkeypatch.chdir(tmp_path)
    assert read(workflow, "a.png")[0].digest == read(workflow, tmp_path / "a.png")[0].digest


def test_what_is_not_there_is_an_error(workflow: Workflow, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file or directory"):
        read(workflow, tmp_path / "nothing")


def test_a_csv_table(workflow: Workflow, tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(
        "\ufeffid,image,2.image,set.4.sensitivity,set.4.note,sku\n"
        'one,one.jpg,m.png,0.25,"a, b",77\n'
        "\n"
        "two,deep/two.jpg,,,,78\n",
        encoding="utf-8",
    )
    one, two = read(workflow, tmp_path / "runs.csv")
    assert one.label == "one"
    assert one.files == {"1.image": str(tmp_path / "one.jpg"), "2.image": str(tmp_path / "m.png")}
    assert one.values == {"4.sensitivity": 0.25, "4.note": "a, b"}
    assert two.files == {"1.image": str(tmp_path / "deep" / "two.jpg")}
    assert two.values == {}


def test_a_jsonl_table(workflow: Workflow, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 7, "image": "a.png", "set": {"4.sensitivity": 0.1}, "set.4.note": "x"},
        {"inputs": {"1.image": "b.png"}, "2.image": "m.png"},
    ]
    (tmp_path / "runs.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    one, two = read(workflow, tmp_path / "runs.jsonl")
    assert one.label == "7"
    assert one.values == {"4.sensitivity": 0.1, "4.note": "x"}
    assert two.label == "runs-2"
    assert two.files == {"1.image": str(tmp_path / "b.png"), "2.image": str(tmp_path / "m.png")}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "image,set.9.x\na.png,1\n", r"t.csv, line 2: set.9.x: .*no node '9'"),
        ("t.csv", "image,4.sensitivit\na.png,1\n", r"line 2: 4.sensitivit: .*no input 'sensitivit'"),
        ("t.csv", "image\na.png,b.png\n", "more cells than"),
        ("t.csv", 'image\n"a.png\n', "t.csv, after line"),
        ("t.jsonl", '{"image": "a.png"}\n[1]\n', "line 2 is not a JSON object"),
        ("t.jsonl", '{"image": "a.png"}\n{"image"\n', "after line 1"),
        ("t.jsonl", '{"image": 7}\n', "line 1: image is 7, not a file name"),
        ("t.jsonl", '{"id": "x"}\n', "names no file and no value"),
        ("t.jsonl", "\n\n", "no inputs in"),
        ("t.csv", "", "no inputs in"),
    ],
)
def test_a_row_that_makes_no_sense(workflow: Workflow, tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        read(workflow, tmp_path / name)
    assert raised.value.remedy


def test_a_table_that_is_not_utf8(workflow: Workflow, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"image\n\xff\xfe.png\n")
    with pytest.raises(InputError, match="after line 0"):
        read(workflow, tmp_path / "t.csv")


def test_tables_and_directories_are_streamed(workflow: Workflow, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"image": "a.png"}\n{"image": 7}\n')
    rows = InputReader(workflow).read([tmp_path / "t.jsonl"])
    assert next(rows).label == "t-1"  # though the next one is bad


def test_two_load_images_need_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    two = load({**PROMPT, "9": {"class_type": "LoadImage", "inputs": {"image": "b.png"}}}, {})
    with pytest.raises(InputError, match="several LoadImage") as raised:
        read(two, tmp_path)
    assert "--input" in str(raised.value.remedy)
    assert read(two, tmp_path, key="9.image")[0].files == {"9.image": str(tmp_path / "a.png")}


def test_the_input_may_be_named(workflow: Workflow, tmp_path: Path) -> None:
    (tmp_path / "m.png").touch()
    assert read(workflow, tmp_path, key="2.image")[0].files == {"2.image": str(tmp_path / "m.png")}
    with pytest.raises(InputError, match=r"--input: .*no node '7'"):
        InputReader(workflow, "7.image")


def test_a_name_of_any_bytes(workflow: Workflow, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    try:
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("this file system takes no such names")
    (one,) = read(workflow, tmp_path)
    assert one.label == "\ufffd.png"
    assert Path(one.files["1.image"]).exists()
    json.loads(one.document.encode("ascii"))
