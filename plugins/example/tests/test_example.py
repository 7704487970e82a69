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
from comfy_cpu_core.image import BakeJob, CommandOutput, ImageFacts, ImageInfo, ImageRequest
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


# The image


REQUEST = ImageRequest("engine", frozenset({"ExampleTone"}), frozenset({"example-sepia"}))


def test_an_image_with_the_node_gets_step_and_start_part() -> None:
    (step,) = plugin.comfy_cpu_image_steps(REQUEST)
    assert step.environment == {"EXAMPLE_TONE": "sepia"}
    (part,) = plugin.comfy_cpu_start_script(REQUEST)
    assert part.environment == {"EXAMPLE_STRENGTH": "1.0"}
    other = ImageRequest("engine", frozenset({"LoadImage"}), frozenset())
    assert not list(plugin.comfy_cpu_image_steps(other))
    assert not list(plugin.comfy_cpu_start_script(other))


def test_what_is_baked_is_what_the_model_says(tmp_path: Path) -> None:
    (tmp_path / "models" / "example").mkdir(parents=True)
    (tmp_path / "models" / "example" / "sepia.json").write_text('{"matrix": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}')
    job = BakeJob(ModelTree(tmp_path / "models"), tmp_path / "baked", {}, threads=1)
    (made,) = plugin.bake_matrix(job)
    assert json.loads((job.output / made.target).read_text()) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    plugin.verify_matrix(job)
    (job.output / made.target).write_text("[0]")
    with pytest.raises(ModelCorrupt):
        plugin.verify_matrix(job)


@pytest.mark.parametrize(("code", "ok"), [(0, True), (1, False)])
def test_the_check_looks_for_the_note(code: int, ok: bool) -> None:
    (check,) = plugin.comfy_cpu_checks()
    facts = ImageFacts(
        ImageInfo("sha256:0"),
        {"workflows": [{"class_types": ["ExampleTone"]}]},
        outputs={"example": (CommandOutput(code, "Made for ExampleTone.", ""),)},
    )
    assert [finding.ok for finding in check.run(facts)] == [ok]


# The package


def test_comfy_cpu_finds_the_plugin() -> None:
    (info,) = [info for info in load_plugins({}).infos() if info.name == "example"]
    assert (info.state, info.problem) == ("active", "")
    assert len(info.hooks) == 9
