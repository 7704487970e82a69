from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from comfy_cpu_core.errors import NodeError
from comfy_cpu_nodes import arrays


class Tensor:
    """What this module uses of a torch tensor. `module` makes the class look like torch's."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.calls: list[str] = []

    def detach(self) -> Tensor:
        self.calls.append("detach")
        return self

    def cpu(self) -> Tensor:
        self.calls.append("cpu")
        return self

    def float(self) -> Tensor:
        self.array = self.array.astype(np.float32, copy=False)
        return self

    def numpy(self) -> np.ndarray:
        return self.array


Tensor.__module__ = "torch"


class Parameter(Tensor):
    """A subclass that lives elsewhere is a tensor all the same."""


Parameter.__module__ = "somebody.elses.pack"


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    fake = SimpleNamespace(from_numpy=Tensor)
    monkeypatch.setitem(sys.modules, "torch", fake)
    return fake


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_array_is_shared_and_cannot_be_changed_by_accident(channels: int) -> None:
    image = np.zeros((2, 3, 5, channels), np.float32)
    array = arrays.to_numpy(image)
    assert np.shares_memory(array, image)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    image[0] = 1  # the owner still may
    assert arrays.like(image, image) is image


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_become_float32(dtype: type) -> None:
    assert arrays.to_numpy(np.ones((1, 2, 2, 3), dtype)).dtype == np.float32


@pytest.mark.parametrize("kind", [Tensor, Parameter])
def test_a_tensor_and_back(kind: type[Tensor], torch: SimpleNamespace) -> None:
    image = np.random.default_rng(0).random((1, 4, 4, 3), np.float32)
    tensor = kind(image)
    array = arrays.to_numpy(tensor)
    assert np.shares_memory(array, image)
    assert tensor.calls == ["detach", "cpu"]
    back = arrays.like(array[:, ::-1], tensor)
    assert type(back) is Tensor
    assert back.array.flags.c_contiguous
    assert np.array_equal(back.array, image[:, ::-1])


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (None, "not NoneType"),
        ([[1.0]], "not list"),
        (np.zeros((1, 2, 2, 3), np.uint8), "not uint8"),
        (np.zeros((2, 2, 3), np.float32), r"\(2, 2, 3\)"),
        (np.zeros((1, 2, 2, 2), np.float32), r"\(1, 2, 2, 2\)"),
        (np.zeros((1, 2, 2, 5), np.float32), r"\(1, 2, 2, 5\)"),
        (np.zeros((1, 3, 2, 2, 3), np.float32), r"\(1, 3, 2, 2, 3\)"),
        (np.zeros((0, 2, 2, 3), np.float32), "empty"),
        (np.zeros((1, 0, 2, 3), np.float32), "empty"),
    ],
)
def test_what_is_no_image(image: Any, says: str) -> None:
    with pytest.raises(NodeError, match=f"pictures: .*{says}"):
        arrays.to_numpy(image, name="pictures")


@pytest.mark.parametrize(("shape", "expected"), [((2, 3, 4), (2, 3, 4)), ((3, 4), (1, 3, 4))])
def test_masks(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert arrays.mask_to_numpy(np.zeros(shape, np.float32)).shape == expected


@pytest.mark.parametrize("shape", [(4,), (1, 2, 3, 1), (0, 3, 4)])
def test_what_is_no_mask(shape: tuple[int, ...]) -> None:
    with pytest.raises(NodeError, match="mask: "):
        arrays.mask_to_numpy(np.zeros(shape, np.float32))


def test_real_tensors() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.rand(2, 3, 4, 3)
    array = arrays.to_numpy(tensor)
    assert np.shares_memory(array, tensor.numpy())
    back = arrays.like(array.copy(), tensor)
    assert isinstance(back, torch.Tensor)
    assert torch.equal(back, tensor)
    assert np.array_equal(arrays.to_numpy(torch.ones(1, 2, 2, 1, dtype=torch.bfloat16)), np.ones((1, 2, 2, 1)))
    assert arrays.to_numpy(torch.nn.Parameter(tensor)).shape == (2, 3, 4, 3)
