"""Tiny ONNX models, a clean environment, and a run to belong to."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from comfy_cpu_core.context import Folders, RunContext, use_run
from comfy_cpu_core.resources import Resources, get_resources
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_nodes.runtimes import (
    CACHE_VARIABLE,
    PRECISION_VARIABLE,
    RUNTIME_VARIABLE,
    OnnxModel,
    installed_onnx_runtimes,
    load_onnx,
    release_models,
)

Save = Callable[..., Path]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (CACHE_VARIABLE, PRECISION_VARIABLE, RUNTIME_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    yield
    release_models(aggressive=True)


@pytest.fixture(params=["openvino", "onnxruntime"])
def runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each runtime in turn."""
    if request.param not in installed_onnx_runtimes():
        pytest.skip(f"{request.param} is not installed")
    monkeypatch.setenv(RUNTIME_VARIABLE, request.param)
    return str(request.param)


@pytest.fixture
def change_resources(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Resources]:
    """Make the machine look different."""

    def change(**values: Any) -> Resources:
        changed = dataclasses.replace(get_resources(), **values)
        monkeypatch.setattr("comfy_cpu_core.resources.get_resources", lambda: changed)
        return changed

    return change


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunContext]:
    """A run that this test's code belongs to."""
    context = RunContext(Folders(tmp_path, tmp_path, tmp_path), ModelTree(tmp_path))
    with use_run(context):
        yield context


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write a model: nodes over an input ``x`` with an output ``y``."""

    def write(
        nodes: list[onnx.NodeProto],
        *,
        name: str = "model.onnx",
        initializers: list[onnx.TensorProto] | None = None,
        x: tuple[int, list[Any]] = (TensorProto.FLOAT, ["n", 3]),
        y: tuple[int, list[Any]] = (TensorProto.FLOAT, ["n", 3]),
        metadata: dict[str, str] | None = None,
    ) -> Path:
        graph = helper.make_graph(
            nodes,
            "test",
            [helper.make_tensor_value_info("x", *x)],
            [helper.make_tensor_value_info("y", *y)],
            initializers or [],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        if metadata:
            helper.set_model_props(model, metadata)
        onnx.checker.check_model(model)
        path = tmp_path / name
        onnx.save(model, str(path))
        return path

    return write


@pytest.fixture
def double(save: Save) -> Path:
    """y = 2·x over any number of rows of three."""
    two = onnx.numpy_helper.from_array(np.float32(2), "two")
    return save([helper.make_node("Mul", ["x", "two"], ["y"])], initializers=[two], name="double.onnx")


@pytest.fixture
def slow(save: Save, runtime: str, change_resources: Callable[..., Resources]) -> OnnxModel:
    """A model that needs many seconds, in steps of some milliseconds."""
    change_resources(threads=1)
    steps = 1500
    names = ["x", *(f"v{i}" for i in range(1, steps)), "y"]
    nodes = [helper.make_node("MatMul", [a, "x"], [b]) for a, b in itertools.pairwise(names)]
    path = save(nodes, x=(TensorProto.FLOAT, [1024, 1024]), y=(TensorProto.FLOAT, [1024, 1024]), name="slow.onnx")
    return load_onnx(path, name="slow", precision="f32")
