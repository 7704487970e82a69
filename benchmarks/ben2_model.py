"""Write an ONNX model with the architecture, the size and the compute of BEN2, with random weights.

    python benchmarks/ben2_model.py MODEL.onnx

How long a network takes and how much memory it needs does not depend on the values of its weights. This one follows
BEN2's published architecture: a Swin-B backbone (the figures of transformers' ``SwinConfig`` for Swin-B with windows of
12) on four quarters of the picture and a small copy of all of it, 512² each; cross attention between them; a decoder
with convolutions at 256², 512² and 1024². As in the published file, matrix products and convolutions are float16,
layer norms, softmax and relative positions float32, the input is float32 ``[1,3,1024,1024]`` and the output float16
``[1,1,1024,1024]``; the operators are those that torch exports.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Swin-B: the values of transformers' SwinConfig in microsoft/swin-base-patch4-window12-384.
EMBED_DIM, DEPTHS, HEADS, WINDOW, MLP_RATIO, PATCH = 128, (2, 2, 18, 2), (4, 8, 16, 32), 12, 4, 4
DECODER_DIM = 128
SIDE = 1024
TILES, TILE = 5, SIDE // 2


class Graph:
    """A graph under construction. A value is known by its name; its shape and type are kept beside it."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.dtypes: dict[str, int] = {}
        self._random = np.random.default_rng(seed)
        self._constants: dict[tuple[object, ...], str] = {}

    def op(self, kind: str, *inputs: str, dtype: int | None = None, **attributes: Any) -> str:
        """Add a node with one output; its type is that of the first input unless given."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        self.dtypes[name] = dtype or self.dtypes[inputs[0]]
        return name

    def constant(self, values: Any, dtype: Any) -> str:
        """A constant; equal small ones are stored once."""
        array = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size <= 64 else (len(self.initializers),)
        if key not in self._constants:
            name = f"constant_{len(self.initializers)}"
            self.initializers.append(numpy_helper.from_array(array, name))
            self.dtypes[name] = helper.np_dtype_to_tensor_dtype(array.dtype)
            self._constants[key] = name
        return self._constants[key]

    def random(self, shape: tuple[int, ...], scale: float, dtype: Any = np.float16) -> str:
        """A parameter drawn from a normal distribution."""
        return self.constant((self._random.standard_normal(shape, np.float32) * np.float32(scale)), dtype)

    def cast(self, x: str, dtype: int) -> str:
        return x if self.dtypes[x] == dtype else self.op("Cast", x, to=dtype, dtype=dtype)

    def half(self, x: str) -> str:
        return self.cast(x, TensorProto.FLOAT16)

    def single(self, x: str) -> str:
        return self.cast(x, TensorProto.FLOAT)

    def add(self, a: str, b: str) -> str:
        """Sum in the wider of both types, as torch promotes."""
        if self.dtypes[a] != self.dtypes[b]:
            a, b = self.single(a), self.single(b)
        return self.op("Add", a, b)

    def scale(self, x: str, factor: float) -> str:
        kind = np.float16 if self.dtypes[x] == TensorProto.FLOAT16 else np.float32
        return self.op("Mul", x, self.constant(factor, kind))

    def reshape(self, x: str, *shape: int) -> str:
        return self.op("Reshape", x, self.constant(shape, np.int64))

    def transpose(self, x: str, *order: int) -> str:
        return self.op("Transpose", x, perm=order)

    def pick(self, x: str, index: int, axis: int) -> str:
        return self.op("Gather", x, self.constant(index, np.int64), axis=axis)

    def slice(self, x: str, axis: int, start: int, end: int) -> str:
        start_, end_, axis_ = (self.constant([v], np.int64) for v in (start, end, axis))
        return self.op("Slice", x, start_, end_, axis_)

    def concat(self, *parts: str, axis: int) -> str:
        return self.op("Concat", *parts, axis=axis)

    def linear(self, x: str, inside: int, outside: int, *, bias: bool = True) -> str:
        """A dense layer over the last axis, in float16."""
        y = self.op("MatMul", self.half(x), self.random((inside, outside), inside**-0.5))
        return self.op("Add", y, self.random((outside,), 0.02)) if bias else y

    def conv(self, x: str, inside: int, outside: int, kernel: int = 3, stride: int = 1) -> str:
        """A convolution in float16 that keeps the size (but for the stride)."""
        weight = self.random((outside, inside, kernel, kernel), (inside * kernel * kernel) ** -0.5)
        pad = kernel // 2 if stride == 1 else 0
        return self.op(
            "Conv",
            self.half(x),
            weight,
            self.random((outside,), 0.02),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
        )

    def gelu(self, x: str) -> str:
        kind = np.float16 if self.dtypes[x] == TensorProto.FLOAT16 else np.float32
        erf = self.op("Erf", self.op("Div", x, self.constant(math.sqrt(2), kind)))
        return self.scale(self.op("Mul", x, self.op("Add", erf, self.constant(1, kind))), 0.5)

    def layer_norm(self, x: str, width: int) -> str:
        ones, zeros = self.constant(np.ones(width), np.float32), self.constant(np.zeros(width), np.float32)
        return self.op("LayerNormalization", self.single(x), ones, zeros, axis=-1, epsilon=1e-5)

    def softmax(self, x: str) -> str:
        return self.half(self.op("Softmax", self.single(x), axis=-1))

    def resize(self, x: str, scale: float, mode: str) -> str:
        scales = self.constant([1, 1, scale, scale], np.float32)
        if mode == "nearest":
            how: dict[str, Any] = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        else:
            how = {"coordinate_transformation_mode": "half_pixel"}
        return self.op("Resize", x, "", scales, mode=mode, **how)

    def conv_norm_gelu(self, x: str, inside: int, outside: int) -> str:
        ones, zeros = self.constant(np.ones(outside), np.float16), self.constant(np.zeros(outside), np.float16)
        y = self.op("InstanceNormalization", self.conv(x, inside, outside), ones, zeros, epsilon=1e-5)
        return self.gelu(y)


# --- the backbone -------------------------------------------------------------------------------------------------


def shift_mask(g: Graph, padded: int, window: int, shift: int) -> str:
    """What keeps shifted windows from seeing across the picture's border: ``[1,windows,1,n,n]``, 0 or -100."""
    region = np.zeros((padded, padded), np.float32)
    spans = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for i, rows in enumerate(spans):
        for j, columns in enumerate(spans):
            region[rows, columns] = 3 * i + j
    count = padded // window
    windows = region.reshape(count, window, count, window).transpose(0, 2, 1, 3).reshape(1, count**2, 1, window**2, 1)
    # The regions are stored, not the mask (10 MB in the first stage): the graph computes it, as torch exports it.
    a = g.constant(windows, np.float32)
    same = g.op("Equal", a, g.transpose(a, 0, 1, 2, 4, 3), dtype=TensorProto.BOOL)
    return g.op("Where", same, g.constant(0, np.float32), g.constant(-100, np.float32), dtype=TensorProto.FLOAT)


def roll(g: Graph, x: str, size: int, by: int) -> str:
    """Move rows and columns of ``[B,H,W,C]`` up and left by `by` (down and right if negative), around the border."""
    for axis in (1, 2):
        cut = by % size
        x = g.concat(g.slice(x, axis, cut, size), g.slice(x, axis, 0, cut), axis=axis)
    return x


def window_attention(g: Graph, x: str, batch: int, windows: int, width: int, heads: int, mask: str | None) -> str:
    """Self attention in windows ``[B·windows, n, C]``."""
    n, depth = WINDOW * WINDOW, width // heads
    qkv = g.reshape(g.linear(x, width, 3 * width), batch * windows, n, 3, heads, depth)
    qkv = g.transpose(qkv, 2, 0, 3, 1, 4)
    q, k, v = (g.pick(qkv, i, 0) for i in range(3))
    scores = g.op("MatMul", g.scale(q, depth**-0.5), g.transpose(k, 0, 1, 3, 2))
    scores = g.add(scores, g.random((1, heads, n, n), 0.02, np.float32))
    if mask is not None:
        scores = g.reshape(scores, batch, windows, heads, n, n)
        scores = g.reshape(g.add(scores, mask), batch * windows, heads, n, n)
    y = g.transpose(g.op("MatMul", g.softmax(scores), v), 0, 2, 1, 3)
    return g.linear(g.reshape(y, batch * windows, n, width), width, width)


def swin_block(g: Graph, x: str, size: int, width: int, heads: int, mask: str | None) -> str:
    """One block over ``[B,H·W,C]`` (float32 between blocks); windows are shifted if there is a mask."""
    padded = -(-size // WINDOW) * WINDOW
    count, shift = padded // WINDOW, WINDOW // 2
    y = g.reshape(g.layer_norm(x, width), TILES, size, size, width)
    if padded > size:
        y = g.op("Pad", y, g.constant([0, 0, 0, 0, 0, padded - size, padded - size, 0], np.int64))
    if mask is not None:
        y = roll(g, y, padded, shift)
    y = g.transpose(g.reshape(y, TILES, count, WINDOW, count, WINDOW, width), 0, 1, 3, 2, 4, 5)
    y = g.reshape(y, TILES * count**2, WINDOW**2, width)
    y = window_attention(g, y, TILES, count**2, width, heads, mask)
    y = g.transpose(g.reshape(y, TILES, count, count, WINDOW, WINDOW, width), 0, 1, 3, 2, 4, 5)
    y = g.reshape(y, TILES, padded, padded, width)
    if mask is not None:
        y = roll(g, y, padded, -shift)
    if padded > size:
        y = g.slice(g.slice(y, 1, 0, size), 2, 0, size)
    x = g.add(x, g.reshape(y, TILES, size * size, width))
    y = g.gelu(g.linear(g.layer_norm(x, width), width, MLP_RATIO * width))
    return g.add(x, g.linear(y, MLP_RATIO * width, width))


def merge_patches(g: Graph, x: str, size: int, width: int) -> str:
    """Halve the size, double the width."""
    y = g.reshape(x, TILES, size // 2, 2, size // 2, 2, width)
    y = g.reshape(g.transpose(y, 0, 1, 3, 4, 2, 5), TILES, (size // 2) ** 2, 4 * width)
    return g.linear(g.layer_norm(y, 4 * width), 4 * width, 2 * width, bias=False)


def swin(g: Graph, tiles: str) -> list[str]:
    """The features of five tiles: ``[5,C,H,W]`` after the patch embedding and after each of the four stages."""
    size, width = TILE // PATCH, EMBED_DIM
    x = g.transpose(g.reshape(g.conv(tiles, 3, width, PATCH, PATCH), TILES, width, size * size), 0, 2, 1)
    x = g.layer_norm(x, width)
    features = [g.reshape(g.transpose(x, 0, 2, 1), TILES, width, size, size)]
    for stage, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        mask = shift_mask(g, -(-size // WINDOW) * WINDOW, WINDOW, WINDOW // 2)
        for block in range(depth):
            x = swin_block(g, x, size, width, heads, mask if block % 2 else None)
        out = g.transpose(g.layer_norm(x, width), 0, 2, 1)
        features.append(g.reshape(out, TILES, width, size, size))
        if stage < len(DEPTHS) - 1:
            x = merge_patches(g, x, size, width)
            size, width = size // 2, width * 2
    return features


# --- the decoder --------------------------------------------------------------------------------------------------


def to_tiles(g: Graph, x: str, channels: int, size: int) -> str:
    """``[1,C,2s,2s]`` → ``[4,C,s,s]``."""
    y = g.transpose(g.reshape(x, 1, channels, 2, size, 2, size), 2, 4, 0, 1, 3, 5)
    return g.reshape(y, 4, channels, size, size)


def from_tiles(g: Graph, x: str, channels: int, size: int) -> str:
    """``[4,C,s,s]`` → ``[1,C,2s,2s]``."""
    y = g.transpose(g.reshape(x, 2, 2, 1, channels, size, size), 2, 3, 0, 4, 1, 5)
    return g.reshape(y, 1, channels, 2 * size, 2 * size)


def pooled_tokens(g: Graph, x: str, batch: int, size: int, targets: tuple[int, ...]) -> str:
    """Average pools of ``[B,C,s,s]`` as tokens ``[B,n,C]``."""
    parts = []
    for target in targets:
        k = size // target
        pool = g.op("AveragePool", x, kernel_shape=[k, k], strides=[k, k]) if k > 1 else x
        parts.append(g.reshape(pool, batch, DECODER_DIM, target * target))
    return g.transpose(g.concat(*parts, axis=2), 0, 2, 1)


def attention(g: Graph, query: str, key: str, value: str) -> str:
    """Attention with one head over ``[1,n,C]``, as torch exports MultiheadAttention."""
    d = DECODER_DIM
    q, k, v = g.linear(query, d, d), g.linear(key, d, d), g.linear(value, d, d)
    scores = g.op("MatMul", g.scale(q, d**-0.5), g.transpose(k, 0, 2, 1))
    return g.linear(g.op("MatMul", g.softmax(scores), v), d, d)


def feed_forward(g: Graph, x: str, update: str) -> str:
    """Residual, norm, two dense layers, norm."""
    x = g.layer_norm(g.add(x, update), DECODER_DIM)
    y = g.linear(g.gelu(g.linear(x, DECODER_DIM, 2 * DECODER_DIM)), 2 * DECODER_DIM, DECODER_DIM)
    return g.layer_norm(g.add(x, y), DECODER_DIM)


def sine_positions(size: int) -> np.ndarray:
    """Sine positions of a ``size²`` map as ``[1,size²,128]``."""
    half = DECODER_DIM // 2
    frequency = 10000 ** (2 * (np.arange(half) // 2) / half)
    along = (np.arange(size) + 0.5) / size * 2 * math.pi / frequency[:, None]
    wave = np.where((np.arange(half) % 2 == 0)[:, None], np.sin(along), np.cos(along)).T
    y = np.broadcast_to(wave[:, None], (size, size, half))
    x = np.broadcast_to(wave[None, :], (size, size, half))
    return np.concatenate([y, x], -1).reshape(1, size * size, DECODER_DIM).astype(np.float32)


def localize(g: Graph, x: str, size: int) -> str:
    """Cross attention between the four quarters and the whole, at the coarsest scale: ``[5,C,s,s]``."""
    d = DECODER_DIM
    local, whole = g.slice(x, 0, 0, 4), g.slice(x, 0, 4, 5)
    targets = (size, size // 4, size // 8)
    pools = pooled_tokens(g, from_tiles(g, local, d, size), 1, 2 * size, targets)
    places = g.constant(np.concatenate([sine_positions(t) for t in targets], 1), np.float32)
    tokens = g.transpose(g.reshape(whole, 1, d, size * size), 0, 2, 1)
    place = g.constant(sine_positions(size), np.float32)
    tokens = feed_forward(g, tokens, attention(g, g.add(tokens, place), g.add(pools, places), pools))
    quarter = size // 2
    split = g.transpose(g.reshape(tokens, 1, 2, quarter, 2, quarter, d), 1, 3, 0, 2, 4, 5)
    split = g.reshape(split, 4, quarter * quarter, d)
    local_tokens = g.transpose(g.reshape(local, 4, d, size * size), 0, 2, 1)
    updates = []
    for i in range(4):
        seen = g.slice(split, 0, i, i + 1)
        updates.append(attention(g, g.slice(local_tokens, 0, i, i + 1), seen, seen))
    local_tokens = feed_forward(g, local_tokens, g.concat(*updates, axis=0))
    both = g.concat(local_tokens, tokens, axis=0)
    return g.reshape(g.transpose(both, 0, 2, 1), 5, d, size, size)


def refine(g: Graph, x: str, size: int) -> str:
    """Each quarter looks at its own part of the whole: ``[5,C,s,s]``, with ``s² × 21/64·s²`` attention scores."""
    d = DECODER_DIM
    local, whole = g.slice(x, 0, 0, 4), g.slice(x, 0, 4, 5)
    weight = g.op("Sigmoid", g.conv(whole, d, 1, 1))
    local = g.op("Mul", g.half(local), to_tiles(g, g.resize(weight, 2, "nearest"), 1, size))
    half = size // 2
    targets = (size // 2, size // 4, size // 8)
    pools = pooled_tokens(g, to_tiles(g, whole, d, half), 4, half, targets)
    tokens = g.transpose(g.reshape(local, 4, d, size * size), 0, 2, 1)
    updates = []
    for i in range(4):
        seen = g.slice(pools, 0, i, i + 1)
        updates.append(attention(g, g.slice(tokens, 0, i, i + 1), seen, seen))
    tokens = feed_forward(g, tokens, g.concat(*updates, axis=0))
    local = g.reshape(g.transpose(tokens, 0, 2, 1), 4, d, size, size)
    whole = g.add(whole, g.resize(from_tiles(g, local, d, size), 0.5, "nearest"))
    return g.concat(g.single(local), g.single(whole), axis=0)


def decode(g: Graph, picture: str, features: list[str]) -> str:
    """From the backbone's features to the mask."""
    d = DECODER_DIM
    widths = (EMBED_DIM, EMBED_DIM, 2 * EMBED_DIM, 4 * EMBED_DIM, 8 * EMBED_DIM)
    sizes = (128, 128, 64, 32, 16)
    lateral = [g.conv_norm_gelu(f, width, d) for f, width in zip(features, widths, strict=True)]
    x = localize(g, lateral[4], sizes[4])
    for level in (3, 2, 1, 0):
        grown = x if sizes[level] == sizes[level + 1] else g.resize(x, 2, "linear")
        x = refine(g, g.add(lateral[level], grown), sizes[level])
        x = g.conv_norm_gelu(x, d, d)
    x = g.add(from_tiles(g, g.slice(x, 0, 0, 4), d, 128), g.resize(g.slice(x, 0, 4, 5), 2, "linear"))
    x = g.conv(g.conv_norm_gelu(g.conv_norm_gelu(x, d, 3 * d), 3 * d, 3 * d), 3 * d, d)
    shallow = g.conv(picture, 3, d)
    x = g.conv_norm_gelu(g.resize(g.add(x, g.resize(shallow, 0.25, "linear")), 2, "nearest"), d, d)
    x = g.conv_norm_gelu(g.resize(g.add(x, g.resize(shallow, 0.5, "linear")), 2, "nearest"), d, d)
    return g.op("Sigmoid", g.conv(x, d, 1))


def build(seed: int = 0) -> onnx.ModelProto:
    """The model, with shapes inferred."""
    g = Graph(seed)
    g.dtypes["input"] = TensorProto.FLOAT
    picture = g.half("input")
    tiles = g.concat(to_tiles(g, picture, 3, TILE), g.resize(picture, 0.5, "linear"), axis=0)
    result = decode(g, picture, swin(g, tiles))
    g.nodes[-1].output[0] = "output"
    assert g.nodes[-1].name == result
    graph = helper.make_graph(
        g.nodes,
        "ben2_like",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT16, [1, 1, SIDE, SIDE])],
        g.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def count_flops(model: onnx.ModelProto) -> int:
    """Floating-point operations of one inference: two per multiply-add of every convolution and matrix product."""
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
    shapes |= {t.name: tuple(t.dims) for t in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type == "MatMul":
            total += 2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        elif node.op_type == "Conv":
            total += 2 * math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    return total


def write(path: Path, seed: int = 0) -> int:
    """Write the model and give back the operations of one inference."""
    model = build(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(model.SerializeToString())
    partial.replace(path)
    return count_flops(model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("path", type=Path)
    path = parser.parse_args().path
    flops = write(path)
    print(f"{path}: {path.stat().st_size / 1e6:.0f} MB, {flops / 1e12:.3f} TFLOP an inference")


if __name__ == "__main__":
    main()
