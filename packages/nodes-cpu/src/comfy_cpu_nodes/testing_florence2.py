"""A stand-in for Florence-2: all of its parts, tiny or of the real size. Needs the extra ``florence2``.

Weights are random numbers and the tokenizer knows single bytes, so that its answers mean nothing, unless it is told what
to say. It is marked in its ``config.json``, so that every result made with it says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from comfy_cpu_nodes.runtimes.florence import SPECIAL_TOKENS, STAND_IN_KEY, load_libraries

__all__ = ["write_florence2_stand_in"]

_BART_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


@dataclass(frozen=True)
class _Size:
    """How large a stand-in is.

    Attributes:
        text, vision: as transformers' configuration classes have it.
        side: of the pictures that it takes.
        vocabulary: how many tokens it has; None for as many as its tokenizer.
        type: of the weights, in torch.
    """

    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    side: int
    vocabulary: int | None
    type: str


_TEXT = {
    "activation_function": "gelu",
    "scale_embedding": False,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
_VISION = {
    "patch_size": [7, 3, 3, 3],
    "patch_stride": [4, 2, 2, 2],
    "patch_padding": [3, 1, 1, 1],
    "patch_prenorm": [False, True, True, True],
    "window_size": 12,
    "max_temporal_embeddings": 100,
    "max_position_embeddings": 50,
}


def _text(width: int, layers: int, heads: int, positions: int) -> dict[str, Any]:
    both = {"layers": layers, "attention_heads": heads, "ffn_dim": 4 * width}
    sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in both.items()}
    return {"d_model": width, **sides, "max_position_embeddings": positions, **_TEXT}


def _vision(width: int, depths: list[int], widths: list[int], heads: list[int]) -> dict[str, Any]:
    return {
        "depths": depths,
        "embed_dim": widths,
        "num_heads": heads,
        "num_groups": heads,
        "projection_dim": width,
        **_VISION,
    }


_SIZES = {
    "tiny": _Size(_text(64, 2, 4, 256), _vision(64, [1, 1, 2, 1], [8, 8, 16, 16], [1, 1, 2, 2]), 64, None, "float32"),
    "base": _Size(
        _text(768, 6, 12, 1024),
        _vision(768, [1, 1, 9, 1], [128, 256, 512, 1024], [4, 8, 16, 32]),
        768,
        51289,
        "float16",
    ),
}

# From the native layout's names to the old one's.
_OLD_NAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.multi_modal_projector\.image_projection\.weight$", "image_projection"),
        (r"^model\.multi_modal_projector\.image_position_embed\.", "image_pos_embed."),
        (r"^model\.multi_modal_projector\.visual_temporal_embed\.", "visual_temporal_embed."),
        (r"^model\.multi_modal_projector\.", ""),
        (r"^model\.vision_tower\.", "vision_tower."),
        (r"\.conv\.(weight|bias)$", r".proj.\1"),
        (r"\.(conv[12])\.(weight|bias)$", r".\1.fn.dw.\2"),
        (r"\.spatial_block\.norm1\.", ".spatial_block.window_attn.norm."),
        (r"\.channel_block\.norm1\.", ".channel_block.channel_attn.norm."),
        (r"\.norm2\.", ".ffn.norm."),
        (r"\.(window_attn|channel_attn)\.(qkv|proj)\.", r".\1.fn.\2."),
        (r"_block\.ffn\.(fc[12])\.", r"_block.ffn.fn.net.\1."),
    )
)


def write_florence2_stand_in(
    directory: Path,
    *,
    layout: Literal["native", "old"] = "native",
    size: Literal["tiny", "base"] = "tiny",
    says: str | None = None,
    seed: int = 0,
) -> Path:
    """Write the directory of a Florence-2 whose weights are random numbers.

    Args:
        directory: made if need be.
        layout: ``native`` as transformers' own classes have it, or ``old`` as the models with Python code beside them
            have it. The same seed gives the same weights in both.
        size: ``tiny`` takes pictures of 64×64; ``base`` is as large as Florence-2-base, to measure how long that takes.
        says: what it answers to everything, up to about 240 characters and tags; None for random numbers.
        seed: of the weights.

    Returns:
        The directory.

    Raises:
        ModelError: torch or transformers is not installed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    wanted = _SIZES[size]
    tokenizer = _tokenizer()
    if layout == "old":  # where that code adds the further tokens itself
        tokenizer.save(str(directory / "tokenizer.json"))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    if layout == "native":
        tokenizer.save(str(directory / "tokenizer.json"))
    text = {"vocab_size": wanted.vocabulary or tokenizer.get_vocab_size(), **wanted.text}
    state = _weights(text, wanted, seed)
    if says is not None:
        _teach(state, tokenizer.encode(says, add_special_tokens=False).ids, layers=text["decoder_layers"])
    config = _native_config(text, wanted.vision)
    if layout == "old":
        state, config = _old_weights(state), _old_config(text, wanted.vision)
    generation: dict[str, Any] = {name: value for name, value in _TEXT.items() if name.endswith("_token_id")}
    generation |= {"forced_bos_token_id": 0, "forced_eos_token_id": 2, "num_beams": 3, "early_stopping": True}
    # Characters repeat sooner than the words that the real models' rule is for.
    generation["no_repeat_ngram_size"] = 3 if says is None else 0
    preprocessor = {"size": {"height": wanted.side, "width": wanted.side}, "resample": 3}
    _write_json(directory / "config.json", {STAND_IN_KEY: True, **config})
    _write_json(directory / "generation_config.json", generation)
    _write_json(directory / "preprocessor_config.json", preprocessor)
    load_libraries().safetensors.torch.save_file(state, str(directory / "model.safetensors"), metadata={"format": "pt"})
    return directory


def _write_json(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _tokenizer() -> Any:
    """BART's kind of tokenizer, with every byte a token and no word."""
    tokenizers = load_libraries().tokenizers
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*_BART_TOKENS, *alphabet))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_BART_TOKENS))
    return tokenizer


def _weights(text: Mapping[str, Any], size: _Size, seed: int) -> dict[str, Any]:
    """Random weights in the native layout, without those that are the token embeddings under another name."""
    libraries = load_libraries()
    torch, transformers = libraries.torch, libraries.transformers
    config = transformers.Florence2Config(text_config={"model_type": "bart", **text}, vision_config=dict(size.vision))
    with torch.device("meta"):
        shapes = transformers.Florence2ForConditionalGeneration(config).state_dict()
    random = torch.Generator().manual_seed(seed)
    state = {}
    for name in sorted(shapes):
        if name == "lm_head.weight" or name.endswith("embed_tokens.weight"):
            continue
        values = torch.randn(shapes[name].shape, generator=random)
        if "norm" in name:  # they multiply: near one
            values = 1 + values / 10 if name.endswith("weight") else values / 10
        elif name.endswith("bias"):
            values /= 10
        elif "embed" not in name:
            values /= values[0].numel() ** 0.5
        if ".blocks." in name and "norm" not in name:  # each adds to what came before: it must stay small for fp16
            values /= 4
        state[name] = values.to(getattr(torch, size.type))
    return state


def _teach(state: dict[str, Any], ids: list[int], *, layers: int) -> None:
    """Make a place in the answer count for more than everything else, and point to the token that stands there."""
    embeddings = state["model.language_model.shared.weight"]
    places = state["model.language_model.decoder.embed_positions.weight"]
    # Two rows that BART never uses, then the token that starts an answer, then the one that begins a text.
    for place, token in enumerate([*ids, 2], start=3):
        places[place] = 20 * embeddings[token]
    for name, values in state.items():
        if name.startswith("model.language_model.decoder.layers.") and re.search(r"\.(out_proj|fc2)\.", name):
            values.div_(20)
    last = f"model.language_model.decoder.layers.{layers - 1}.final_layer_norm"
    for part in ("weight", "bias"):  # so sure of it that chance has no say
        state[f"{last}.{part}"].mul_(4)


def _native_config(text: Mapping[str, Any], vision: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "florence2",
        "architectures": ["Florence2ForConditionalGeneration"],
        "text_config": {"model_type": "bart", **text},
        "vision_config": {"model_type": "florence_vision", **vision},
    }


def _old_config(text: Mapping[str, Any], vision: Mapping[str, Any]) -> dict[str, Any]:
    old = dict(vision)
    old["dim_embed"] = old.pop("embed_dim")
    old["visual_temporal_embedding"] = {"type": "COSINE", "max_temporal_embeddings": old.pop("max_temporal_embeddings")}
    old["image_pos_embed"] = {"type": "learned_abs_2d", "max_pos_embeddings": old.pop("max_position_embeddings")}
    old["image_feature_source"] = ["spatial_avg_pool", "temporal_avg_pool"]
    rules = {"forced_bos_token_id": 0, "forced_eos_token_id": 2, "no_repeat_ngram_size": 3, "early_stopping": True}
    return {
        "model_type": "florence2",
        "auto_map": {
            "AutoConfig": "configuration_florence2.Florence2Config",
            "AutoModelForCausalLM": "modeling_florence2.Florence2ForConditionalGeneration",
        },
        "projection_dim": vision["projection_dim"],
        "text_config": {"model_type": "florence2_language", **text, **rules},
        "vision_config": {"model_type": "davit", **old},
    }


def _old_weights(state: Mapping[str, Any]) -> dict[str, Any]:
    old = {}
    for native, values in state.items():
        name = native
        for pattern, replacement in _OLD_NAMES:
            name = pattern.sub(replacement, name)
        old[name] = values.t().contiguous() if name == "image_projection" else values
    torch = load_libraries().torch
    vocabulary = state["model.language_model.shared.weight"].shape[0]
    return old | {"language_model.final_logits_bias": torch.zeros(1, vocabulary)}
