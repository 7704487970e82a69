from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")


@pytest.mark.parametrize(
    "statement",
    [
        "from comfy_cpu_nodes.runtimes.openvino_library import import_openvino; import_openvino().Core()",
        "from comfy_cpu_nodes.runtimes import import_onnx_runtime; import_onnx_runtime()",
    ],
)
def test_nothing_is_written_into_the_home_directory(tmp_path: Path, statement: str) -> None:
    program = f"import sys; {statement}; print('openvino' in sys.modules, 'openvino_telemetry' in sys.modules)"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COMFY_CPU_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={**environment, "HOME": str(tmp_path)},
    )
    assert done.stdout.split() == ["True", "False"]
    assert list(tmp_path.iterdir()) == []
