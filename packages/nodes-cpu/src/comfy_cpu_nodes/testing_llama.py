"""A stand-in for a Llama model, for tests. Needs the extra ``testing-llama`` (gguf).

It is a real GGUF file of the llama architecture, of some hundred kilobytes, with weights set by hand: it does not
understand a caption, it looks for words in it. Everything else (tokenizer, prompt, attention, memory, probabilities)
goes the way it goes in a real model. The file is marked, so that every result made with it says so.

How the weights do it, on a vector whose places have a meaning each:

1. Every token says what it is: a telling word of one domain, the end of a question about one domain, or nothing.
2. Attention looks at all earlier tokens alike (queries and keys are zero) and notes how often each kind of telling word
   was there.
3. The feed-forward layer multiplies that with the question that has just been asked.
4. The output takes UNSAFE, BORDERLINE or SAFE from it, and ``true`` or ``false`` for the extractor's flags.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from comfy_cpu_nodes.ops.verdicts import DOMAINS, STATES

__all__ = ["MILD_WORDS", "UNSAFE_WORDS", "write_llama_stand_in"]

#: The word that makes the stand-in say UNSAFE in a domain. None of them may stand in a prompt of ours.
UNSAFE_WORDS: Mapping[str, str] = {
    "sexual": "naked",
    "violence": "stabbing",
    "hate": "swastika",
    "disturbing": "beheaded",
    "drugs": "cocaine",
}

#: The word that makes it say BORDERLINE.
MILD_WORDS: Mapping[str, str] = {
    "sexual": "bikini",
    "violence": "boxing",
    "hate": "insult",
    "disturbing": "scar",
    "drugs": "cigar",
}

_STAND_IN_KEY = "comfy_cpu.stand_in"

Chat = Literal["llama3", "chatml", "plain"]

_CONTROLS: Mapping[Chat, tuple[str, ...]] = {
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "plain": (),
}

# Places of the vector.
_ALWAYS, _FILL = 0, 1
_ASKED = range(2, 7)  # the end of a question about this domain
_UNSAFE, _MILD = range(7, 12), range(12, 17)  # a telling word of this domain
_SEEN_UNSAFE, _SEEN_MILD = range(17, 22), range(22, 27)  # how often it was there
_SAYS_UNSAFE, _SAYS_MILD = 27, 28
_SUBJECT = 29  # the word that the stand-in calls everything
_FLAG_ASKED = range(30, 32)  # the end of a question for the extractor's flags: nsfw, violence
_SAYS_TRUE = 32
_WIDTH, _HIDDEN = 64, 32

_LENGTH = 2.0  # of every token's vector: RMS normalisation then treats all alike
_SUBJECT_WORD = "thing"


@dataclass(frozen=True)
class _Token:
    """A token of the vocabulary: its text, its type in GGUF, and the places of its vector that are 1."""

    text: str
    kind: Literal["unknown", "control", "byte", "char", "word"]
    marks: tuple[int, ...] = ()


def write_llama_stand_in(
    path: Path,
    *,
    chat: Chat = "llama3",
    whole_states: bool = True,
    words: Sequence[str] = (),
    question_ends: Sequence[str] = ('":"', " = ", " ["),
    space_first: bool = False,
    trained_context: int = 8192,
    random: int | None = None,
    broken: bool = False,
) -> Path:
    """Write a GGUF model that rates captions by the words of `UNSAFE_WORDS` and `MILD_WORDS`.

    Args:
        path: where.
        chat: the chat format that its template asks for.
        whole_states: whether SAFE, BORDERLINE and UNSAFE are one token each, or several.
        words: further tokens, whatever they cut across: ``'SAFE"}'``, ``'{"se'``.
        question_ends: what follows on a domain in the token that ends a question about it. It answers behind that token.
        space_first: whether the tokenizer puts a space before a text, as Llama 2's does.
        trained_context: the longest text that it says it was made for.
        random: the seed of weights that know nothing, instead of ours.
        broken: give it weights that are no numbers.

    Returns:
        The path.

    Raises:
        ImportError: gguf is not installed.
    """
    import gguf

    states = STATES if whole_states else ()
    tokens = _vocabulary(chat, [*states, *words], question_ends)
    kinds = {
        "unknown": gguf.TokenType.UNKNOWN,
        "control": gguf.TokenType.CONTROL,
        "byte": gguf.TokenType.BYTE,
        "char": gguf.TokenType.NORMAL,
        "word": gguf.TokenType.USER_DEFINED,
    }
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("comfy-cpu stand-in")
    writer.add_bool(_STAND_IN_KEY, True)
    writer.add_context_length(trained_context)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(_HIDDEN)
    writer.add_block_count(1)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(_WIDTH)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token.text for token in tokens])
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([kinds[token.kind] for token in tokens])
    names = [token.text for token in tokens]
    writer.add_unk_token_id(names.index("<unk>"))
    writer.add_bos_token_id(names.index("<s>"))
    writer.add_eos_token_id(names.index((_CONTROLS[chat] or ("</s>",))[-1]))
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(space_first)
    if chat != "plain":
        writer.add_chat_template("".join(_CONTROLS[chat]))
    for name, weights in _weights(tokens, random, broken=broken).items():
        writer.add_tensor(f"{name}.weight", weights.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _vocabulary(chat: Chat, words: Sequence[str], question_ends: Sequence[str]) -> list[_Token]:
    """Control tokens, all bytes, printable ASCII, and words; a longer word is found before a shorter one."""
    tokens = [_Token("<unk>", "unknown"), _Token("<s>", "control"), _Token("</s>", "control")]
    tokens += [_Token(text, "control") for text in _CONTROLS[chat]]
    tokens += [_Token(f"<0x{byte:02X}>", "byte") for byte in range(256)]
    tokens += [_Token("\u2581" if char == " " else char, "char") for char in map(chr, range(0x20, 0x7F))]
    for place, domain in enumerate(DOMAINS):
        tokens.append(_Token(UNSAFE_WORDS[domain], "word", (_UNSAFE[place],)))
        tokens.append(_Token(MILD_WORDS[domain], "word", (_MILD[place],)))
        tokens += [_Token(domain + end, "word", (_ASKED[place],)) for end in question_ends]
    tokens += [_Token(f'{name}":', "word", (_FLAG_ASKED[place],)) for place, name in enumerate(("nsfw", "violence"))]
    tokens += [_Token(text, "word") for text in ("true", "false", *words)]
    tokens.append(_Token(_SUBJECT_WORD, "word", (_SUBJECT,)))
    # llama.cpp ends the process where a token is there twice.
    return list({token.text: token for token in reversed(tokens)}.values())[::-1]


def _weights(tokens: Sequence[_Token], random: int | None, *, broken: bool) -> dict[str, np.ndarray[Any, Any]]:
    shapes = {
        "token_embd": (len(tokens), _WIDTH),
        "output": (len(tokens), _WIDTH),
        "blk.0.attn_q": (_WIDTH, _WIDTH),
        "blk.0.attn_k": (_WIDTH, _WIDTH),
        "blk.0.attn_v": (_WIDTH, _WIDTH),
        "blk.0.attn_output": (_WIDTH, _WIDTH),
        "blk.0.ffn_gate": (_HIDDEN, _WIDTH),
        "blk.0.ffn_up": (_HIDDEN, _WIDTH),
        "blk.0.ffn_down": (_WIDTH, _HIDDEN),
    }
    norms = {name: np.ones(_WIDTH) for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm")}
    if random is not None:
        chance = np.random.default_rng(random)
        return {**{name: chance.normal(0, 0.2, shape) for name, shape in shapes.items()}, **norms}
    found = {name: np.zeros(shape) for name, shape in shapes.items()}
    for token, vector in zip(tokens, found["token_embd"], strict=True):
        vector[[_ALWAYS, *token.marks]] = 1
        vector[_FILL] = np.sqrt(_LENGTH**2 - (vector**2).sum())
    for place in range(len(DOMAINS)):
        for kind, (word, seen, says) in enumerate(
            [(_UNSAFE, _SEEN_UNSAFE, _SAYS_UNSAFE), (_MILD, _SEEN_MILD, _SAYS_MILD)]
        ):
            found["blk.0.attn_v"][word[place], word[place]] = 1
            found["blk.0.attn_output"][seen[place], word[place]] = 3000  # one word among thousands is enough
            unit = 2 * place + kind
            found["blk.0.ffn_gate"][unit, _ASKED[place]] = 10
            found["blk.0.ffn_up"][unit, seen[place]] = 1
            found["blk.0.ffn_down"][says, unit] = 10
    for place, asked in enumerate(_FLAG_ASKED):
        unit = 2 * len(DOMAINS) + place
        found["blk.0.ffn_gate"][unit, asked] = 10
        found["blk.0.ffn_up"][unit, _SEEN_UNSAFE[place]] = 1
        found["blk.0.ffn_down"][_SAYS_TRUE, unit] = 10
    _set_outputs(found["output"], [token.text for token in tokens])
    if broken:
        found["output"][:] = np.nan
    return {**found, **norms}


def _set_outputs(output: np.ndarray[Any, Any], texts: Sequence[str]) -> None:
    """What makes the model expect a token: harmless by itself, harmful outweighs it, and a subject is always 'thing'."""
    rows: list[tuple[Sequence[int], float, Callable[[str], bool]]] = [
        (_ASKED, 40.0, partial(_begins, "SAFE")),
        ([_SAYS_MILD], 80.0, partial(_begins, "BORDERLINE")),
        ([_SAYS_UNSAFE], 120.0, partial(_begins, "UNSAFE")),
        (_FLAG_ASKED, 40.0, "false".__eq__),
        ([_SAYS_TRUE], 120.0, "true".__eq__),
        ([_ALWAYS], 20.0, _SUBJECT_WORD.__eq__),
        ([_ALWAYS], 15.0, "]".__eq__),
        ([_SUBJECT], 200.0, {'"', "<|eot_id|>", "<|im_end|>", "</s>"}.__contains__),
    ]
    for places, weight, fits in rows:
        for token, text in enumerate(texts):
            if fits(text):
                output[token, list(places)] = weight


def _begins(state: str, text: str) -> bool:
    """Whether a token may begin a state: a part of it, all of it, or more, perhaps behind a quotation mark."""
    text = text.removeprefix('"')
    return bool(text) and (state.startswith(text) or text.startswith(state))
