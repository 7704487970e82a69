"""A run's directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_cpu_core.errors import InputError
from comfy_cpu_engine.folders import run_folders


def test_files_go_in_and_everything_goes_at_the_end(tmp_path: Path) -> None:
    with run_folders({"a.png": b"a", "sub/b.png": b"b"}, tmp_path) as folders:
        assert (folders.input / "a.png").read_bytes() == b"a"
        assert (folders.input / "sub" / "b.png").read_bytes() == b"b"
        assert folders.output.is_dir()
        assert folders.temp.is_dir()
        (folders.output / "made.png").touch()
    assert list(tmp_path.iterdir()) == []


def test_it_goes_after_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), run_folders({}, tmp_path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "names",
    [
        ["../a"], ["/a"], ["a\\b"], ["a\0"], ["CON"], [""], ["a.png [input]"], ["a [temp]"], ["a", "a/b"], ["a/b", "a"],
    ],
)  # fmt: skip
def test_bad_names(names: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="input file"), run_folders(dict.fromkeys(names, b""), tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
