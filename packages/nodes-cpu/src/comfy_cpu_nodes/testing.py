"""Stand-ins for models that cannot be fetched: for tests and for the demo. Needs the extra ``testing`` (onnx).

A stand-in has the real model's inputs and outputs and does something plausible with plain image operations. It is
marked in its file (`comfy_cpu_nodes.runtimes.STAND_IN_KEY`), so that every result made with it says so, whatever the
file is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from comfy_cpu_nodes.runtimes import PRECISION_KEY, STAND_IN_KEY

__all__ = ["write_ben2_stand_in"]

_SIDE = 1024  # BEN2's input and output
_COARSE, _FINE = 128, 256  # where pixels are told apart, and where the edges are found
_GRID = 8  # the colour models start from the means of an 8×8 grid
_ITERATIONS = 12

Floats = np.ndarray[Any, np.dtype[np.float32]]


def write_ben2_stand_in(path: Path) -> Path:
    """Write a model with BEN2's input and output that cuts out what stands in the middle of a picture.

    It fits two mixtures of Gaussians over colour and place, one that starts from the upper border and one from the
    middle, in the manner of GrabCut, and lets the picture's own edges sharpen the border between them (a guided
    filter). ``input`` is float32 ``[1,3,1024,1024]``, RGB from 0 to 1; ``output`` is float16 ``[1,1,1024,1024]``.

    Returns:
        The path.

    Raises:
        ImportError: onnx is not installed.
    """
    import onnx
    from onnx import TensorProto, helper

    g = _Graph()
    _segment(g)
    graph = helper.make_graph(
        g.nodes,
        "ben2_stand_in",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, _SIDE, _SIDE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT16, [1, 1, _SIDE, _SIDE])],
        g.initializers,
        doc_string="Imitates the shape of BEN2, not its quality. For tests and demonstrations.",
    )
    model = helper.make_model(
        graph, producer_name="comfy-cpu", opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    # The distance of a colour from a mean is a difference of large numbers: bfloat16 is too coarse for it.
    helper.set_model_props(model, {STAND_IN_KEY: "true", PRECISION_KEY: "f32"})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


class _Graph:
    """An ONNX graph under construction; values are known by their names."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def op(self, kind: str, *inputs: str | float | Floats, output: str = "", **attributes: Any) -> str:
        """Add a node with one output. Numbers and arrays among the inputs become constants."""
        from onnx import helper

        name = output or f"{kind.lower()}_{len(self.nodes)}"
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        self.nodes.append(helper.make_node(kind, names, [name], **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def reshape(self, x: str, *shape: int) -> str:
        return self.op("Reshape", x, self.constant(shape, np.int64))

    def take(self, x: str, indices: Any, axis: int) -> str:
        return self.op("Gather", x, self.constant(np.asarray(indices), np.int64), axis=axis)

    def sum(self, x: str, axis: int) -> str:
        return self.op("ReduceSum", x, self.constant([axis], np.int64), keepdims=1)

    def shrink(self, x: str, factor: int) -> str:
        return self.op("AveragePool", x, kernel_shape=[factor] * 2, strides=[factor] * 2)

    def enlarge(self, x: str, factor: int) -> str:
        scales = np.array([1, 1, factor, factor], np.float32)
        return self.op("Resize", x, "", scales, mode="linear", coordinate_transformation_mode="half_pixel")

    def blur(self, x: str, radius: int) -> str:
        """The mean over a square window; at the border over the part inside the picture."""
        return self.op("AveragePool", x, kernel_shape=[2 * radius + 1] * 2, pads=[radius] * 4, count_include_pad=0)

    def sharpen(self, x: str, middle: float, gain: float) -> str:
        return self.op("Sigmoid", self.op("Mul", self.op("Sub", x, middle), gain))


def _segment(g: _Graph) -> None:
    picture = g.shrink("input", _SIDE // _COARSE)
    pixels, means = _features(g, picture)
    squares = g.op("Mul", pixels, pixels)
    smooth = _GuidedFilter(g, picture, radius=8, softness=4e-4)

    prior = _prior()
    starts = np.stack([_border_cells(), _middle_cells()])
    count = starts.shape[1]
    middle = g.take(means, starts, 0)  # [2, K, 5]: background, subject
    place_spread = np.array([0.20, 0.15], np.float32)
    spread = np.stack([np.r_[np.full(3, 0.09), np.full(2, s)] ** 2 for s in place_spread])[:, None]
    variance = g.constant(np.broadcast_to(spread, (2, count, 5)))
    weight = _starting_weights(g, means, starts)
    mask = ""
    for i in range(_ITERATIONS):
        likelihood = _log_likelihood(g, pixels, squares, middle, variance, weight)  # [2, N, K]
        best = g.op("ReduceMax", likelihood, axes=[2], keepdims=1)  # [2, N, 1]
        whole = g.op("Add", g.op("Log", g.sum(g.op("Exp", g.op("Sub", likelihood, best)), 2)), best)
        contrast = g.op("Sub", g.take(whole, 1, 0), g.take(whole, 0, 0))  # [N, 1]
        trust = 1.0 - 0.8 * i / (_ITERATIONS - 1)  # in where things usually are; less and less
        odds = g.op("Add", contrast, (trust * prior).astype(np.float32))
        mask = smooth(g.reshape(g.sharpen(odds, 0.0, 1 / 0.9), 1, 1, _COARSE, _COARSE))
        mask = g.op("Clip", mask, 0.0, 1.0)
        if i < _ITERATIONS - 1:
            inside = g.reshape(mask, 1, -1, 1)
            both = g.op("Concat", g.op("Sub", 1.0, inside), inside, axis=0)  # [2, N, 1]
            share = g.op("Mul", g.op("Softmax", likelihood, axis=2), both)
            middle, variance, weight = _update(g, share, pixels, squares, middle, variance)

    mask = g.sharpen(g.enlarge(mask, _FINE // _COARSE), 0.6, 10.0)
    fine = _GuidedFilter(g, g.shrink("input", _SIDE // _FINE), radius=6, softness=1e-4)
    slope, offset = fine.fit(mask)
    factor = _SIDE // _FINE
    alpha = g.op("Add", g.sum(g.op("Mul", g.enlarge(slope, factor), "input"), 1), g.enlarge(offset, factor))
    alpha = g.op("Clip", g.op("Div", g.op("Sub", alpha, 0.15), 0.7), 0.0, 1.0)
    g.op("Cast", alpha, to=10, output="output")  # 10 is FLOAT16


def _features(g: _Graph, picture: str) -> tuple[str, str]:
    """Brightness, red against blue, green against both, and place: ``[N,5]`` of every pixel, ``[64,5]`` of the grid."""
    opponent = np.array([[1 / 3, 1 / 3, 1 / 3], [1, 0, -1], [-0.5, 1, -0.5]], np.float32)
    colours = g.op("Conv", picture, opponent.reshape(3, 3, 1, 1))

    def tokens(x: str, side: int) -> str:
        rows = g.op("Transpose", g.reshape(x, 3, side * side), perm=[1, 0])
        return g.op("Concat", rows, np.stack(_places(side), -1).reshape(-1, 2), axis=1)

    return tokens(colours, _COARSE), tokens(g.shrink(colours, _COARSE // _GRID), _GRID)


def _places(side: int) -> tuple[Floats, Floats]:
    """The x and y of every pixel's middle, from 0 to 1."""
    along: Floats = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side)
    shape = (side, side)
    return np.broadcast_to(along, shape), np.broadcast_to(along[:, None], shape)


def _prior() -> Floats:
    """Where subjects usually are, as log odds ``[N,1]``: in the middle, wider towards the bottom, not at the border."""
    x, y = _places(_COARSE)
    step = 1 / (1 + np.exp(-(y - 0.06) / 0.05))
    body = np.exp(-0.5 * ((x - 0.5) / (0.17 + 0.22 * y)) ** 4) * step
    sides = np.exp(-np.minimum(x, 1 - x) / 0.04) / (1 + np.exp(-(0.55 - y) / 0.06))
    border = np.maximum(sides, np.exp(-y / 0.03))
    odds = 4.0 * body - 2.4 - 3.5 * border
    return np.asarray(odds, np.float32).reshape(-1, 1)


def _border_cells() -> list[int]:
    """Cells of the grid that are background as a rule: the upper row, and the sides but for the lower corners.

    Most of the upper row counts twice, so that there are as many as middle cells.
    """
    sides = [row * _GRID + column for row in range(1, 5) for column in (0, _GRID - 1)]
    return [*range(_GRID), *range(1, _GRID - 1), *sides]


def _middle_cells() -> list[int]:
    """Cells of the grid that belong to the subject as a rule: as many as there are border cells."""
    trunk = [row * _GRID + column for row in range(1, _GRID) for column in (3, 4)]
    return trunk + [row * _GRID + column for row in range(4, _GRID) for column in (2, 5)]


def _starting_weights(g: _Graph, means: str, starts: np.ndarray[Any, np.dtype[np.int64]]) -> str:
    """Weights ``[2,K,1]``: little for a middle cell whose colour the border has, too."""
    count = starts.shape[1]
    colours = g.take(means, range(3), 1)
    border, middle = (g.take(colours, cells, 0) for cells in starts)
    apart = g.op("Sub", g.reshape(middle, count, 1, 3), g.reshape(border, 1, count, 3))
    nearest = g.op("ReduceMin", g.sum(g.op("Mul", apart, apart), 2), axes=[1], keepdims=0)
    distinct = g.op("Sub", 1.01, g.op("Exp", g.op("Mul", nearest, -1 / (2 * 0.09**2))))
    distinct = g.reshape(distinct, 1, count, 1)
    return g.op("Concat", np.full((1, count, 1), 1 / count), g.op("Div", distinct, g.sum(distinct, 1)), axis=0)


def _log_likelihood(g: _Graph, pixels: str, squares: str, middle: str, variance: str, weight: str) -> str:
    """How well each Gaussian explains each pixel: ``[2,N,K]``."""
    precision = g.op("Div", 1.0, variance)
    scaled = g.op("Mul", middle, precision)

    def turned(x: str) -> str:
        return g.op("Transpose", x, perm=[0, 2, 1])

    distance = g.op(
        "Sub", g.op("MatMul", squares, turned(precision)), g.op("MatMul", pixels, turned(g.op("Mul", scaled, 2.0)))
    )
    constant = g.sum(g.op("Add", g.op("Mul", middle, scaled), g.op("Log", variance)), 2)  # [2, K, 1]
    constant = g.op("Sub", g.op("Log", weight), g.op("Mul", constant, 0.5))
    return g.op("Sub", turned(constant), g.op("Mul", distance, 0.5))


def _update(
    g: _Graph, share: str, pixels: str, squares: str, middle: str, variance: str, inertia: float = 12.0
) -> tuple[str, str, str]:
    """Fit the Gaussians to the pixels that they explain; as if `inertia` more pixels spoke for what they were."""
    turned = g.op("Transpose", share, perm=[0, 2, 1])  # [2, K, N]
    total = g.op("Add", g.sum(turned, 2), inertia)
    old_square = g.op("Add", g.op("Mul", middle, middle), variance)
    mean = g.op("Div", g.op("Add", g.op("MatMul", turned, pixels), g.op("Mul", middle, inertia)), total)
    square = g.op("Div", g.op("Add", g.op("MatMul", turned, squares), g.op("Mul", old_square, inertia)), total)
    narrowest = (np.array([0.03, 0.03, 0.03, 0.10, 0.10], np.float32) ** 2).reshape(1, 1, 5)
    spread = g.op("Max", g.op("Sub", square, g.op("Mul", mean, mean)), narrowest)
    return mean, spread, g.op("Div", total, g.sum(total, 1))


class _GuidedFilter:
    """He, Sun and Tang's guided filter with a colour picture: near each pixel the mask is linear in the colours."""

    def __init__(self, g: _Graph, picture: str, *, radius: int, softness: float) -> None:
        self._g, self._picture, self._radius = g, picture, radius
        self._mean = g.blur(picture, radius)
        inverse = self._inverse_covariance(softness)
        self._inverse = [g.op("Concat", *row, axis=1) for row in inverse]

    def __call__(self, mask: str) -> str:
        """Filter ``[1,1,H,W]``."""
        g = self._g
        slope, offset = self.fit(mask)
        return g.op("Add", g.sum(g.op("Mul", slope, self._picture), 1), offset)

    def fit(self, mask: str) -> tuple[str, str]:
        """The smoothed slopes ``[1,3,H,W]`` and offset ``[1,1,H,W]`` with which the picture gives the mask."""
        g = self._g
        mean = g.blur(mask, self._radius)
        both = g.blur(g.op("Mul", self._picture, mask), self._radius)
        covariance = g.op("Sub", both, g.op("Mul", self._mean, mean))
        slope = g.op("Concat", *(g.sum(g.op("Mul", row, covariance), 1) for row in self._inverse), axis=1)
        offset = g.op("Sub", mean, g.sum(g.op("Mul", slope, self._mean), 1))
        return g.blur(slope, self._radius), g.blur(offset, self._radius)

    def _inverse_covariance(self, softness: float) -> list[list[str]]:
        """The inverse of the colours' 3×3 covariance around each pixel, by cofactors."""
        g = self._g
        left, right = [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]
        products = g.op("Mul", g.take(self._picture, left, 1), g.take(self._picture, right, 1))
        means = g.op("Mul", g.take(self._mean, left, 1), g.take(self._mean, right, 1))
        diagonal = np.array([softness, 0, 0, softness, 0, softness], np.float32).reshape(1, 6, 1, 1)
        moments = g.op("Add", g.op("Sub", g.blur(products, self._radius), means), diagonal)
        a, b, c, d, e, f = (g.take(moments, [i], 1) for i in range(6))

        def minor(p: str, q: str, r: str, s: str) -> str:
            return g.op("Sub", g.op("Mul", p, q), g.op("Mul", r, s))

        aa, ab, ac = minor(d, f, e, e), minor(c, e, b, f), minor(b, e, c, d)
        bb, bc, cc = minor(a, f, c, c), minor(b, c, a, e), minor(a, d, b, b)
        terms = (g.op("Mul", a, aa), g.op("Mul", b, ab), g.op("Mul", c, ac))
        determinant = g.op("Sum", *terms)
        cofactors = [[aa, ab, ac], [ab, bb, bc], [ac, bc, cc]]
        return [[g.op("Div", value, determinant) for value in row] for row in cofactors]
