"""One Florence-2 in memory: transformers' model with its weights, its tokenizer, and the pictures that it saw last."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from comfy_cpu_core.errors import ModelCorrupt, ModelError
from comfy_cpu_nodes.host import check_interrupt
from comfy_cpu_nodes.ops.florence import encode
from comfy_cpu_nodes.ops.pixels import Pixels
from comfy_cpu_nodes.runtimes._process import return_freed_memory
from comfy_cpu_nodes.runtimes.florence.decode import Sampling, register_attention, write_answer
from comfy_cpu_nodes.runtimes.florence.folder import VERIFY, ModelFolder
from comfy_cpu_nodes.runtimes.florence.library import Libraries, torch_to_oneself
from comfy_cpu_nodes.runtimes.florence.tokens import Tokens
from comfy_cpu_nodes.runtimes.florence.weights import state_of

__all__ = ["FlorenceModel", "empty_model"]

#: How many pictures are remembered: 577 vectors each, about a megabyte.
_REMEMBERED = 8


class FlorenceModel:
    """A loaded model; a `comfy_cpu_nodes.runtimes.cache.Resident`. Safe to use from several threads, one at a time.

    Args:
        libraries: torch and transformers.
        folder: the model's directory.
        precision: what to compute in: ``bf16`` or ``f32``.
        attention: ``sdpa`` (quick), or ``eager`` (transformers' plain one).
        read_changes: gives what an adapter adds to the weights, for the shapes that these have.

    Raises:
        ModelCorrupt: configuration, tokenizer and weights do not make a model.
    """

    def __init__(
        self,
        libraries: Libraries,
        folder: ModelFolder,
        *,
        precision: str,
        attention: str,
        read_changes: Callable[[Mapping[str, tuple[int, ...]]], Mapping[str, Any]],
    ) -> None:
        torch = libraries.torch
        self._libraries = libraries
        self._folder = folder
        self._type = torch.bfloat16 if precision == "bf16" else torch.float32
        self._tokens = Tokens(folder.tokenizer, folder.generation, folder.text["vocab_size"])
        self._seen: OrderedDict[bytes, Any] = OrderedDict()
        model = empty_model(libraries, folder, "eager" if attention == "eager" else register_attention(libraries))
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        with torch.inference_mode():
            state = state_of(libraries, folder.weights, shapes, read_changes(shapes), self._type)
            model.load_state_dict(state, assign=True)
        for name, part in model.named_modules():
            # What takes a tenth of a second or two, so that nobody who wants to stop waits long. A whole step of the
            # decoder takes less, and there the caller is asked for every token.
            if (
                name.rpartition(".")[2] in {"conv", "qkv", "proj", "fc1", "fc2", "self_attn"}
                and ".decoder." not in name
            ):
                part.register_forward_pre_hook(_may_go_on)
        self._model = model
        self._held = sum({t.untyped_storage().data_ptr(): t.nbytes for t in state.values()}.values())
        return_freed_memory()

    @property
    def stand_in(self) -> bool:
        """Whether it only imitates a real model."""
        return self._folder.stand_in

    @property
    def longest_answer(self) -> int:
        """How many tokens an answer may have."""
        return int(self._folder.text.get("max_position_embeddings", 1024))

    def answer(self, picture: Pixels, question: str, sampling: Sampling, on_token: Callable[[], None]) -> str:
        """What the model says about a picture, with all its tags.

        The picture is looked at once, however many questions are asked about it one after the other.

        Args:
            picture: uint8 [H,W,3].
            on_token: called for every token.

        Raises:
            ModelError: the question is too long, there is not enough memory, or the model fails.
            Interrupted, DeadlineExceeded: the current run should end; within a second.
        """
        libraries, torch, model = self._libraries, self._libraries.torch, self._model
        ids = self._tokens.encode(question)
        rules = dict(self._folder.generation)
        if sampling.num_beams == 1:
            del rules["early_stopping"]  # it is about beams
        try:
            with torch_to_oneself(torch):
                looked = self._look(picture)
                room = self.longest_answer - looked.shape[1]
                if len(ids) > room:
                    raise ModelError(
                        f"a question of {len(ids)} tokens is too long for Florence-2, which takes {room}",
                        remedy="shorten text_input",
                    )
                asked = model.get_input_embeddings()(torch.tensor([ids]))
                encoder = model.model.language_model.encoder
                encoded = encoder(inputs_embeds=torch.cat([looked, asked], dim=1)).last_hidden_state
                answer = write_answer(libraries, model, encoded, sampling, rules, on_token)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError) or "not enough memory" in str(error):
                raise ModelError(
                    "Florence-2: not enough memory", remedy="give the process more memory, or ask with fewer beams"
                ) from error
            raise ModelError(f"Florence-2 failed: {error}") from error
        return self._tokens.decode(answer)

    # As a Resident of the process's cache.

    def memory_bytes(self) -> int:
        """The weights, and what is remembered of pictures."""
        return int(self._held) + sum(int(features.nbytes) for features in list(self._seen.values()))

    def trim(self) -> None:
        """Forget the pictures."""
        self._seen.clear()
        return_freed_memory()

    def close(self) -> None:
        """Give everything back."""
        self._model = None
        self.trim()

    def _look(self, picture: Pixels) -> Any:
        """The picture as the language model sees it, ``[1, tokens, width]``."""
        shape = repr(picture.shape).encode()
        key = hashlib.blake2b(np.ascontiguousarray(picture).data, digest_size=16, key=shape).digest()
        if key not in self._seen:
            pixels = self._libraries.torch.from_numpy(encode(picture, self._folder.normalisation))
            found = self._model.get_image_features(pixel_values=pixels.to(self._type))
            # Earlier versions of transformers give the features themselves.
            self._seen[key] = getattr(found, "pooler_output", found)
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
        self._seen.move_to_end(key)
        return self._seen[key]


def empty_model(libraries: Libraries, folder: ModelFolder, attention: str) -> Any:
    """transformers' model for a configuration, without memory for its weights.

    Raises:
        ModelCorrupt: the configuration makes no model.
    """
    torch, transformers = libraries.torch, libraries.transformers
    try:
        config = transformers.Florence2Config(
            text_config={"model_type": "bart", **folder.text},
            vision_config={"drop_path_rate": 0.0, **folder.vision},
            attn_implementation=attention,
        )
        with torch.device("meta"):
            return transformers.Florence2ForConditionalGeneration(config).requires_grad_(False).eval()
    except Exception as error:  # whatever its checks and PyTorch's raise
        raise ModelCorrupt(
            f"model file {folder.path / 'config.json'} describes no Florence-2: {error}", remedy=VERIFY
        ) from error


def _may_go_on(_module: Any, _inputs: Any) -> None:
    check_interrupt()
