"""``comfy-cpu nodes install`` as a user has it: from wheels, with the real pip, into an environment of its own.

The ComfyUI is a directory that looks like one; tests/comfyui has the real one.
"""

from __future__ import annotations

import json
import os
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wheels import pip

PROBE = """
import json, sys
from importlib import metadata
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import runpy
pack = runpy.run_path(str(Path(sys.argv[1], "comfy-cpu", "__init__.py")))
print(json.dumps({
    "classes": list(pack["NODE_CLASS_MAPPINGS"]),
    "distributions": {d.metadata["Name"]: d.version for d in metadata.distributions()},
}))
"""


def pretend(python: Path, name: str, version: str) -> None:
    """Make a distribution look installed."""
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / "RECORD").write_text("")
    (folder / "INSTALLER").write_text("pip\n")


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    """A ComfyUI with a virtual environment that has a torch and no pip."""
    root = tmp_path / "ComfyUI"
    (root / "custom_nodes").mkdir(parents=True)
    for name in ("main.py", "folder_paths.py"):
        (root / name).touch()
    (root / "comfyui_version.py").write_text('__version__ = "0.3.64"\n')
    venv.create(root / "venv", with_pip=False, symlinks=True)
    pretend(root / "venv" / "bin" / "python", "torch", "2.5.1+cpu")
    return root


@pytest.fixture(scope="module")
def install(
    wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command, out of an environment that has core alone, installed from a wheel. There is no index."""
    tool = tmp_path_factory.mktemp("tool")
    venv.create(tool, with_pip=True, symlinks=True)
    pip(
        "--python", str(tool / "bin" / "python"), "install", "-q", "--no-index", "-f", str(wheelhouse), "comfy-cpu-core"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COMFY_CPU_", "PIP_"))}
    command = [str(tool / "bin" / "comfy-cpu"), "nodes", "install", "--find-links", str(wheelhouse), "--json"]

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {**clean, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
        return subprocess.run(
            [*command, *map(str, arguments)], check=False, capture_output=True, text=True, env=environment
        )

    return run


def probe(comfyui: Path) -> Any:
    """Load the pack in that ComfyUI's Python."""
    command = [comfyui / "venv" / "bin" / "python", "-I", "-c", PROBE, comfyui / "custom_nodes"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_the_nodes_arrive(comfyui: Path, install: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = install(comfyui, "--extra", "models")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    found = probe(comfyui)
    assert found["classes"] == answer["classes"]
    assert "SmartResizeForModel" in answer["classes"]
    assert "BEN2_ONNX_RemoveBg" in answer["missing"], "no runtime for ONNX models was asked for"
    assert "pip install 'comfy-cpu-nodes[openvino]'" in answer["missing"]["BEN2_ONNX_RemoveBg"]
    assert found["distributions"]["torch"] == "2.5.1+cpu"
    assert {"comfy-cpu-core", "comfy-cpu-nodes", "comfy-cpu-plugin-ben2"} <= set(found["distributions"])
    assert "comfy-cpu-client" not in found["distributions"]

    again = install(comfyui, "--extra", "models")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == {**answer, "packages": []}


def test_what_would_break_is_not_installed(
    comfyui: Path, install: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    pretend(comfyui / "venv" / "bin" / "python", "pillow", "9.5.0")
    done = install(comfyui, "--extra", "models")
    assert done.returncode == 5, done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "pillow==9.5.0" in error
    assert "comfy-cpu-nodes" in error
    assert "pillow>=" in error
    assert "nothing was installed" in error
    assert list((comfyui / "custom_nodes").iterdir()) == []
    (site,) = comfyui.glob("venv/lib/python*/site-packages")
    assert not [path for path in site.iterdir() if "comfy_cpu" in path.name]


def test_what_is_not_to_be_had(comfyui: Path, install: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = install(comfyui, "--extra", "openvino")
    assert done.returncode == 5
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "No matching distribution found for openvino" in error
    assert "Traceback" not in done.stderr
    assert list((comfyui / "custom_nodes").iterdir()) == []
