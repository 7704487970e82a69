"""What is not imported: heavy libraries, by the core and by the command line before a command is called."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"numpy", "PIL", "rich", "huggingface_hub", "openvino", "onnxruntime", "requests", "httpx", "torch", "cv2"}
HEAVY_PARTS_OF_OURS = {"comfy_cpu_core.workflow.load", "comfy_cpu_core.convert", "comfy_cpu_core.fetch"}

HELP = """
import contextlib, io
from comfy_cpu_core.cli import main
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
    main(["--help"])
assert "doctor" in out.getvalue(), out.getvalue()
"""


def modules_after(program: str) -> set[str]:
    """The modules that a fresh interpreter has after running a program."""
    report = "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program + report], check=True, capture_output=True, text=True, timeout=60
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "program", ["import comfy_cpu_core", "import comfy_cpu_core.cli", HELP], ids=["core", "cli", "help"]
)
def test_nothing_heavy_is_imported(program: str) -> None:
    assert modules_after(program) & HEAVY == set()


def test_the_help_needs_no_workflow() -> None:
    assert modules_after(HELP) & HEAVY_PARTS_OF_OURS == set()


def test_importing_the_core_imports_nothing_of_ours_but_itself() -> None:
    ours = {name for name in modules_after("import comfy_cpu_core") if name.startswith("comfy_cpu")}
    assert ours == {"comfy_cpu_core"}


def test_importing_resources_and_doctor_reads_no_file_of_the_system() -> None:
    modules_after(
        "import sys\n"
        "def hook(event, args):\n"
        "    path = str(args[0]) if event == 'open' and args else ''\n"
        "    assert not path.startswith(('/proc/', '/sys/')), path\n"
        "    assert not event.startswith('socket.connect'), event\n"
        "sys.addaudithook(hook)\n"
        "import comfy_cpu_core.resources, comfy_cpu_core.doctor, comfy_cpu_core.cli.doctor"
    )
