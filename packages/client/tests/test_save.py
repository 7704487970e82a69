from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from comfy_cpu_client import save_outputs
from comfy_cpu_core.errors import InputError
from comfy_cpu_core.results import Output


def test_outputs_keep_their_names(output: Output, tmp_path: Path) -> None:
    (saved,) = save_outputs([output], tmp_path / "new" / "directory")
    assert saved.path == tmp_path / "new" / "directory" / "out_00001_.png"
    assert saved.path.read_bytes() == b"png bytes"


def test_nothing_is_overwritten(output: Output, tmp_path: Path) -> None:
    others = [replace(output, data=str(n).encode()) for n in range(3)]
    for other in others:
        save_outputs([other], tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "out_00001_.png": b"0",
        "out_00001_-2.png": b"1",
        "out_00001_-3.png": b"2",
    }


def test_the_same_bytes_are_not_written_twice(output: Output, tmp_path: Path) -> None:
    first = save_outputs([output], tmp_path)
    second = save_outputs([output], tmp_path)
    assert first == second
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["../up.png", "/up.png", "a/../../up.png"])
def test_a_name_never_leaves_the_directory(name: str, output: Output, tmp_path: Path) -> None:
    (saved,) = save_outputs([replace(output, filename=name)], tmp_path / "out")
    assert saved.path == tmp_path / "out" / "up.png"


@pytest.mark.parametrize(
    ("subfolder", "where"), [("a/b", "a/b"), ("../up", "up"), ("/etc", "etc"), ("a/../../b", "a/b"), ("", ".")]
)
def test_subfolders_are_kept_inside_the_directory(subfolder: str, where: str, output: Output, tmp_path: Path) -> None:
    (saved,) = save_outputs([replace(output, subfolder=subfolder)], tmp_path / "out")
    assert saved.path == tmp_path / "out" / where / "out_00001_.png"


def test_a_directory_that_cannot_be_written(output: Output, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write") as caught:
        save_outputs([output], tmp_path / "file")
    assert "--output" in str(caught.value.remedy)
