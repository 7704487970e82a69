"""A directory with a Florence-2 model, in either of its two layouts, read and checked without torch.

The *native* layout is the one of transformers' own classes (``florence-community/*``). The *old* layout
(``microsoft/*`` and its fine-tunes) was made for Python code that lies beside the weights; that code is never run.
What its configuration says is translated here, and its weights in `weights`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy_cpu_core.errors import ModelCorrupt, ModelError, ModelMissing
from comfy_cpu_nodes.ops.florence import Normalisation

__all__ = ["STAND_IN_KEY", "VERIFY", "ModelFolder", "read_folder", "read_json", "weight_files"]

#: The key in ``config.json`` that marks a model which only imitates a real one.
STAND_IN_KEY = "comfy_cpu_stand_in"

VERIFY = "check the model tree with `comfy-cpu models verify`, and fetch the model again"

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

# What transformers' BartConfig and Florence2VisionConfig take; everything else in a config.json is left out.
_TEXT = (
    "vocab_size", "d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "decoder_layers",
    "decoder_attention_heads", "decoder_ffn_dim", "max_position_embeddings", "activation_function", "scale_embedding",
    "bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id",
)  # fmt: skip
_VISION = (
    "in_channels", "depths", "patch_size", "patch_stride", "patch_padding", "patch_prenorm", "embed_dim", "num_heads",
    "num_groups", "window_size", "mlp_ratio", "qkv_bias", "activation_function", "projection_dim",
    "max_temporal_embeddings", "max_position_embeddings",
)  # fmt: skip
_NEEDED_TEXT = ("vocab_size", "d_model", "encoder_layers", "decoder_layers")
_NEEDED_VISION = ("depths", "embed_dim", "num_heads", "num_groups", "projection_dim")

# How every published Florence-2 generates; a directory's own files go before it.
_GENERATION = {
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
    "no_repeat_ngram_size": 3,
    "early_stopping": True,
}


@dataclass(frozen=True)
class ModelFolder:
    """A model's directory, ready to load.

    Attributes:
        path: the directory.
        text, vision: arguments for transformers' configuration classes.
        generation: token ids and rules for generating text.
        weights: the safetensors files.
        tokenizer: the tokenizer's file.
        normalisation: how pictures are prepared.
        stand_in: whether the model only imitates the one of that name.
    """

    path: Path
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    generation: Mapping[str, Any]
    weights: tuple[Path, ...]
    tokenizer: Path
    normalisation: Normalisation
    stand_in: bool

    @property
    def size(self) -> int:
        """The weights' bytes on disk."""
        return sum(file.stat().st_size for file in self.weights)

    @property
    def fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        """Name, size and time of every file that decides about results."""
        files = sorted([*self.weights, *self.path.glob("*.json")])
        status = [(file.name, file.stat()) for file in files]
        return tuple((name, entry.st_size, entry.st_mtime_ns) for name, entry in status)


def read_folder(path: Path, *, fetch: str) -> ModelFolder:
    """Read what a directory says of itself; the weights are only looked for.

    Args:
        path: the directory.
        fetch: the command that gets the model, for errors.

    Raises:
        ModelMissing: the directory or a file that is needed is not there.
        ModelCorrupt: a file cannot be read or makes no sense.
        ModelError: it is another kind of model, or its weights are pickles.
    """
    if not path.is_dir():
        raise ModelMissing(f"model directory {path} is not there", remedy=fetch)
    config = read_json(path / "config.json", fetch=fetch)
    if config.get("model_type") != "florence2":
        raise ModelError(f"{path} holds a model of type {config.get('model_type')!r}, not a Florence-2")
    text, vision = _section(path, config, "text_config"), _section(path, config, "vision_config")
    tokenizer = path / "tokenizer.json"
    if not tokenizer.is_file():
        raise ModelMissing(f"model file {tokenizer} is not there", remedy=fetch)
    return ModelFolder(
        path=path,
        text=_pick(path, "text_config", text, _TEXT, _NEEDED_TEXT),
        vision=_pick(path, "vision_config", _native_vision(vision), _VISION, _NEEDED_VISION),
        generation=_generation(path, text),
        weights=weight_files(path, "model", fetch=fetch),
        tokenizer=tokenizer,
        normalisation=_normalisation(path),
        stand_in=config.get(STAND_IN_KEY) is True,
    )


def read_json(file: Path, *, fetch: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ModelMissing: there is no such file.
        ModelCorrupt: it is no JSON object.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelMissing(f"model file {file} is not there", remedy=fetch) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelCorrupt(f"model file {file} cannot be read: {error}", remedy=VERIFY) from error
    if not isinstance(data, dict):
        raise ModelCorrupt(f"model file {file} holds no JSON object", remedy=VERIFY)
    return data


def weight_files(path: Path, stem: str, *, fetch: str) -> tuple[Path, ...]:
    """The safetensors files of a directory: ``{stem}.safetensors``, or the parts that an index names.

    Raises:
        ModelMissing: there are none, or a part is not there.
        ModelError: there are only pickles, which can run any code when they are read.
    """
    whole, index = path / f"{stem}.safetensors", path / f"{stem}.safetensors.index.json"
    if whole.is_file():
        return (whole,)
    if index.is_file():
        parts = read_json(index, fetch=fetch).get("weight_map")
        names = sorted({str(name) for name in parts.values()}) if isinstance(parts, dict) else []
        if not names or any(os.path.basename(name) != name or not name.endswith(".safetensors") for name in names):  # noqa: PTH119
            raise ModelCorrupt(f"model file {index} does not say which files the weights are in", remedy=VERIFY)
        for name in names:
            if not (path / name).is_file():
                raise ModelMissing(f"model file {path / name} is not there", remedy=fetch)
        return tuple(path / name for name in names)
    pickles = sorted(file.name for file in path.iterdir() if file.suffix in _PICKLES)
    if pickles:
        raise ModelError(
            f"{path} has its weights only as a pickle ({pickles[0]}), which can run any code when it is read",
            remedy=f"the weights are needed as {stem}.safetensors; move this directory away, then: {fetch}",
        )
    raise ModelMissing(f"model file {whole} is not there", remedy=fetch)


def _section(path: Path, config: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name)
    if not isinstance(section, dict):
        raise ModelCorrupt(f"model file {path / 'config.json'} has no {name}", remedy=VERIFY)
    return section


def _pick(
    path: Path, section: str, values: Mapping[str, Any], known: tuple[str, ...], needed: tuple[str, ...]
) -> dict[str, Any]:
    for name in needed:
        if values.get(name) is None:
            raise ModelCorrupt(f"model file {path / 'config.json'} has no {section}.{name}", remedy=VERIFY)
    return {name: values[name] for name in known if values.get(name) is not None}


def _native_vision(old: Mapping[str, Any]) -> dict[str, Any]:
    """The vision part of a configuration in the native layout's terms; one that is in them already stays as it is."""
    vision = dict(old)
    if "dim_embed" in vision:
        vision["embed_dim"] = vision["dim_embed"]
    for section, name, native in (
        ("visual_temporal_embedding", "max_temporal_embeddings", "max_temporal_embeddings"),
        ("image_pos_embed", "max_pos_embeddings", "max_position_embeddings"),
    ):
        if isinstance(vision.get(section), dict) and name in vision[section]:
            vision[native] = vision[section][name]
    return vision


def _generation(path: Path, text: Mapping[str, Any]) -> dict[str, Any]:
    """How to generate: the directory's own file, else what the old layout has among the text's settings."""
    file = path / "generation_config.json"
    own = read_json(file, fetch="") if file.is_file() else {}
    rules = {}
    for name, usual in _GENERATION.items():
        value = own.get(name, text.get(name))
        # Whole numbers and truth values are what all of them are; anything else is not for us.
        rules[name] = value if isinstance(value, int) else usual
    return rules


def _normalisation(path: Path) -> Normalisation:
    usual = Normalisation()
    settings = _image_processor(path)
    size = settings.get("size", {})
    side = size.get("height", usual.side) if isinstance(size, dict) else size
    mean, deviation = settings.get("image_mean", usual.mean), settings.get("image_std", usual.deviation)
    if not (
        isinstance(side, int)
        and 32 <= side <= 4096
        and _three_numbers(mean)
        and _three_numbers(deviation)
        and all(value > 0 for value in deviation)
    ):
        raise ModelCorrupt(f"{path}: its preprocessor_config.json makes no sense", remedy=VERIFY)
    return Normalisation(side, tuple(mean), tuple(deviation))


def _image_processor(path: Path) -> dict[str, Any]:
    if (file := path / "preprocessor_config.json").is_file():
        return read_json(file, fetch="")
    if (file := path / "processor_config.json").is_file():  # where later versions of transformers write it
        found = read_json(file, fetch="").get("image_processor")
        return found if isinstance(found, dict) else {}
    return {}


def _three_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(v, int | float) for v in value)
