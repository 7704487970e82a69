"""A ComfyUI without a library that nodes need, where the user switched others off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from comfyui_server import Checkout, Server, Workbench

from comfy_cpu_nodes.nodes import NODES


@pytest.fixture(scope="module")
def bare(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """Installed without a runtime for ONNX models."""
    bench = Workbench(checkout, tmp_path_factory.mktemp("bare") / "ComfyUI")
    answer = bench.install("--extra", "models")
    assert "BEN2_ONNX_RemoveBg" in answer["missing"]
    if {"openvino", "onnxruntime"} & set(bench.distributions()):
        pytest.skip("this ComfyUI brings a runtime for ONNX models by itself")
    (bench.root / "custom_nodes" / "comfy-cpu" / "disabled_nodes.txt").write_text("ShowText|pysssss # another's\n")
    return bench


@pytest.fixture(scope="module")
def bare_server(bare: Workbench) -> Iterator[Server]:
    with bare.serve(COMFY_CPU_DISABLED_NODES="FreeVRAM*, NoSuchNode") as started:
        yield started


@pytest.fixture(scope="module")
def there(bare_server: Server) -> set[str]:
    info: dict[str, Any] = bare_server.get("/object_info")
    return {name for name, said in info.items() if said["python_module"] == "custom_nodes.comfy-cpu"}


def test_only_the_nodes_that_need_the_library_are_gone(there: set[str], bare_server: Server) -> None:
    onnx = {node.class_type for node in NODES if "openvino" in node.extras}
    assert "BEN2_ONNX_RemoveBg" in onnx
    assert there & onnx == set()
    assert {"SmartResizeForModel", "SaveImageNoMetadata", "VRAMMonitor"} <= there


def test_the_log_says_once_what_is_missing_and_how_to_get_it(bare: Workbench, bare_server: Server) -> None:
    (line,) = [line for line in bare_server.log().splitlines() if "needs openvino or onnxruntime" in line]
    assert "BEN2_ONNX_RemoveBg" in line
    assert f"{bare.python} -m pip install 'comfy-cpu-nodes[openvino]'" in line


def test_names_that_are_switched_off_are_gone(there: set[str], bare_server: Server) -> None:
    off = {"FreeVRAM", "FreeVRAMAutomatic", "FreeVRAMInline", "ShowText|pysssss"}
    assert there & off == set()
    log = bare_server.log()
    (line,) = [line for line in log.splitlines() if "switched off" in line and "FreeVRAM" in line]
    assert all(name in line for name in off)
    assert "'NoSuchNode' is to be switched off, but no node of ours is called so" in log


def test_the_others_work(bare_server: Server) -> None:
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 32, "batch_size": 1, "color": 7}},
        "2": {
            "class_type": "ImageScaleByFactor",
            "inputs": {"image": ["1", 0], "scale_factor": "2x", "interpolation": "nearest"},
        },
        "3": {"class_type": "SaveImageNoMetadata", "inputs": {"images": ["2", 0], "filename_prefix": "a"}},
    }
    run = bare_server.run(prompt)
    assert run.ending == "executing", run.error
    assert len(run.outputs["3"]["images"]) == 1


def test_a_prompt_that_needs_a_node_that_is_gone_is_refused(bare_server: Server) -> None:
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 32, "batch_size": 1, "color": 7}},
        "2": {"class_type": "BEN2_ONNX_RemoveBg", "inputs": {"image": ["1", 0], "provider": "CPU"}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }
    answer = bare_server.post("/prompt", {"prompt": prompt})
    assert "BEN2_ONNX_RemoveBg" in answer["error"]["message"]


def test_installing_again_keeps_what_the_user_switched_off(bare: Workbench, bare_server: Server) -> None:
    again = bare.install("--extra", "models")
    assert again["disabled"] == ["ShowText|pysssss"]
