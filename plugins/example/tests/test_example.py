"""How to test a plugin: hooks are plain functions, a node is a plain class."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comfy_cpu_example as plugin
from comfy_cpu_core.context import Folders, RunContext, use_run
from comfy_cpu_core.convert import InputChange
from comfy_cpu_core.errors import ModelCorrupt, ModelMissing, NodeError
from comfy_cpu_core.models import ModelNeed
from comfy_cpu_core.nodes import NodeSignature
from comfy_cpu_core.plugins import load_plugins
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_core.workflow import PromptNode


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunContext]:
    """What the engine gives a node: folders and a model tree, here empty ones."""
    context = RunContext(Folders(tmp_path / "in", tmp_path / "out", tmp_path / "temp"), ModelTree(tmp_path / "models"))
    with use_run(context):
        yield context


def put_matrix(run: RunContext, text: str) -> None:
    path = run.models.path("example/sepia.json")
    path.parent.mkdir(parents=True)
    path.write_text(text)


# The node


def test_a_colour_is_tinted_and_alpha_is_kept(run: RunContext) -> None:
    put_matrix(run, json.dumps({"matrix": [[0, 1, 0], [1, 0, 0], [0, 0, 2]]}))
    image = np.array([[[[0.25, 0.5, 0.75, 0.1]]]], np.float32)
    (tinted,) = plugin.ExampleTone().tint(image)
    np.testing.assert_allclose(tinted, [[[[0.5, 0.25, 1.0, 0.1]]]])  # red and green swapped, blue clipped
    (half,) = plugin.ExampleTone().tint(image, strength=0.5)
    np.testing.assert_allclose(half, [[[[0.375, 0.375, 0.875, 0.1]]]])


def test_the_packages_own_model_is_used_if_the_tree_has_none(run: RunContext) -> None:
    white = np.ones((2, 3, 4, 3), np.float32)
    (tinted,) = plugin.ExampleTone().tint(white)
    assert tinted.dtype == np.float32
    np.testing.assert_allclose(tinted[1, 2, 3], [1, 1, 0.937], atol=1e-6)  # sepia: the blue goes


def test_the_input_is_not_changed(run: RunContext) -> None:
    image = np.ones((1, 2, 2, 3), np.float32)
    plugin.ExampleTone().tint(image)
    assert (image == 1).all()


def test_a_tensor_gives_a_tensor(run: RunContext) -> None:
    """ComfyUI gives torch tensors; torch need not be installed to test what happens then."""

    class Tensor:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return np.ones((1, 2, 2, 3), np.float32)

        def new_tensor(self, array: np.ndarray) -> tuple[str, tuple[int, ...]]:
            return "tensor", array.shape

    assert plugin.ExampleTone().tint(Tensor()) == (("tensor", (1, 2, 2, 3)),)


@pytest.mark.parametrize("shape", [(2, 2, 3), (1, 2, 2, 1)])
def test_what_is_no_image_is_an_error_that_says_so(shape: tuple[int, ...], run: RunContext) -> None:
    with pytest.raises(NodeError, match="image: "):
        plugin.ExampleTone().tint(np.ones(shape, np.float32))


@pytest.mark.parametrize(
    "text", ["no JSON", "{}", "[]", '{"matrix": [["red"]]}', '{"matrix": 1}', '{"matrix": [[1, 0], [0, 1]]}']
)
def test_a_broken_model_is_an_error(text: str, run: RunContext) -> None:
    put_matrix(run, text)
    with pytest.raises(ModelCorrupt, match=r"sepia\.json"):
        plugin.ExampleTone().tint(np.ones((1, 2, 2, 3), np.float32))


def test_a_missing_model_names_the_command_that_fetches_it(run: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "find_model_file", lambda *arguments: None)
    with pytest.raises(ModelMissing) as caught:
        plugin.ExampleTone().tint(np.ones((1, 2, 2, 3), np.float32))
    assert caught.value.remedy == "fetch it with `comfy-cpu models fetch example-sepia`"


def test_without_an_engine_the_users_model_tree_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "example").mkdir()
    (tmp_path / "example" / "sepia.json").write_text('{"matrix": [[1, 0, 0], [0, 1, 0], [0, 0, 0]]}')
    monkeypatch.setenv("COMFY_CPU_MODELS", str(tmp_path))
    assert plugin.load_matrix()[2] == [0, 0, 0]


# The hooks


def test_the_node_class_is_found_with_its_inputs() -> None:
    (node,) = plugin.comfy_cpu_node_classes()
    signature = NodeSignature.from_class(node.class_type, node.cls)
    assert [spec.name for spec in signature.inputs] == ["image", "strength", "device"]
    assert signature.outputs == ("IMAGE",)


def test_the_node_needs_the_model() -> None:
    (model,) = plugin.comfy_cpu_models()
    assert list(plugin.comfy_cpu_models_for_node(PromptNode("1", "ExampleTone"))) == [ModelNeed(model.id)]
    assert list(plugin.comfy_cpu_models_for_node(PromptNode("1", "LoadImage"))) == []


@pytest.mark.parametrize(
    ("class_type", "device", "changes"),
    [
        ("ExampleTone", "cuda", [InputChange("device", "cpu", "there is no CUDA on a CPU machine")]),
        ("ExampleTone", "cpu", []),
        ("SomebodyElses", "cuda", []),
    ],
)
def test_cuda_becomes_cpu(class_type: str, device: str, changes: list[InputChange]) -> None:
    assert list(plugin.comfy_cpu_convert_node(PromptNode("1", class_type, {"device": device}))) == changes


# The package


def test_comfy_cpu_finds_the_plugin() -> None:
    (info,) = [info for info in load_plugins({}).infos() if info.name == "example"]
    assert (info.state, info.problem) == ("active", "")
    assert len(info.hooks) == 4
