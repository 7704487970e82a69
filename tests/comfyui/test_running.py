"""Nodes at work inside ComfyUI: progress, interrupts, errors, models, and what is loaded when."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfyui_server import Server, Workbench

HEAVY = {"openvino", "onnxruntime", "llama_cpp", "nudenet", "cv2", "huggingface_hub"}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def cut_out(count: int, color: int) -> dict[str, Any]:
    """BEN2 on a batch of one colour; another colour is another prompt, not answered from the cache."""
    return {
        "1": node("EmptyImage", width=64, height=48, batch_size=count, color=color),
        "2": node("BEN2_ONNX_RemoveBg", image=["1", 0], provider="CPU"),
        "3": node("PreviewImage", images=["2", 0]),
    }


COLORS = itertools.count(1)


def loaded_modules(server: Server) -> set[str]:
    return set(server.run({"1": node("LoadedModules")}).outputs["1"]["modules"])


def test_the_pack_loads_no_library_before_a_node_needs_it(workbench: Workbench) -> None:
    with workbench.serve("--disable-all-custom-nodes", "--whitelist-custom-nodes", "probe.py") as server:
        alone = loaded_modules(server)
    assert "comfy_cpu_nodes" not in alone
    with workbench.serve("--extra-model-paths-config", workbench.root / "disk.yaml") as server:
        before = loaded_modules(server)
        assert "comfy_cpu_nodes" in before
        assert before & HEAVY == alone & HEAVY
        run = server.run(cut_out(1, next(COLORS)))
        assert run.ending == "executing", run.error
        assert loaded_modules(server) & HEAVY == alone & HEAVY | {"openvino"}
        assert "STAND-IN" in server.log()


def test_progress_shows_in_comfyuis_bar(server: Server) -> None:
    run = server.run(cut_out(4, next(COLORS)))
    assert run.ending == "executing", run.error
    assert [(step["value"], step["max"]) for step in run.of("progress", "2")] == [(n, 4) for n in (1, 2, 3, 4)]
    assert len(run.outputs["3"]["images"]) == 4


def test_models_are_found_where_extra_model_paths_says(server: Server, workbench: Workbench) -> None:
    assert not (workbench.root / "models" / "ben2_onnx").exists()
    assert server.get("/models/ben2_onnx") == ["BEN2_Base.onnx"]
    assert server.get("/models/Nudenet") == ["320n.onnx"]


def test_an_error_says_what_to_do(server: Server, workbench: Workbench) -> None:
    there = workbench.root / "disk" / "cutters"
    there.rename(there.with_name("away"))
    try:
        run = server.run(cut_out(1, next(COLORS)))
    finally:
        there.with_name("away").rename(there)
    assert run.ending == "execution_error"
    assert "ben2_onnx/BEN2_Base.onnx is not in the model tree" in run.error
    assert "comfy-cpu models fetch ben2-base --models " in run.error
    assert run.messages[-1].data["node_id"] == "2"


def test_a_gate_that_blocks_ends_the_run(server: Server, photo: str) -> None:
    verdict = '{"classification": {"sexual": "SAFE", "violence": "UNSAFE", "hate": "SAFE", "disturbing": "SAFE", '
    verdict += '"drugs": "SAFE"}, "reasons": [], "confidence": 0.9}'
    prompt = {
        "1": node("LoadImage", image=photo),
        "3": node("MultiDomainSafetyGate", image=["1", 0], classification_json=verdict),
        "4": node("PreviewImage", images=["3", 0]),
    }
    run = server.run(prompt)
    assert run.ending == "execution_error"
    assert run.error.startswith("Content blocked by multi-domain safety gate: ")
    assert "4" not in run.outputs


@pytest.mark.parametrize("verdict", ["", "no json", "{}", '{"classification": {}}'])
def test_a_gate_without_a_verdict_ends_the_run(verdict: str, server: Server, photo: str) -> None:
    prompt = {
        "1": node("LoadImage", image=photo),
        "3": node("MultiDomainSafetyGate", image=["1", 0], classification_json=verdict),
        "4": node("PreviewImage", images=["3", 0]),
    }
    run = server.run(prompt)
    assert run.ending == "execution_error"
    assert "4" not in run.outputs


# --- interrupts -----------------------------------------------------------------------------------------------------


def write_slow_model(path: Path) -> None:
    """A model with BEN2's input and output that works for a minute, in many short steps as real ones do."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(1)
    channels, layers = 16, 600
    weights = [("w0", (channels, 3, 3, 3)), ("w", (channels, channels, 3, 3)), ("w1", (1, channels, 3, 3))]
    nodes = []
    names = ["input", *(f"x{n}" for n in range(layers)), "last"]
    for number, (source, target) in enumerate(itertools.pairwise(names)):
        weight = "w0" if number == 0 else "w1" if target == "last" else "w"
        nodes.append(helper.make_node("Conv", [source, weight], [f"{target}_"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Sin", [f"{target}_"], [target]))
    nodes.append(helper.make_node("Cast", ["last"], ["output"], to=TensorProto.FLOAT16))
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 1024, 1024])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT16, [1, 1, 1024, 1024])],
        [numpy_helper.from_array(generator.normal(0, 0.1, shape).astype(np.float32), name) for name, shape in weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


@pytest.fixture
def slow_ben2(workbench: Workbench, tmp_path: Path) -> Iterator[None]:
    """A slow model in BEN2's place."""
    place = workbench.root / "disk" / "cutters" / "BEN2_Base.onnx"
    kept = tmp_path / "kept.onnx"
    place.rename(kept)
    write_slow_model(place)
    yield
    place.unlink()
    kept.rename(place)


@pytest.mark.usefixtures("slow_ben2")
def test_an_interrupt_ends_an_inference_within_a_second(server: Server) -> None:
    # Once to load the model, once in the middle of its work for certain.
    latencies = []
    for wait in (3.0, 5.0):
        with server.running(cut_out(1, next(COLORS))) as (run, messages):
            for message in messages:
                if message.type == "executing" and message.data["node"] == "2":
                    time.sleep(wait)
                    asked = time.monotonic()
                    server.post("/interrupt", {})
            assert run.ending == "execution_interrupted"
            assert run.messages[-1].data["node_id"] == "2"
            latencies.append(run.messages[-1].at - asked)
    print("seconds from the interrupt to its end:", [round(latency, 2) for latency in latencies])
    assert latencies[-1] < 1


def test_an_interrupt_ends_a_batch_and_the_next_run_is_whole(server: Server) -> None:
    with server.running(cut_out(400, next(COLORS))) as (run, messages):
        for message in messages:
            if message.type == "progress" and message.data["node"] == "2" and message.data["value"] == 2:
                asked = time.monotonic()
                server.post("/interrupt", {})
        assert run.ending == "execution_interrupted"
        assert run.messages[-1].at - asked < 1
    assert server.run(cut_out(2, next(COLORS))).ending == "executing"
