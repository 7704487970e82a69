"""Have a model write: token by token, with whatever is known beforehand read in one go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from comfy_cpu_core.errors import InputError, ModelError
from comfy_cpu_nodes.ops.forms import Answer, weigh
from comfy_cpu_nodes.ops.sampling import Sampling, choose
from comfy_cpu_nodes.runtimes.llama.context import Read
from comfy_cpu_nodes.runtimes.llama.model import LlamaModel

__all__ = ["Writer", "write"]

_CONTEXT = "writing"

#: How many tokens back a repetition is penalised.
_RECENT = 64


class Writer:
    """A text that a model continues.

    Tokens are only noted by `add`, and read when the model is next asked: a dozen at once cost as much as three or four
    by themselves. What the context still holds of an earlier text with the same beginning is not read again.
    """

    def __init__(
        self,
        model: LlamaModel,
        prompt: Sequence[int],
        *,
        room: int,
        n_ctx: int,
        sampling: Sampling,
        seed: int,
        threads: int = 0,
    ) -> None:
        """Start from a prompt.

        Args:
            model: held exclusively, for as long as this is used.
            prompt: not empty.
            room: how many tokens may be added to it.
            n_ctx: how many tokens there may be in all.
            sampling: how the model chooses.
            seed: of chance.
            threads: how many threads to use; 0 for what this process may use.

        Raises:
            InputError: the prompt is too long.
        """
        allowed = min(n_ctx, model.trained_context or n_ctx)
        if len(prompt) + room > allowed:
            raise InputError(
                f"the text is too long: the prompt has {len(prompt)} tokens, the answer may have {room}, the context "
                f"holds {allowed}",
                remedy="shorten the text, ask for a shorter answer, or raise n_ctx",
            )
        self.model = model
        self.sampling = sampling
        self._random = np.random.default_rng(seed)
        self._context = model.context(_CONTEXT, len(prompt) + room, threads=threads)
        self._limit = len(prompt) + room
        self._pending = list(prompt)
        held = self._context.tokens
        same = next(
            (i for i, (a, b) in enumerate(zip(held, prompt, strict=False)) if a != b), min(len(held), len(prompt))
        )
        same = min(same, len(prompt) - 1)  # the last token is read anew: what follows it is what counts
        if same and self._context.forget(0, same):
            self._context.tokens = held[:same]
            self._pending = self._pending[same:]
        else:
            self._context.clear()

    @property
    def left(self) -> int:
        """How many tokens may still be added."""
        return self._limit - len(self._context.tokens) - len(self._pending)

    def add(self, tokens: Sequence[int]) -> None:
        """Go on with these tokens."""
        self._pending += tokens

    def add_text(self, text: str) -> None:
        """Go on with this text."""
        self.add(self.model.tokenize(text))

    def expected(self) -> NDArray[np.float32]:
        """The logits of the next token, of the whole vocabulary. Something must have been added since the last time.

        Raises:
            ModelError: llama.cpp failed, or there is no room left.
            Interrupted, DeadlineExceeded: the run should end.
        """
        if self.left < 0:
            raise ModelError(f"{self.model.path.name} wrote more than there is room for")
        done = len(self._context.tokens)
        last = len(self._pending) - 1
        try:
            logits = self._context.read(
                [Read(token, done + place, wants=place == last) for place, token in enumerate(self._pending)]
            )
        except BaseException:
            self.model.drop_context(_CONTEXT)
            raise
        self._context.tokens = self._context.tokens + self._pending
        self._pending = []
        last_row: NDArray[np.float32] = logits[0]
        return last_row

    def pick(self, logits: NDArray[np.float32], recent: Collection[int] = ()) -> int:
        """Choose a token."""
        return choose(logits, self.sampling, self._random, recent=recent)

    def weigh(self, options: Sequence[str]) -> Answer:
        """How likely the model finds it that it goes on with each of several texts, which begin differently.

        Raises:
            ModelError: some token may begin two of them; or as `expected`.
        """
        tokens = [self.model.beginnings(option) for option in options]
        if len(np.unique(np.concatenate(tokens))) < sum(map(len, tokens)) or not all(map(len, tokens)):
            raise ModelError(f"{self.model.path.name}: its tokenizer does not tell {' and '.join(options)} apart")
        return weigh(self.expected(), tokens)

    def string(self, *, longest: int, tokens: int) -> str:
        """Let the model write what stands in a JSON string, from after its opening to before its closing quote.

        Control characters and backslashes cannot come. It is not empty, and may be cut off where it is too long.

        Args:
            longest: in bytes.
            tokens: how many tokens it may take.
        """
        legal, quotes = self.model.string_tokens
        written = b""
        for step in range(tokens):
            allowed = legal & (quotes != 0) if not written else legal  # no closing quote before there is anything
            token = self.pick(np.where(allowed, self.expected(), -np.inf))
            piece, quote = self.model.pieces[token], int(quotes[token])
            if quote >= 0:
                # The token says more than the string: `","` for example. What it says after is asked for anew.
                written += piece[:quote]
                if quote:
                    self.add_text(piece[:quote].decode("utf-8", "ignore"))
                break
            written += piece
            self.add([token])
            if len(written) >= longest or step == tokens - 1:
                break
        return " ".join(written.decode("utf-8", "ignore").split())


def write(writer: Writer, tokens: int, step: Callable[[], None]) -> str:
    """Let the model write plain text until it ends by itself.

    Args:
        writer: at the place where the text starts.
        tokens: how many it may have at most.
        step: called after each.
    """
    written: list[int] = []
    for _ in range(tokens):
        token = writer.pick(writer.expected(), written[-_RECENT:])
        step()
        if writer.model.is_end(token):
            break
        written.append(token)
        writer.add([token])
    return b"".join(writer.model.pieces[token] for token in written).decode("utf-8", "replace")
