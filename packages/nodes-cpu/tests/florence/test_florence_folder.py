"""Directories of models, in both layouts and in all kinds of disorder. No torch here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_core.errors import ModelCorrupt, ModelError, ModelMissing
from comfy_cpu_nodes.ops.florence import Normalisation
from comfy_cpu_nodes.runtimes.florence.folder import read_folder, weight_files
from comfy_cpu_nodes.runtimes.florence.weights import native_name

FETCH = "fetch it with `comfy-cpu models fetch florence-2-base`"

TEXT = {"vocab_size": 51289, "d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "max_position_embeddings": 1024}
VISION = {"depths": [1, 1, 9, 1], "num_heads": [4, 8, 16, 32], "num_groups": [4, 8, 16, 32], "projection_dim": 768}
NATIVE = {
    "model_type": "florence2",
    "text_config": {"model_type": "bart", **TEXT},
    "vision_config": {**VISION, "embed_dim": [128, 256, 512, 1024], "max_position_embeddings": 50},
}
OLD = {
    "model_type": "florence2",
    "auto_map": {"AutoConfig": "configuration_florence2.Florence2Config"},
    "text_config": {**TEXT, "model_type": "florence2_language", "no_repeat_ngram_size": 5, "num_beams": 3},
    "vision_config": {
        **VISION,
        "model_type": "davit",
        "dim_embed": [128, 256, 512, 1024],
        "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": 100},
        "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": 50},
    },
}

Put = Callable[[str, Any], Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    def write(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


@pytest.fixture
def whole(put: Put, tmp_path: Path) -> Path:
    put("config.json", NATIVE)
    put("tokenizer.json", {})
    put("model.safetensors", "")
    return tmp_path


def test_the_native_layout(whole: Path) -> None:
    folder = read_folder(whole, fetch=FETCH)
    assert folder.text == TEXT
    assert folder.vision == NATIVE["vision_config"]
    assert folder.weights == (whole / "model.safetensors",)
    assert folder.normalisation == Normalisation()
    assert not folder.stand_in
    assert folder.generation == {
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "forced_bos_token_id": 0,
        "forced_eos_token_id": 2,
        "no_repeat_ngram_size": 3,
        "early_stopping": True,
    }


def test_the_old_layout_is_translated(whole: Path, put: Put) -> None:
    put("config.json", OLD)
    folder = read_folder(whole, fetch=FETCH)
    assert folder.text == TEXT
    assert folder.vision == {
        **VISION,
        "embed_dim": [128, 256, 512, 1024],
        "max_temporal_embeddings": 100,
        "max_position_embeddings": 50,
    }
    assert folder.generation["no_repeat_ngram_size"] == 5


def test_files_of_its_own_go_before_what_is_usual(whole: Path, put: Put) -> None:
    put("generation_config.json", {"no_repeat_ngram_size": 0, "early_stopping": "never", "max_length": 20})
    put("preprocessor_config.json", {"size": {"height": 64, "width": 64}, "image_std": [0.5, 0.5, 0.5]})
    folder = read_folder(whole, fetch=FETCH)
    assert folder.generation["no_repeat_ngram_size"] == 0
    assert folder.generation["early_stopping"] is True
    assert "max_length" not in folder.generation
    assert folder.normalisation == Normalisation(64, (0.485, 0.456, 0.406), (0.5, 0.5, 0.5))


def test_where_later_versions_keep_the_preprocessor(whole: Path, put: Put) -> None:
    put("processor_config.json", {"image_processor": {"size": {"height": 96, "width": 96}}})
    assert read_folder(whole, fetch=FETCH).normalisation.side == 96


def test_a_file_that_was_replaced_shows(whole: Path, put: Put) -> None:
    before = read_folder(whole, fetch=FETCH).fingerprint
    assert {name for name, _, _ in before} == {"config.json", "tokenizer.json", "model.safetensors"}
    assert read_folder(whole, fetch=FETCH).fingerprint == before
    put("model.safetensors", "longer")
    assert read_folder(whole, fetch=FETCH).fingerprint != before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(whole: Path, name: str) -> None:
    (whole / name).unlink()
    with pytest.raises(ModelMissing, match=name) as caught:
        read_folder(whole, fetch=FETCH)
    assert caught.value.remedy == FETCH


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="Florence-9") as caught:
        read_folder(tmp_path / "Florence-9", fetch=FETCH)
    assert caught.value.remedy == FETCH


@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_a_pickle_is_an_error_that_names_the_alternative(whole: Path, put: Put, pickle: str) -> None:
    (whole / "model.safetensors").unlink()
    put(pickle, "not even looked at")
    with pytest.raises(ModelError, match=f"only as a pickle .{pickle}") as caught:
        read_folder(whole, fetch=FETCH)
    assert not isinstance(caught.value, ModelMissing), "fetching would not be tried by itself"
    assert caught.value.remedy is not None
    assert "safetensors" in caught.value.remedy
    assert FETCH in caught.value.remedy


def test_weights_in_parts(whole: Path, put: Put) -> None:
    (whole / "model.safetensors").unlink()
    put("model.safetensors.index.json", {"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors"}})
    put("model-1.safetensors", "")
    with pytest.raises(ModelMissing, match=r"model-2\.safetensors"):
        read_folder(whole, fetch=FETCH)
    put("model-2.safetensors", "")
    assert [file.name for file in read_folder(whole, fetch=FETCH).weights] == [
        "model-1.safetensors",
        "model-2.safetensors",
    ]


@pytest.mark.parametrize("parts", [{}, {"a": "../model.safetensors"}, {"a": "model.bin"}, {"a": 7}, []])
def test_an_index_that_makes_no_sense(whole: Path, put: Put, parts: object) -> None:
    (whole / "model.safetensors").unlink()
    put("model.safetensors.index.json", {"weight_map": parts})
    with pytest.raises(ModelCorrupt, match="does not say which files"):
        weight_files(whole, "model", fetch=FETCH)


@pytest.mark.parametrize("config", ["", "{", "[]", "null", '{"model_type": "florence2"}', "\udcff"])
def test_a_configuration_that_cannot_be_read(whole: Path, config: str) -> None:
    (whole / "config.json").write_text(config, errors="surrogateescape")
    with pytest.raises(ModelCorrupt, match=r"config\.json"):
        read_folder(whole, fetch=FETCH)


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("text_config", "vocab_size"),
        ("text_config", "d_model"),
        ("vision_config", "depths"),
        ("vision_config", "embed_dim"),
    ],
)
def test_a_configuration_with_a_hole(whole: Path, put: Put, section: str, name: str) -> None:
    config: dict[str, Any] = json.loads(json.dumps(NATIVE))
    del config[section][name]
    put("config.json", config)
    with pytest.raises(ModelCorrupt, match=rf"{section}\.{name}"):
        read_folder(whole, fetch=FETCH)


def test_another_kind_of_model(whole: Path, put: Put) -> None:
    put("config.json", {**NATIVE, "model_type": "llama"})
    with pytest.raises(ModelError, match="'llama', not a Florence-2"):
        read_folder(whole, fetch=FETCH)


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"height": "768"}},
        {"size": {"height": 10**9}},
        {"image_mean": [1, 2]},
        {"image_std": [0, 1, 1]},
        {"size": 7},
    ],
)
def test_a_preprocessor_that_makes_no_sense(whole: Path, put: Put, settings: dict[str, Any]) -> None:
    put("preprocessor_config.json", settings)
    with pytest.raises(ModelCorrupt, match=r"preprocessor_config\.json"):
        read_folder(whole, fetch=FETCH)


@pytest.mark.parametrize(
    ("old", "native"),
    [
        ("vision_tower.convs.0.proj.weight", "model.vision_tower.convs.0.conv.weight"),
        ("vision_tower.convs.3.norm.bias", "model.vision_tower.convs.3.norm.bias"),
        (
            "vision_tower.blocks.2.8.spatial_block.conv1.fn.dw.weight",
            "model.vision_tower.blocks.2.8.spatial_block.conv1.weight",
        ),
        (
            "vision_tower.blocks.0.0.channel_block.conv2.fn.dw.bias",
            "model.vision_tower.blocks.0.0.channel_block.conv2.bias",
        ),
        (
            "vision_tower.blocks.0.0.spatial_block.window_attn.norm.weight",
            "model.vision_tower.blocks.0.0.spatial_block.norm1.weight",
        ),
        (
            "vision_tower.blocks.0.0.channel_block.channel_attn.norm.weight",
            "model.vision_tower.blocks.0.0.channel_block.norm1.weight",
        ),
        (
            "vision_tower.blocks.0.0.spatial_block.window_attn.fn.qkv.weight",
            "model.vision_tower.blocks.0.0.spatial_block.window_attn.qkv.weight",
        ),
        (
            "vision_tower.blocks.0.0.channel_block.channel_attn.fn.proj.bias",
            "model.vision_tower.blocks.0.0.channel_block.channel_attn.proj.bias",
        ),
        (
            "vision_tower.blocks.0.0.channel_block.ffn.norm.bias",
            "model.vision_tower.blocks.0.0.channel_block.norm2.bias",
        ),
        (
            "vision_tower.blocks.0.0.spatial_block.ffn.fn.net.fc1.weight",
            "model.vision_tower.blocks.0.0.spatial_block.ffn.fc1.weight",
        ),
        ("image_projection", "model.multi_modal_projector.image_projection.weight"),
        ("image_proj_norm.weight", "model.multi_modal_projector.image_proj_norm.weight"),
        (
            "image_pos_embed.row_embeddings.weight",
            "model.multi_modal_projector.image_position_embed.row_embeddings.weight",
        ),
        (
            "visual_temporal_embed.pos_idx_to_embed",
            "model.multi_modal_projector.visual_temporal_embed.pos_idx_to_embed",
        ),
        (
            "language_model.model.decoder.layers.5.encoder_attn.q_proj.weight",
            "model.language_model.decoder.layers.5.encoder_attn.q_proj.weight",
        ),
        ("language_model.model.shared.weight", "model.language_model.shared.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("vision_tower.head.weight", None),
        ("vision_tower.norms.weight", None),
    ],
)
def test_names_of_weights(old: str, native: str | None) -> None:
    assert native_name(old) == native
    if native is not None:
        assert native_name(native) == native
