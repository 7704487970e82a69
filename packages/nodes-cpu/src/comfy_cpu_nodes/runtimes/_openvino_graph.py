"""Changes to a model before OpenVINO compiles it for bfloat16: less work, less memory, the same result.

A float16 model would be turned into float32 as a whole, because no CPU without AVX512-FP16 computes in float16, and
the float32 weights stay in memory beside those that are packed for bfloat16 instructions. Said in bfloat16 from the
start, the model needs a third less memory and loads faster.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["fold_upsampling", "to_bfloat16"]

_WITH_BODIES = frozenset({"If", "Loop", "TensorIterator"})

#: Below that many channels a transposed convolution wastes more than it saves.
_FEWEST_CHANNELS = 16


def to_bfloat16(model: Any) -> bool:
    """Make every float16 value inside an ``openvino.Model`` bfloat16; inputs and outputs keep their types.

    Returns:
        Whether the model has no float16 left inside. If not, it is not fit for use, and must be read again.
    """
    import openvino as ov
    from openvino import opset13 as ops

    nodes = model.get_ordered_ops()
    if any(node.get_type_name() in _WITH_BODIES for node in nodes):
        return False
    half, brain = ov.Type.f16, ov.Type.bf16
    for node in nodes:
        kind = node.get_type_name()
        if kind == "Constant" and node.get_element_type() == half:
            node.output(0).replace(_bfloat16_constant(node).output(0))
        elif kind == "Convert" and node.get_element_type() == half:
            node.output(0).replace(ops.convert(node.input_value(0), "bf16").output(0))
        elif kind == "Parameter" and node.get_element_type() == half:
            readers = list(node.output(0).get_target_inputs())
            converted = ops.convert(node, "bf16")
            for reader in readers:
                reader.replace_source_output(converted.output(0))
    outputs = [(result, result.get_element_type() == half) for result in model.get_results()]
    model.validate_nodes_and_infer_types()
    for result, was_half in outputs:
        if was_half or result.get_element_type() == brain:
            value = result.input_value(0)
            names = value.get_names()
            converted = ops.convert(value, "f16").output(0)
            value.set_names(set())
            converted.set_names(names)
            result.input(0).replace_source_output(converted)
    model.validate_nodes_and_infer_types()
    return all(
        node.get_type_name() in {"Parameter", "Convert", "Result"}
        for node in model.get_ops()
        for output in node.outputs()
        if output.get_element_type() == half
    )


def _bfloat16_constant(node: Any) -> Any:
    import openvino as ov
    from openvino import opset13 as ops

    bits = _bfloat16_bits(np.asarray(node.get_data()))
    tensor = ov.Tensor(bits.reshape(-1), ov.Shape(list(bits.shape)), ov.Type.bf16)
    constant = ops.constant(tensor, shared_memory=False)
    constant.set_friendly_name(node.get_friendly_name())
    return constant


def _bfloat16_bits(values: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """The bits of finite numbers as bfloat16, rounded to nearest even: the upper half of a float32."""
    bits = np.atleast_1d(values).astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype(np.uint16).reshape(values.shape)


def fold_upsampling(model: Any) -> int:
    """Turn "repeat every pixel 2×2, then convolve 3×3" into one transposed convolution.

    Of the nine weights several meet the same pixel: their sums are four, at each of four positions. That is 4/9 of
    the multiplications, and the enlarged picture is never made. Equal up to rounding, the border included.

    Returns:
        How many places were changed.
    """
    from openvino import opset13 as ops

    changed = 0
    for node in model.get_ordered_ops():
        if not _convolves_3x3(node):
            continue
        source, weights = node.input_value(0).get_node(), node.input_value(1).get_node()
        if not _repeats_pixels(source):
            continue
        kernel = np.asarray(weights.get_data())
        folded = _fold(_fold(kernel.astype(np.float32), 2), 3).transpose(1, 0, 2, 3)
        transposed = ops.convolution_backprop_data(
            source.input_value(0),
            ops.constant(np.ascontiguousarray(folded).astype(kernel.dtype)),
            [2, 2],
            pads_begin=[1, 1],
            pads_end=[1, 1],
            dilations=[1, 1],
        )
        transposed.set_friendly_name(node.get_friendly_name())
        node.output(0).replace(transposed.output(0))
        changed += 1
    return changed


def _convolves_3x3(node: Any) -> bool:
    if node.get_type_name() != "Convolution" or node.input_value(1).get_node().get_type_name() != "Constant":
        return False
    shape = list(node.input_value(1).get_shape())
    attributes = node.get_attributes()
    return (
        shape[2:] == [3, 3]
        and min(shape[:2]) >= _FEWEST_CHANNELS
        and all(list(attributes[key]) == [1, 1] for key in ("strides", "dilations", "pads_begin", "pads_end"))
        and str(attributes["auto_pad"]).lower() in {"explicit", "notset"}
    )


def _repeats_pixels(node: Any) -> bool:
    if node.get_type_name() != "Interpolate":
        return False
    before, after = node.input_value(0).get_partial_shape(), node.get_output_partial_shape(0)
    if before.is_dynamic or after.is_dynamic or len(before) != 4:
        return False
    old, new = list(before.to_shape()), list(after.to_shape())
    attributes = node.get_attributes()
    return (
        attributes.get("mode") == "nearest"
        and attributes.get("coordinate_transformation_mode") == "asymmetric"
        and attributes.get("nearest_mode") == "floor"
        and new == [old[0], old[1], 2 * old[2], 2 * old[3]]
    )


def _fold(kernel: np.ndarray[Any, np.dtype[np.float32]], axis: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Three weights over repeated pixels as four over the pixels themselves, in the order of a transposed kernel."""
    first, second, third = np.split(kernel, 3, axis)
    return np.concatenate([third, second + third, first + second, first], axis)
