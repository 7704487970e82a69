from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from comfy_cpu_nodes.runtimes import RUNTIME_VARIABLE, load_onnx
from comfy_cpu_nodes.runtimes._openvino_graph import fold_upsampling, to_bfloat16

ov = pytest.importorskip("openvino")

CHANNELS = 16


def upsampling_network(
    save: Any,
    dtype: Any = np.float32,
    *,
    scale: float = 2,
    mode: str = "nearest",
    nearest_mode: str = "floor",
    pads: int = 1,
    stride: int = 1,
) -> Path:
    """Enlarge 9×7 pixels, convolve with a bias."""
    random = np.random.default_rng(0)
    tensors = {
        "scales": np.array([1, 1, scale, scale], np.float32),
        "weights": (random.standard_normal((CHANNELS, CHANNELS, 3, 3)) / 12).astype(dtype),
        "bias": random.standard_normal(CHANNELS).astype(dtype),
    }
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": nearest_mode}
    kind = TensorProto.FLOAT16 if dtype == np.float16 else TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["x"], ["cast"], to=kind),
        helper.make_node("Resize", ["cast", "", "scales"], ["large"], mode=mode, **how),
        helper.make_node("Conv", ["large", "weights", "bias"], ["y"], pads=[pads] * 4, strides=[stride] * 2),
    ]
    path: Path = save(
        nodes,
        initializers=[numpy_helper.from_array(value, name) for name, value in tensors.items()],
        x=(TensorProto.FLOAT, [1, CHANNELS, 9, 7]),
        y=(kind, ["n", "c", "h", "w"]),
    )
    return path


def infer(model: Any, x: np.ndarray) -> np.ndarray:
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    return np.array(ov.Core().compile_model(model, "CPU", hint)([x])[0])


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((1, CHANNELS, 9, 7)).astype(np.float32)


def test_folded_upsampling_gives_the_same_up_to_the_border(save: Any, x: np.ndarray) -> None:
    path = upsampling_network(save)
    model = ov.Core().read_model(path)
    expected = infer(model, x)
    assert fold_upsampling(model) == 1
    kinds = {node.get_type_name() for node in model.get_ordered_ops()}
    assert "ConvolutionBackpropData" in kinds
    assert not kinds & {"Convolution", "Interpolate"}
    np.testing.assert_allclose(infer(model, x), expected, atol=1e-5)


@pytest.mark.parametrize(
    "other",
    [{"scale": 3}, {"mode": "linear"}, {"nearest_mode": "ceil"}, {"pads": 0}, {"stride": 2}, {"scale": 1}],
    ids=str,
)
def test_what_is_something_else_stays(save: Any, x: np.ndarray, other: dict[str, Any]) -> None:
    model = ov.Core().read_model(upsampling_network(save, **other))
    assert fold_upsampling(model) == 0


def test_bfloat16_keeps_inputs_and_outputs(save: Any) -> None:
    model = ov.Core().read_model(upsampling_network(save, np.float16))
    before = [(port.get_names(), port.get_element_type(), port.get_partial_shape()) for port in model.outputs]
    assert to_bfloat16(model)
    assert [(p.get_names(), p.get_element_type(), p.get_partial_shape()) for p in model.outputs] == before
    inner = {o.get_element_type().to_string() for n in model.get_ordered_ops()[:-2] for o in n.outputs()}
    assert "bf16" in inner
    assert "f16" not in inner


def test_bfloat16_with_float16_inputs(save: Any) -> None:
    half = numpy_helper.from_array(np.float16(3), "three")
    path = save(
        [helper.make_node("Mul", ["x", "three"], ["y"])],
        initializers=[half],
        x=(TensorProto.FLOAT16, [2]),
        y=(TensorProto.FLOAT16, [2]),
    )
    model = ov.Core().read_model(path)
    assert to_bfloat16(model)
    assert model.inputs[0].get_element_type() == model.outputs[0].get_element_type() == ov.Type.f16
    np.testing.assert_array_equal(infer(model, np.array([1, 2], np.float16)), np.array([3, 6], np.float16))


def test_a_model_with_a_body_is_left_to_openvino(save: Any) -> None:
    one = helper.make_tensor_value_info("a", TensorProto.FLOAT16, [2])
    other = helper.make_tensor_value_info("b", TensorProto.FLOAT16, [2])
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["positive"], to=TensorProto.BOOL),
        helper.make_node(
            "If",
            ["positive"],
            ["y"],
            then_branch=helper.make_graph([helper.make_node("Relu", ["half"], ["a"])], "then", [], [one]),
            else_branch=helper.make_graph([helper.make_node("Neg", ["half"], ["b"])], "else", [], [other]),
        ),
    ]
    path = save(nodes, x=(TensorProto.FLOAT, [2]), y=(TensorProto.FLOAT16, [2]))
    assert not to_bfloat16(ov.Core().read_model(path))
    result = load_onnx(path, name="if").run({"x": np.array([-1, 2], np.float32)})["y"]
    np.testing.assert_array_equal(result, np.array([0, 2], np.float16))


def test_bfloat16_stays_close_to_float32(save: Any, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    path = upsampling_network(save, np.float16)
    model = load_onnx(path, name="net")
    if model.precision != "bf16":
        pytest.skip("this CPU has no bfloat16")
    result = model.run({"x": x})["y"].astype(np.float32)
    monkeypatch.setenv(RUNTIME_VARIABLE, "onnxruntime")
    expected = load_onnx(path, name="net").run({"x": x})["y"].astype(np.float32)
    assert np.abs(result - expected).mean() < 0.01 * expected.std()


def refuse(model: Any) -> bool:
    raise RuntimeError("Frobnicate does not take bf16")


@pytest.mark.parametrize("rewrite", [refuse, lambda model: False])
def test_a_model_that_cannot_be_rewritten_runs_as_it_is(
    save: Any, x: np.ndarray, rewrite: Any, monkeypatch: pytest.MonkeyPatch, change_resources: Any
) -> None:
    path = upsampling_network(save, np.float16)
    expected = load_onnx(path, name="net", precision="f32").run({"x": x})["y"].astype(np.float32)
    change_resources(instruction_sets=frozenset({"avx512_bf16"}))
    monkeypatch.setattr("comfy_cpu_nodes.runtimes._openvino.supports_bf16", lambda: True)
    monkeypatch.setattr("comfy_cpu_nodes.runtimes._openvino.to_bfloat16", rewrite)
    result = load_onnx(path, name="net").run({"x": x})["y"].astype(np.float32)
    assert np.abs(result - expected).mean() < 0.01 * expected.std()
