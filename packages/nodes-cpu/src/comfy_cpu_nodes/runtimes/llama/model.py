"""One GGUF file in memory: its weights, its vocabulary, and the contexts that compute with it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comfy_cpu_core.errors import ModelCorrupt, ModelError
from comfy_cpu_core.resources import get_resources
from comfy_cpu_nodes.host import check_interrupt
from comfy_cpu_nodes.runtimes.llama.compute import Compute
from comfy_cpu_nodes.runtimes.llama.context import Context
from comfy_cpu_nodes.runtimes.llama.library import complaints, load_library

__all__ = ["STAND_IN_KEY", "LlamaModel"]

#: The GGUF key that marks a model which only imitates a real one.
STAND_IN_KEY = "comfy_cpu.stand_in"

_VERIFY = "check the model tree with `comfy-cpu models verify`, and fetch the file again"

_GGUF = b"GGUF"
_LONGEST_VALUE = 1 << 16
_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16

#: A context's size is a multiple of this many tokens, so that captions of different lengths share one.
_STEP = 256


class LlamaModel:
    """A loaded GGUF model. Hold `lock` (see `exclusively`) around everything that computes.

    The weights are mapped from the file and shared by all contexts. A context is as large as its user needs, not as
    large as the user allows: 128 kB a token are allocated and cleared for an 8B model.

    Attributes:
        path: the file.
        size: its bytes.
        remembered: states of constant texts (see `Context.save`), by their tokens, for when a context is made anew.
    """

    def __init__(self, path: Path) -> None:
        """Load a file.

        Raises:
            ModelCorrupt: it is no whole GGUF file, or llama.cpp cannot make sense of it.
            ModelError: llama-cpp-python is not there, or the file cannot be read.
            Interrupted, DeadlineExceeded: the current run should end.
        """
        self.path = path
        self.size = _check_magic(path)
        self._library = load_library()
        self.compute = Compute()
        self.remembered: dict[tuple[int, ...], bytes] = {}
        self._lock = threading.Lock()
        self._contexts: dict[str, Context] = {}
        self._beginnings: dict[str, NDArray[np.intp]] = {}
        self._model: Any = None
        try:
            self.compute.call(self._load)
        except BaseException:
            self.close()
            raise
        self._vocab = self._library.llama_model_get_vocab(self._model)

    def __repr__(self) -> str:
        return f"<LlamaModel {self.path.name}>"

    def _load(self) -> None:
        library = self._library
        parameters = library.llama_model_default_params()
        parameters.n_gpu_layers = 0
        progress = library.llama_progress_callback(lambda _fraction, _data: not self.compute.stopped)
        parameters.progress_callback = progress
        complaints()
        self._model = library.llama_model_load_from_file(os.fsencode(self.path), parameters)
        if not self._model and not self.compute.stopped:
            raise ModelCorrupt(
                f"model file {self.path} cannot be loaded by llama.cpp: {complaints() or 'it does not say why'}",
                remedy=_VERIFY,
            )

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Have the model to oneself inside the block; others wait, and may give up while they do."""
        while not self._lock.acquire(timeout=0.1):
            check_interrupt()
        try:
            yield
        finally:
            self._lock.release()

    # As a Resident of the process's cache.

    def memory_bytes(self) -> int:
        """The file, which is mapped, and the contexts."""
        contexts = sum(context.memory_bytes for context in list(self._contexts.values()))
        return self.size + contexts + sum(map(len, list(self.remembered.values())))

    def trim(self) -> None:
        """Give the contexts back."""
        for name in list(self._contexts):
            self.drop_context(name)

    def close(self) -> None:
        """Give everything back."""
        self.trim()
        if self._model:
            self._library.llama_model_free(self._model)
            self._model = None
        self.compute.close()

    # Contexts.

    def context(self, name: str, tokens: int, *, sequences: int = 1, threads: int = 0) -> Context:
        """A context with room for so many tokens: the one of that name if it is large enough, else a new, empty one.

        Args:
            name: what it is for.
            tokens: how many tokens it must hold at once.
            sequences: how many sequences share them.
            threads: how many threads it computes with; 0 for what this process may use.

        Raises:
            ModelError: llama.cpp cannot make it, for lack of memory as a rule.
        """
        threads = threads or get_resources().threads
        found = self._contexts.get(name)
        if found is not None and (found.size < tokens or found.sequences < sequences):
            self.drop_context(name)
            found = None
        if found is None:
            size = -(-tokens // _STEP) * _STEP
            found = Context(self._library, self._model, self.compute, size, sequences)
            self._contexts[name] = found
        found.use_threads(threads)
        return found

    def drop_context(self, name: str) -> None:
        """Give a context back; after a failure nobody knows what it holds."""
        context = self._contexts.pop(name, None)
        if context is not None:
            context.close()

    @property
    def trained_context(self) -> int:
        """The longest text, in tokens, that the model was made for."""
        return int(self._library.llama_model_n_ctx_train(self._model))

    # The vocabulary.

    @cached_property
    def vocabulary_size(self) -> int:
        """How many tokens there are."""
        return int(self._library.llama_vocab_n_tokens(self._vocab))

    @property
    def start(self) -> tuple[int, ...]:
        """The token that every text starts with, if the model wants one."""
        if not self._library.llama_vocab_get_add_bos(self._vocab):
            return ()
        token = int(self._library.llama_vocab_bos(self._vocab))
        return (token,) if token >= 0 else ()

    def tokenize(self, text: str) -> list[int]:
        """The tokens of plain text. Text that looks like a control token (``<|eot_id|>``) stays plain text.

        Raises:
            UnicodeEncodeError: the text cannot be written in UTF-8.
        """
        if not self._puts_space_first:
            return self._tokenize(text, parse_special=False)
        # Behind a line break the tokenizer sees that this is no start of a text, and puts no space before it.
        head = self._tokenize("\n", parse_special=False)
        tokens = self._tokenize("\n" + text, parse_special=False)
        return tokens[len(head) :] if tokens[: len(head)] == head else self._tokenize(text, parse_special=False)

    @cached_property
    def _puts_space_first(self) -> bool:
        tokens = self._tokenize("a", parse_special=False)
        return b"".join(map(self.piece, tokens)) != b"a"

    def control_token(self, text: str) -> int | None:
        """The control token that is written like that, or None if the model has none."""
        tokens = self._tokenize(text, parse_special=True)
        return tokens[0] if len(tokens) == 1 and self.is_control(tokens[0]) else None

    def is_control(self, token: int) -> bool:
        """Whether a token steers the model rather than being text, the end of an answer included."""
        library = self._library
        return bool(library.llama_vocab_is_control(self._vocab, token) or self.is_end(token))

    def is_end(self, token: int) -> bool:
        """Whether a token ends an answer."""
        return bool(self._library.llama_vocab_is_eog(self._vocab, token))

    def piece(self, token: int) -> bytes:
        """The text of a token, perhaps a part of a character; empty for a control token."""
        buffer = ctypes.create_string_buffer(64)
        length = self._library.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = self._library.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[: max(length, 0)]

    @cached_property
    def pieces(self) -> tuple[bytes, ...]:
        """`piece` of every token."""
        return tuple(self.piece(token) for token in range(self.vocabulary_size))

    @cached_property
    def control_tokens(self) -> NDArray[np.bool_]:
        """`is_control` of every token."""
        return np.fromiter(map(self.is_control, range(self.vocabulary_size)), np.bool_, self.vocabulary_size)

    def _tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        data = text.encode()
        room = len(data) + 8  # a token is at least a byte; the tokenizer may put a space before the text
        tokens = (self._library.llama_token * room)()
        count = self._library.llama_tokenize(self._vocab, data, len(data), tokens, room, False, parse_special)
        if count < 0:
            raise ModelError(f"{self.path.name}: its tokenizer makes {-count} tokens of {len(data)} bytes")
        return list(tokens[:count])

    @cached_property
    def string_tokens(self) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
        """Which tokens may come inside a JSON string, and where in each token the first quotation mark is, or -1."""
        quotes = np.array([piece.find(b'"') for piece in self.pieces], np.int32)
        legal = np.array([_fits_string(piece) for piece in self.pieces], np.bool_)
        return legal & ~self.control_tokens, quotes

    def beginnings(self, text: str) -> NDArray[np.intp]:
        """The tokens with which a text may begin, wherever the tokenizer cuts: a part of it, or it and more.

        Spaces before it do not count.
        """
        found = self._beginnings.get(text)
        if found is None:
            data = text.encode()
            said = (piece.lstrip(b" ") for piece in self.pieces)
            fitting = [token for token, s in enumerate(said) if s and (data.startswith(s) or s.startswith(data))]
            found = self._beginnings[text] = np.array(fitting, np.intp)
        return found

    # What it is.

    def metadata(self, key: str) -> str | None:
        """A value of the file's metadata, as text."""
        buffer = ctypes.create_string_buffer(_LONGEST_VALUE)
        length = self._library.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if length >= 0 else None

    @property
    def stand_in(self) -> bool:
        """Whether it only imitates a real model."""
        return (self.metadata(STAND_IN_KEY) or "").lower() == "true"

    @property
    def quantisation(self) -> str:
        """What the weights are stored as: ``Q5_K - Medium``, ``all F32``, …."""
        buffer = ctypes.create_string_buffer(256)
        self._library.llama_model_desc(self._model, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace").split(" ", 2)[-1]

    @cached_property
    def fingerprint(self) -> str:
        """What tells this file from others, in hexadecimal: a hash over its size and 64 samples of its content.

        Reading all of an 8B model would take longer than what the fingerprint is good for. Two models of the same size
        that differ at all differ nearly everywhere; a damaged byte between the samples is not noticed.
        """
        digest = hashlib.sha256(str(self.size).encode())
        step = max(self.size // _SAMPLES, _SAMPLE_BYTES)
        with self.path.open("rb", buffering=0) as file:
            for offset in [*range(0, self.size, step), max(self.size - _SAMPLE_BYTES, 0)]:
                digest.update(os.pread(file.fileno(), _SAMPLE_BYTES, offset))
        return digest.hexdigest()


def _fits_string(piece: bytes) -> bool:
    """Whether what a token says before its first quote may stand in a JSON string as it is; an empty token may not."""
    said = piece.partition(b'"')[0]
    return bool(piece) and not any(byte < 0x20 or byte in b"\\\x7f" for byte in said)


def _check_magic(path: Path) -> int:
    """The file's size, once it has proved to be a GGUF file: llama.cpp's own complaint is hard to read."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF))
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise ModelError(f"model file {path} cannot be read: {error.strerror}") from error
    if magic != _GGUF:
        raise ModelCorrupt(f"model file {path} is no GGUF file", remedy=_VERIFY)
    return size
