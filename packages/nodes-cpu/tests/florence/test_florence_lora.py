"""Adapters, against weights that were changed by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comfy_cpu_core.errors import ModelCorrupt, ModelError, ModelMissing
from comfy_cpu_nodes.runtimes.florence import Florence, Sampling, lease_florence, open_adapter, open_florence

StandIn = Callable[..., Path]

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "bias": "none", "target_modules": ["q_proj", "fc2", "lm_head"]}
QUERY = "language_model.model.decoder.layers.1.encoder_attn.q_proj"
VISION = "vision_tower.blocks.2.1.spatial_block.ffn.fn.net.fc2"
HEAD = "language_model.lm_head"
SHAPES = {QUERY: (64, 64), VISION: (16, 64), HEAD: (1285, 64)}

Write = Callable[..., Path]


@pytest.fixture
def adapter(libraries: Any, tmp_path: Path) -> Write:
    """Writes an adapter; `changes` are settings, a value of None leaves one out."""

    def write(*, weights: dict[str, Any] | None = None, **changes: Any) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        settings = {key: value for key, value in {**CONFIG, **changes}.items() if value is not None}
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        libraries.safetensors.torch.save_file(
            matrices(libraries.torch) if weights is None else weights, str(folder / "adapter_model.safetensors")
        )
        return folder

    return write


def matrices(torch: Any) -> dict[str, Any]:
    random = torch.Generator().manual_seed(5)
    weights = {}
    for module, (outputs, inputs) in SHAPES.items():
        weights[f"base_model.model.{module}.lora_A.weight"] = torch.randn(2, inputs, generator=random)
        weights[f"base_model.model.{module}.lora_B.weight"] = torch.randn(outputs, 2, generator=random)
    return weights


def load(path: Path, adapter: Path | None = None) -> Florence:
    chosen = open_adapter(adapter, fetch="fetch it") if adapter else None
    return open_florence(path, name="LLM/tiny", fetch="fetch it", precision="f32", adapter=chosen)


@pytest.mark.parametrize(
    ("settings", "scale"), [({}, 4.0), ({"use_rslora": True}, 8 / math.sqrt(2)), ({"lora_alpha": None}, 1)]
)
@pytest.mark.parametrize("layout", ["native", "old"])
def test_it_is_added_to_the_weights(
    libraries: Any, stand_in: StandIn, adapter: Write, layout: str, settings: dict[str, Any], scale: float
) -> None:
    torch = libraries.torch
    path = stand_in(layout=layout)
    with lease_florence(load(path)) as model:
        before = {name: tensor.clone() for name, tensor in model._model.state_dict().items()}
    with lease_florence(load(path, adapter(**settings))) as model:
        after = model._model.state_dict()
    names = {
        QUERY: "model.language_model.decoder.layers.1.encoder_attn.q_proj.weight",
        VISION: "model.vision_tower.blocks.2.1.spatial_block.ffn.fc2.weight",
        HEAD: "lm_head.weight",
    }
    pairs = matrices(torch)
    for module, name in names.items():
        a, b = (pairs[f"base_model.model.{module}.lora_{part}.weight"] for part in "AB")
        assert torch.allclose(after[name], before[name] + scale * (b @ a), atol=1e-5)
    # The token embeddings are the head's weights under another name; the adapter is the head's alone.
    for name in before.keys() - set(names.values()):
        assert torch.equal(after[name], before[name]), name


def test_answers_change_and_both_stay_apart(stand_in: StandIn, adapter: Write, picture: np.ndarray) -> None:
    def ask(florence: Florence) -> str:
        with lease_florence(florence) as model:
            return model.answer(picture, "x", Sampling(16, 3, False, 1), lambda: None)

    plain = load(stand_in())
    before = ask(plain)
    adapted = load(stand_in(), adapter())
    assert adapted != plain
    assert ask(adapted) != before
    assert ask(plain) == before


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("peft_type", "ADALORA"),
        ("use_dora", True),
        ("bias", "all"),
        ("fan_in_fan_out", True),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"fc2": 4}),
        ("alpha_pattern", {"fc2": 4}),
    ],
)
def test_kinds_that_cannot_be_added(adapter: Write, setting: str, value: object) -> None:
    with pytest.raises(ModelError, match=f"cannot be added to the weights: {setting} is"):
        open_adapter(adapter(**{setting: value}), fetch="fetch it")


def test_a_weight_that_is_no_pair_of_matrices(libraries: Any, stand_in: StandIn, adapter: Write) -> None:
    folder = adapter(weights={"base_model.model.x.lora_embedding_A": libraries.torch.zeros(2, 2)})
    with pytest.raises(ModelError, match=r"'base_model\.model\.x\.lora_embedding_A', which cannot be added"):
        load(stand_in(), folder)


def test_half_of_a_pair(libraries: Any, stand_in: StandIn, adapter: Write) -> None:
    weights = matrices(libraries.torch)
    del weights[f"base_model.model.{QUERY}.lora_B.weight"]
    with pytest.raises(ModelCorrupt, match="only half of what it needs"):
        load(stand_in(), adapter(weights=weights))


def test_a_part_that_the_model_does_not_have(libraries: Any, stand_in: StandIn, adapter: Write) -> None:
    weights = {name.replace("layers.1", "layers.7"): tensor for name, tensor in matrices(libraries.torch).items()}
    with pytest.raises(ModelError, match="which the model does not have"):
        load(stand_in(), adapter(weights=weights))


@pytest.mark.parametrize("shape", [(64, 3), (9, 2), (64, 2, 1, 1)])
def test_an_adapter_of_another_model(libraries: Any, stand_in: StandIn, adapter: Write, shape: tuple[int, ...]) -> None:
    weights = matrices(libraries.torch) | {f"base_model.model.{QUERY}.lora_B.weight": libraries.torch.zeros(shape)}
    with pytest.raises(ModelError, match="does not fit the model") as caught:
        load(stand_in(), adapter(weights=weights))
    assert caught.value.remedy == "use it with the model that it was made for"


@pytest.mark.parametrize("alpha", ["8", [8]])
def test_a_scale_that_is_no_number(stand_in: StandIn, adapter: Write, alpha: object) -> None:
    with pytest.raises(ModelCorrupt, match="lora_alpha is"):
        load(stand_in(), adapter(lora_alpha=alpha))


def test_only_a_pickle(adapter: Write) -> None:
    folder = adapter()
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"only as a pickle .adapter_model\.bin"):
        open_adapter(folder, fetch="fetch it")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file(adapter: Write, name: str) -> None:
    folder = adapter()
    (folder / name).unlink()
    with pytest.raises(ModelMissing, match=name):
        open_adapter(folder, fetch="fetch it")


def test_truncated_weights(stand_in: StandIn, adapter: Write) -> None:
    folder = adapter()
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelCorrupt, match="cannot be read"):
        load(stand_in(), folder)
