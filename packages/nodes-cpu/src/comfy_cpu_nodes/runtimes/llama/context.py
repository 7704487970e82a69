"""A llama.cpp context: the memory of a text, and the computation that reads on."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from comfy_cpu_core.errors import ModelError
from comfy_cpu_nodes.runtimes.llama.compute import Compute
from comfy_cpu_nodes.runtimes.llama.library import complaints

__all__ = ["Context", "Read"]

#: Tokens that are computed at once. More gain nothing on a CPU, and delay an interrupt.
_BATCH = 512

_MOST_OUTPUTS = 16


class Read(NamedTuple):
    """A token to read.

    Attributes:
        token: its number in the vocabulary.
        position: its place in the text, from 0.
        sequences: which of the context's sequences it belongs to. A token of several sequences is computed once.
        wants: whether to keep what the model expects next.
    """

    token: int
    position: int
    sequences: tuple[int, ...] = (0,)
    wants: bool = False


class Context:
    """A context over a loaded model.

    Attributes:
        size: how many tokens it can hold, those shared between sequences counted once.
        sequences: how many sequences (texts that may share their beginning) it can hold.
        memory_bytes: how much memory its cells take.
        tokens: what the user of this context says that it holds; `Context` itself never looks at it.
    """

    def __init__(self, library: Any, model: Any, compute: Compute, size: int, sequences: int) -> None:
        self._library = library
        self._compute = compute
        self.size = size
        self.sequences = sequences
        self.tokens: list[int] = []
        self.memory_bytes = size * _bytes_per_token(library, model)
        parameters = library.llama_context_default_params()
        parameters.n_ctx = size
        parameters.n_batch = size
        parameters.n_ubatch = min(size, _BATCH)
        parameters.n_seq_max = sequences
        parameters.n_outputs_max = _MOST_OUTPUTS  # else memory is set aside for the outputs of a whole batch
        parameters.kv_unified = True  # one pool of cells, in which sequences share what they have in common
        parameters.no_perf = True
        stop, argument = compute.stop_function(library.ggml_abort_callback)
        parameters.abort_callback = stop
        parameters.abort_callback_data = argument
        complaints()
        self._context = library.llama_init_from_model(model, parameters)
        if not self._context:
            raise ModelError(
                f"llama.cpp has no memory for a context of {size} tokens: {complaints() or 'it does not say why'}",
                remedy="give the process more memory, or shorten the text",
            )
        self._memory = library.llama_get_memory(self._context)

    def use_threads(self, threads: int) -> None:
        """Compute with so many threads from now on."""
        self._library.llama_set_n_threads(self._context, threads, threads)

    def read(self, tokens: Sequence[Read]) -> NDArray[np.float32]:
        """Read tokens that follow on what is there.

        Args:
            tokens: at most as many as there is room for; at most 16 of them want what comes next.

        Returns:
            For each token that wants it, in order, the logits of the whole vocabulary: [wanted, vocabulary].

        Raises:
            ModelError: llama.cpp failed, or gave numbers that are none. Drop the context then.
            Interrupted, DeadlineExceeded: the run should end. Drop the context then, too.
        """
        library = self._library
        wanted = [index for index, read in enumerate(tokens) if read.wants]
        if len(tokens) > self.size or len(wanted) > _MOST_OUTPUTS:  # llama.cpp would end the process
            raise ModelError(f"a context of {self.size} tokens cannot read {len(tokens)} tokens at once")
        batch = library.llama_batch_init(len(tokens), 0, self.sequences)
        try:
            batch.n_tokens = len(tokens)
            for index, (token, position, sequences, wants) in enumerate(tokens):
                batch.token[index] = token
                batch.pos[index] = position
                batch.n_seq_id[index] = len(sequences)
                for place, sequence in enumerate(sequences):
                    batch.seq_id[index][place] = sequence
                batch.logits[index] = wants
            complaints()
            status = self._compute.call(library.llama_decode, self._context, batch)
        finally:
            library.llama_batch_free(batch)
        if status != 0:
            raise ModelError(f"llama.cpp failed to read {len(tokens)} tokens ({status}): {complaints()}")
        vocabulary = library.llama_vocab_n_tokens(library.llama_model_get_vocab(library.llama_get_model(self._context)))
        logits = np.empty((len(wanted), vocabulary), np.float32)
        for row, index in enumerate(wanted):
            found = library.llama_get_logits_ith(self._context, index)
            if not found:
                raise ModelError(f"llama.cpp gave no logits: {complaints()}")
            logits[row] = np.ctypeslib.as_array(found, (vocabulary,))
        if not np.isfinite(logits).all():
            raise ModelError(
                "the language model gave numbers that are none",
                remedy="its file may be damaged: check it with `comfy-cpu models verify`",
            )
        return logits

    def forget(self, sequence: int, position: int) -> bool:
        """Forget what a sequence holds from a position on; False if the model's kind of memory cannot."""
        return bool(self._library.llama_memory_seq_rm(self._memory, sequence, position, -1))

    def length(self, sequence: int) -> int:
        """How many tokens a sequence holds."""
        return int(self._library.llama_memory_seq_pos_max(self._memory, sequence)) + 1

    def clear(self) -> None:
        """Forget everything."""
        self._library.llama_memory_clear(self._memory, False)
        self.tokens = []

    def share(self, source: int, others: Sequence[int]) -> None:
        """Let other sequences hold what one holds; nothing is copied."""
        for other in others:
            self._library.llama_memory_seq_cp(self._memory, source, other, -1, -1)

    def save(self, sequence: int) -> bytes:
        """What the model remembers of a sequence."""
        size = self._library.llama_state_seq_get_size(self._context, sequence)
        buffer = (ctypes.c_uint8 * size)()
        written = self._library.llama_state_seq_get_data(self._context, buffer, size, sequence)
        if written != size:
            raise ModelError(f"llama.cpp failed to save {size} bytes of a context")
        return bytes(buffer)

    def restore(self, sequence: int, data: bytes) -> bool:
        """Remember in a sequence what `save` gave, from this or another process; False if it does not fit.

        `data` must come from `save`: llama.cpp trusts what it reads there.
        """
        buffer = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
        return bool(self._library.llama_state_seq_set_data(self._context, buffer, len(data), sequence) == len(data))

    def close(self) -> None:
        """Give the memory back."""
        if self._context:
            self._library.llama_free(self._context)
            self._context = None


def _bytes_per_token(library: Any, model: Any) -> int:
    """Keys and values in half precision, in each layer."""
    head = library.llama_model_n_embd(model) // max(library.llama_model_n_head(model), 1)
    return int(2 * 2 * library.llama_model_n_layer(model) * library.llama_model_n_head_kv(model) * head)
