"""Writing an answer token by token, quickly: what transformers' own ``generate`` is given to work with.

All beams of an answer look at one picture and one question. Their keys and values for cross-attention, most of what a
decoding step reads after the weights, are therefore kept once and not once a beam, and never moved when beams change
places. The attention function below makes use of that; for the rest it is PyTorch's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from comfy_cpu_nodes.runtimes.florence.library import Libraries

__all__ = ["Sampling", "register_attention", "write_answer"]

_ATTENTION = "comfy_cpu_shared"

#: With so few queries two small matrix products are quicker than PyTorch's fused attention, which is made for many.
_FEW_QUERIES = 64


@dataclass(frozen=True)
class Sampling:
    """How an answer is chosen.

    Attributes:
        max_new_tokens: it ends there at the latest.
        num_beams: how many beginnings are followed at once.
        do_sample: whether chance has a say.
        seed: of the random numbers, 0 to 2³²-1.
    """

    max_new_tokens: int
    num_beams: int
    do_sample: bool
    seed: int


@lru_cache(maxsize=1)
def register_attention(libraries: Libraries) -> str:
    """Make our attention known to transformers; give back its name."""
    torch, transformers = libraries.torch, libraries.transformers
    fused = transformers.integrations.sdpa_attention.sdpa_attention_forward

    def attend(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, **options: Any
    ) -> Any:
        """Attention over ``[batch, heads, tokens, width]``, where key and value may have a batch of one for all.

        Texts and pictures are never padded here, so that a batch of one needs no mask.
        """
        shared = key.shape[0] == 1 and query.shape[0] > 1
        if scaling is None or not (shared or (attention_mask is None and query.shape[2] <= _FEW_QUERIES)):
            return fused(module, query, key, value, attention_mask, scaling=scaling, **options)
        if shared:  # beams are further queries
            query = query.permute(2, 1, 0, 3)
        scores = torch.matmul(query, key.transpose(2, 3)) * scaling
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
        result = torch.matmul(weights, value)
        return result.permute((2, 0, 1, 3) if shared else (0, 2, 1, 3)).contiguous(), None

    transformers.AttentionInterface.register(_ATTENTION, attend)
    transformers.AttentionMaskInterface.register(_ATTENTION, transformers.masking_utils.sdpa_mask)
    return _ATTENTION


def write_answer(
    libraries: Libraries,
    model: Any,
    encoded: Any,
    sampling: Sampling,
    rules: dict[str, Any],
    on_token: Callable[[], None],
) -> list[int]:
    """The ids of the answer to an encoded picture and question.

    Args:
        model: transformers' model.
        encoded: the encoder's output ``[1, tokens, width]``.
        rules: token ids and rules, as `ModelFolder.generation` has them.
        on_token: called after every step; what it raises ends the writing.
    """
    torch, transformers = libraries.torch, libraries.transformers

    def not_yet(ids: Any, _scores: Any, **_options: Any) -> Any:
        on_token()
        return torch.zeros(ids.shape[0], dtype=torch.bool)

    chance = (
        {"do_sample": True, "top_k": 50, "top_p": 1.0, "temperature": 1.0}
        if sampling.do_sample
        else {"do_sample": False}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sampling.seed)
        answer = model.generate(
            encoder_outputs=transformers.modeling_outputs.BaseModelOutput(last_hidden_state=encoded),
            attention_mask=torch.ones(encoded.shape[:2], dtype=torch.long),
            **{_cache_argument(model): _cache(libraries, model, encoded)},
            stopping_criteria=transformers.StoppingCriteriaList([not_yet]),
            generation_config=transformers.GenerationConfig(
                **rules,
                **chance,
                max_new_tokens=sampling.max_new_tokens,
                num_beams=sampling.num_beams,
                use_cache=True,
            ),
        )
    return [int(token) for token in answer[0]]


def _cache_argument(model: Any) -> str:
    """What this transformers calls the argument for a cache: later ones renamed it, and warn of the old name."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def _cache(libraries: Libraries, model: Any, encoded: Any) -> Any:
    """A cache with the keys and values of cross-attention in it, which all beams share."""
    transformers = libraries.transformers
    shared = transformers.DynamicCache()
    for index, layer in enumerate(model.model.language_model.decoder.layers):
        attention = layer.encoder_attn
        shape = (1, encoded.shape[1], attention.num_heads, attention.head_dim)
        key = attention.k_proj(encoded).view(shape).transpose(1, 2).contiguous()
        value = attention.v_proj(encoded).view(shape).transpose(1, 2).contiguous()
        shared.update(key, value, index)
    own = transformers.DynamicCache()
    cache = transformers.EncoderDecoderCache(own, shared)
    # When beams change places, what all of them share stays where it is.
    cache.reorder_cache = own.reorder_cache
    return cache
