"""What tests across packages share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock


@dataclass(frozen=True)
class Answer:
    """What a run of the command line gave."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def error_lines(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error:")]


@pytest.fixture
def clean_environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a child process: nothing of the user's, no Hub."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("COMFY_CPU_", "HF_", "RUNPOD_"))}
    return {
        **kept,
        "HOME": str(tmp_path / "home"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., Answer]]:
    """Call the command line in this process, from an empty directory."""
    from comfy_cpu_core.cli import main

    for key in list(os.environ):
        if key.startswith(("COMFY_CPU_", "HF_")):
            monkeypatch.delenv(key)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    work = tmp_path / "cwd"
    work.mkdir()
    monkeypatch.chdir(work)

    def call(*arguments: str | Path) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = stopped.value.code
        return Answer(code if isinstance(code, int) else 0, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def stand_in_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model tree with a stand-in for BEN2; made once for all test workers."""
    from comfy_cpu_nodes.testing import write_ben2_stand_in

    base = tmp_path_factory.getbasetemp()
    tree = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "stand-in-models"
    with FileLock(f"{tree}.lock"):
        file = tree / "ben2_onnx" / "BEN2_Base.onnx"
        if not file.exists():
            file.parent.mkdir(parents=True)
            write_ben2_stand_in(file)
    return tree


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All our distributions as wheels, and all that they require; built once for all test workers."""
    from wheels import MEMBERS, pip

    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "wheelhouse"
    with FileLock(f"{shared}.lock"):
        if not (shared / "done").exists():
            members = [str(member) for member in MEMBERS]
            pip("wheel", "--quiet", "--no-build-isolation", "--find-links", str(shared), "-w", str(shared), *members)
            (shared / "done").touch()
    return shared


@pytest.fixture
def run_python(clean_environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in a fresh interpreter."""

    def run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        return subprocess.run(command, check=False, capture_output=True, text=True, env=clean_environment)

    return run
