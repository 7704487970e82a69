from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from comfy_cpu_client import save_outputs
from comfy_cpu_client.save import check_directory
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


def test_half_a_file_does_not_stay(output: Output, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(InputError, match="cannot write to"):
            save_outputs([replace(output, data=bytes(2000))], tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_checked_without_making_it(tmp_path: Path) -> None:
    check_directory(tmp_path)
    check_directory(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for path in ("file", "file/below", "x" * 300):
        with pytest.raises(InputError, match="cannot write to"):
            check_directory(tmp_path / path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="read-only"):
        check_directory(tmp_path / "out")
