"""A stand-in for BiRefNet, for tests. Needs the extra ``testing`` (onnx).

It is BEN2's stand-in (`comfy_cpu_nodes.testing`) behind BiRefNet's inputs and outputs, and marked as one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from comfy_cpu_nodes.testing import write_ben2_stand_in

__all__ = ["write_birefnet_stand_in"]

_SIDE = 1024
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_NEARLY = 1e-3  # a probability of 1 has no logit


def write_birefnet_stand_in(path: Path) -> Path:
    """Write a model with the inputs and outputs of BiRefNet's ONNX exports that cuts out what stands in the middle.

    ``input_image`` is float32 ``[1,3,1024,1024]``, RGB normalised as ImageNet's; ``output_image`` is float32
    ``[1,1,1024,1024]``, logits.

    Returns:
        The path.

    Raises:
        ImportError: onnx is not installed.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(write_ben2_stand_in(path)))
    graph = model.graph
    before = [
        helper.make_node("Mul", ["input_image", "birefnet_deviation"], ["birefnet_scaled"]),
        helper.make_node("Add", ["birefnet_scaled", "birefnet_mean"], ["input"]),
    ]
    after = [
        helper.make_node("Cast", ["output"], ["birefnet_whole"], to=TensorProto.FLOAT),
        helper.make_node("Clip", ["birefnet_whole", "birefnet_least", "birefnet_most"], ["birefnet_share"]),
        helper.make_node("Sub", ["birefnet_one", "birefnet_share"], ["birefnet_rest"]),
        helper.make_node("Div", ["birefnet_share", "birefnet_rest"], ["birefnet_odds"]),
        helper.make_node("Log", ["birefnet_odds"], ["output_image"]),
    ]
    constants = {
        "birefnet_deviation": np.array(_DEVIATION, np.float32).reshape(1, 3, 1, 1),
        "birefnet_mean": np.array(_MEAN, np.float32).reshape(1, 3, 1, 1),
        "birefnet_least": np.array(_NEARLY, np.float32),
        "birefnet_most": np.array(1 - _NEARLY, np.float32),
        "birefnet_one": np.array(1, np.float32),
    }
    wrapped = helper.make_graph(
        [*before, *graph.node, *after],
        "birefnet_stand_in",
        [helper.make_tensor_value_info("input_image", TensorProto.FLOAT, [1, 3, _SIDE, _SIDE])],
        [helper.make_tensor_value_info("output_image", TensorProto.FLOAT, [1, 1, _SIDE, _SIDE])],
        [*graph.initializer, *(numpy_helper.from_array(value, name) for name, value in constants.items())],
        doc_string="Imitates the shape of BiRefNet, not its quality. For tests and demonstrations.",
    )
    graph.CopyFrom(wrapped)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
