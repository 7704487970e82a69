"""Florence-2's tokenizer: BART's, and 1024 tokens for tasks and places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comfy_cpu_core.errors import ModelCorrupt
from comfy_cpu_nodes.runtimes.florence.folder import VERIFY
from comfy_cpu_nodes.runtimes.florence.library import load_libraries

__all__ = ["SPECIAL_TOKENS", "Tokens"]

#: In the order of their numbers, behind BART's. ``<region_to_desciption>`` is what the models know it by.
SPECIAL_TOKENS = (
    "<od>", "</od>", "<ocr>", "</ocr>",
    *(f"<loc_{number}>" for number in range(1000)),
    "<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>",
    "<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>", "<proposal>",
    "</proposal>", "<poly>", "</poly>", "<and>",
)  # fmt: skip


class Tokens:
    """The tokenizer of a model.

    Args:
        file: its ``tokenizer.json``. In the old layout that is BART's alone: what is missing is added.
        generation: the ids of the tokens that begin and end a text.
        vocabulary: how many tokens the model knows.

    Raises:
        ModelCorrupt: the file cannot be read, or has tokens that the model does not know.
    """

    def __init__(self, file: Path, generation: Mapping[str, Any], vocabulary: int) -> None:
        tokenizers = load_libraries().tokenizers
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing more special
            raise ModelCorrupt(f"model file {file} cannot be read: {error}", remedy=VERIFY) from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        missing = [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]
        if missing:
            tokenizer.add_special_tokens(missing)
        highest = max(tokenizer.token_to_id(token) for token in SPECIAL_TOKENS)
        if highest >= vocabulary:
            raise ModelCorrupt(
                f"model file {file} has {highest + 1} tokens, but the model knows only {vocabulary}", remedy=VERIFY
            )
        self._tokenizer = tokenizer
        self._begin, self._end = generation["bos_token_id"], generation["eos_token_id"]

    def encode(self, question: str) -> list[int]:
        """A question as ids, from the token that begins it to the one that ends it."""
        ids = self._tokenizer.encode(question, add_special_tokens=False).ids
        return [self._begin, *ids, self._end]

    def decode(self, ids: Sequence[int]) -> str:
        """Ids as text, with every token that is special."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))
