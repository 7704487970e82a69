"""A model's weights: read from safetensors, renamed where they are in the old layout, put into the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from comfy_cpu_core.errors import ModelCorrupt
from comfy_cpu_nodes.runtimes.florence.folder import VERIFY
from comfy_cpu_nodes.runtimes.florence.library import Libraries

__all__ = ["HEAD", "native_name", "read_tensors", "state_of"]

#: The weights that choose the next token. Usually they are the token embeddings.
HEAD = "lm_head.weight"

_EMBEDDINGS = tuple(
    f"model.language_model.{part}.weight" for part in ("shared", "encoder.embed_tokens", "decoder.embed_tokens")
)

#: The one weight that the native layout keeps the other way round.
_PROJECTION = "image_projection"

_BLOCK = r"^vision_tower\.blocks\.(\d+\.\d+)\."
_RENAMED = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^vision_tower\.convs\.(\d+)\.proj\.", r"model.vision_tower.convs.\1.conv."),
        (r"^vision_tower\.convs\.(\d+)\.norm\.", r"model.vision_tower.convs.\1.norm."),
        (_BLOCK + r"(\w+_block)\.(conv[12])\.fn\.dw\.", r"model.vision_tower.blocks.\1.\2.\3."),
        (_BLOCK + r"(\w+_block)\.(?:window|channel)_attn\.norm\.", r"model.vision_tower.blocks.\1.\2.norm1."),
        (_BLOCK + r"(\w+_block)\.(\w+_attn)\.fn\.(qkv|proj)\.", r"model.vision_tower.blocks.\1.\2.\3.\4."),
        (_BLOCK + r"(\w+_block)\.ffn\.norm\.", r"model.vision_tower.blocks.\1.\2.norm2."),
        (_BLOCK + r"(\w+_block)\.ffn\.fn\.net\.(fc[12])\.", r"model.vision_tower.blocks.\1.\2.ffn.\3."),
        (r"^image_projection$", "model.multi_modal_projector.image_projection.weight"),
        (r"^image_proj_norm\.", "model.multi_modal_projector.image_proj_norm."),
        (r"^image_pos_embed\.", "model.multi_modal_projector.image_position_embed."),
        (r"^visual_temporal_embed\.", "model.multi_modal_projector.visual_temporal_embed."),
        (r"^language_model\.model\.", "model.language_model."),
        (r"^language_model\.lm_head\.", "lm_head."),
    )
)  # fmt: skip

# Left over from what the old layout's code was made of; no Florence-2 computes with them.
_UNUSED = re.compile(r"^vision_tower\.(head|norms)\.")
_BIAS = "language_model.final_logits_bias"


def native_name(name: str) -> str | None:
    """What a weight of the old layout is called in the native one; a native name stays. None if it is not used."""
    if _UNUSED.match(name):
        return None
    for pattern, replacement in _RENAMED:
        renamed, count = pattern.subn(replacement, name)
        if count:
            return renamed
    return name


def read_tensors(libraries: Libraries, file: Path) -> Iterator[tuple[str, Any]]:
    """Name and tensor of everything in a safetensors file. The tensors are mapped, not read.

    Raises:
        ModelCorrupt: it is no whole safetensors file.
    """
    try:
        with libraries.safetensors.safe_open(str(file), framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no dict
                yield name, opened.get_tensor(name)
    except (libraries.safetensors.SafetensorError, OSError) as error:
        raise ModelCorrupt(f"model file {file} cannot be read: {error}", remedy=VERIFY) from error


def state_of(
    libraries: Libraries,
    files: Iterable[Path],
    shapes: Mapping[str, tuple[int, ...]],
    changes: Mapping[str, Any],
    dtype: Any,
) -> dict[str, Any]:
    """Every weight of a model, from its files, in the type that it computes in.

    A weight that has this type in its file stays mapped to it; the others are copied one by one.

    Args:
        shapes: the weights that the model has.
        changes: what is added to some of them first (see `lora`), float32.

    Raises:
        ModelCorrupt: a file is not whole, or its weights are not those of the model.
    """
    state: dict[str, Any] = {}
    source = ""
    for file in files:
        for name, stored in read_tensors(libraries, file):
            source = str(file)
            if name == _BIAS:
                if stored.count_nonzero():
                    raise ModelCorrupt(f"model file {file}: {name} is not zero, which Florence-2 cannot compute with")
                continue
            native = native_name(name)
            if native is None:
                continue
            if native not in shapes:
                raise ModelCorrupt(f"model file {file} has the weight {name!r}, which Florence-2 does not have")
            tensor = stored.t() if name == _PROJECTION else stored
            if tuple(tensor.shape) != shapes[native]:
                raise ModelCorrupt(
                    f"model file {file}: {name} has the shape {tuple(tensor.shape)}, but config.json says {shapes[native]}",
                    remedy=VERIFY,
                )
            state[native] = tensor
    _tie(state)
    missing = sorted(shapes.keys() - state.keys())
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelCorrupt(f"model file {source} lacks the weight {missing[0]}{more}", remedy=VERIFY)
    for name, change in changes.items():
        state[name] = state[name].float() + change
    converted: dict[int, Any] = {}  # what is one tensor under several names stays one
    stored = list(state.values())
    for name, tensor in zip(state, stored, strict=True):
        if id(tensor) not in converted:
            converted[id(tensor)] = tensor.to(dtype).contiguous()
        state[name] = converted[id(tensor)]
    return state


def _tie(state: dict[str, Any]) -> None:
    """Let the token embeddings stand in for what a file leaves out because it is the same."""
    names = (*_EMBEDDINGS, HEAD)
    embeddings = next((state[name] for name in names if name in state), None)
    if embeddings is not None:
        for name in names:
            state.setdefault(name, embeddings)
