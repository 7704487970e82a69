"""Write a GGUF model with the architecture and the size of Llama 3.1 8B Q5_K_M, with random weights.

    python benchmarks/llama_model.py MODEL.gguf [--layers 8]

How long a language model takes does not depend on the values of its weights. This one has Llama 3.1's dimensions and, as
llama.cpp's recipe for Q5_K_M has it, Q6_K for the output and for half of the layers' value and down projections, Q5_K
for all other matrices. The blocks are random but for their scales, which keep the numbers finite. The tokenizer cuts at
words, so that prompts are about as long as in Llama's own.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

from comfy_cpu_nodes.ops.forms import SAFETY_FORMS

LAYERS, WIDTH, HIDDEN, HEADS, KV_HEADS, VOCABULARY = 32, 4096, 14336, 32, 8, 128_256
Q5, Q6, F32 = gguf.GGMLQuantizationType.Q5_K, gguf.GGMLQuantizationType.Q6_K, gguf.GGMLQuantizationType.F32
#: Bytes of a block of 256 weights, and where in it the half-precision scales are.
BLOCKS = {Q5: (176, (0, 2)), Q6: (210, (208,))}
#: How Llama 3's tokenizer cuts the words that the answers hold.
PIECES = {
    "violence": ("viol", "ence"),
    "hate": ("h", "ate"),
    "disturbing": ("dist", "urb", "ing"),
    "drugs": ("dr", "ugs"),
}
CONTROLS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def vocabulary() -> tuple[list[str], list[gguf.TokenType]]:
    """As many tokens as Llama 3 has; among them the words of our prompts, with the space before them."""
    kinds = gguf.TokenType
    tokens = {"<unk>": kinds.UNKNOWN, "<s>": kinds.CONTROL, "</s>": kinds.CONTROL}
    tokens |= dict.fromkeys(CONTROLS, kinds.CONTROL)
    tokens |= {f"<0x{byte:02X}>": kinds.BYTE for byte in range(256)}
    tokens |= {"\u2581" if char == " " else char: kinds.NORMAL for char in map(chr, range(0x20, 0x7F))}
    tokens |= dict.fromkeys(("system", "user", "assistant"), kinds.USER_DEFINED)
    for form in SAFETY_FORMS:
        text = form.system + form.before + "".join(q.stem + o + q.end for q in form.questions for o in q.options)
        for word in re.findall(r" ?\w\w+|[^\w\s]{2,}|\n\n", text):
            for piece in PIECES.get(word, (word,)):
                tokens.setdefault(piece, kinds.USER_DEFINED)
    for number in range(VOCABULARY - len(tokens)):
        tokens[f" w{number}."] = kinds.USER_DEFINED if number < 2000 else kinds.UNUSED
    return list(tokens), list(tokens.values())


def shapes(layers: int) -> Iterator[tuple[str, tuple[int, ...], gguf.GGMLQuantizationType]]:
    """Every tensor, rows first."""
    yield "token_embd.weight", (VOCABULARY, WIDTH), Q5
    keys = WIDTH * KV_HEADS // HEADS
    for layer in range(layers):
        finer = Q6 if layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2 else Q5
        for name, shape, kind in (
            ("attn_norm", (WIDTH,), F32),
            ("attn_q", (WIDTH, WIDTH), Q5),
            ("attn_k", (keys, WIDTH), Q5),
            ("attn_v", (keys, WIDTH), finer),
            ("attn_output", (WIDTH, WIDTH), Q5),
            ("ffn_norm", (WIDTH,), F32),
            ("ffn_gate", (HIDDEN, WIDTH), Q5),
            ("ffn_up", (HIDDEN, WIDTH), Q5),
            ("ffn_down", (WIDTH, HIDDEN), finer),
        ):
            yield f"blk.{layer}.{name}.weight", shape, kind
    yield "output_norm.weight", (WIDTH,), F32
    yield "output.weight", (VOCABULARY, WIDTH), Q6


def tensor(shape: tuple[int, ...], kind: gguf.GGMLQuantizationType, random: np.random.Generator) -> np.ndarray:
    """Random blocks with scales of about 1/4000, or ones."""
    if kind is F32:
        return np.ones(shape, np.float32)
    size, places = BLOCKS[kind]
    blocks = random.integers(0, 256, (int(np.prod(shape)) // 256, size), np.uint8)
    for place in places:
        scales = random.normal(2.5e-4, 2e-5, len(blocks)).astype(np.float16)
        blocks[:, place : place + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks


def nbytes(shape: tuple[int, ...], kind: gguf.GGMLQuantizationType) -> int:
    weights = int(np.prod(shape))
    return 4 * weights if kind is F32 else weights // 256 * BLOCKS[kind][0]


def write(path: Path, layers: int = LAYERS) -> Path:
    """Write the model, whole or not at all."""
    beside = path.with_suffix(".part")
    writer = gguf.GGUFWriter(beside, "llama")
    writer.add_name("random weights in the shape of Llama 3.1 8B")
    writer.add_context_length(131_072)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_block_count(layers)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(500_000.0)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q5_K_M)
    texts, kinds = vocabulary()
    writer.add_tokenizer_model("llama")
    writer.add_token_list(texts)
    writer.add_token_scores([0.0] * len(texts))
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(texts.index("<|eot_id|>"))
    writer.add_add_space_prefix(False)
    writer.add_chat_template("".join(CONTROLS))
    tensors = list(shapes(layers))
    for name, shape, kind in tensors:
        writer.add_tensor_info(name, shape, np.dtype(np.float32), nbytes(shape, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(0)
    for _, shape, kind in tensors:
        writer.write_tensor_data(tensor(shape, kind, random))
    writer.close()
    return beside.rename(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--layers", type=int, default=LAYERS)
    arguments = parser.parse_args()
    print(f"{write(arguments.path, arguments.layers)}: {arguments.path.stat().st_size:,} bytes")
