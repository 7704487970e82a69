from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from comfy_cpu_core.errors import UsageError
from comfy_cpu_worker.statedir import StateDirectory, default_state_dir


def test_each_port_has_its_own_default(tmp_path: Path) -> None:
    found = default_state_dir({"XDG_STATE_HOME": str(tmp_path)}, 8000)
    assert found == tmp_path / "comfy-cpu" / "worker" / "port-8000"
    assert found != default_state_dir({"XDG_STATE_HOME": str(tmp_path)}, 8001)


def test_it_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    directory = StateDirectory.open(None, tmp_path / "a" / "b")
    assert directory.path == tmp_path / "a" / "b"
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    directory.close()


def test_a_second_worker_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    first = StateDirectory(tmp_path)
    with pytest.raises(UsageError, match=rf"in use by another worker \(pid {os.getpid()}\)") as caught:
        StateDirectory.open(None, tmp_path)
    assert "--state" in (caught.value.remedy or "")
    first.close()
    StateDirectory(tmp_path).close()


def test_it_is_free_again_when_its_worker_was_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom comfy_cpu_worker.statedir import StateDirectory\n"
        "d = StateDirectory(Path(sys.argv[1]))\nprint('locked', flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UsageError, match=f"pid {other.pid}"):
            StateDirectory(tmp_path)
        other.kill()
    StateDirectory(tmp_path).close()


def test_where_the_default_cannot_be_written_it_is_temporary_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    directory = StateDirectory.open(None, tmp_path / "file" / "state")
    assert directory.temporary
    assert "do not survive" in caplog.text
    directory.close()
    assert not directory.path.exists()


def test_the_one_that_was_named_must_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        StateDirectory.open(tmp_path / "file" / "state", tmp_path)
