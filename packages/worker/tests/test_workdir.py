from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from comfy_cpu_worker.workdir import WorkDirectory, sweep


def test_a_directory_is_made_and_removed(tmp_path: Path) -> None:
    directory = WorkDirectory(tmp_path / "new")
    (directory.path / "sub").mkdir()
    (directory.path / "sub" / "file").write_text("x")
    assert directory.path.parent == tmp_path / "new"
    directory.remove()
    directory.remove()
    assert list((tmp_path / "new").iterdir()) == []


def test_what_a_killed_worker_left_behind_is_swept_away(tmp_path: Path) -> None:
    program = """
        import os, signal, sys
        from pathlib import Path
        from comfy_cpu_worker.workdir import WorkDirectory
        directory = WorkDirectory(Path(sys.argv[1]))
        (directory.path / "file").write_text("x")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    lines = "\n".join(line.strip() for line in program.splitlines())
    subprocess.run([sys.executable, "-c", lines, tmp_path], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    ours = WorkDirectory(tmp_path)
    (tmp_path / "comfy-cpu-worker-half-gone").mkdir()  # somebody was killed while removing it
    (tmp_path / "something-else").mkdir()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {ours.path.name, "something-else"}
    ours.remove()


def test_a_place_that_is_not_there_has_nothing_to_sweep(tmp_path: Path) -> None:
    sweep(tmp_path / "nowhere")


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        WorkDirectory(tmp_path / "file")
