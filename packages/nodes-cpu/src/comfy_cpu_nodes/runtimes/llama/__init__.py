"""Llama models in GGUF files, through llama.cpp.

`lease_llama` gives a loaded model; what it is asked for stands in the modules beside this one: `choices` fills in a form
(the safety classifier), `extraction` takes facts out of a caption, `writing` writes plain text.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from comfy_cpu_core.errors import ModelMissing
from comfy_cpu_core.resources import get_resources
from comfy_cpu_core.results import ModelUse
from comfy_cpu_nodes import host
from comfy_cpu_nodes.runtimes.cache import ModelKey, model_cache
from comfy_cpu_nodes.runtimes.llama.chat import chat_prompt
from comfy_cpu_nodes.runtimes.llama.choices import FormTokens, fill_in, form_tokens, prepare
from comfy_cpu_nodes.runtimes.llama.extraction import PRIORITIES, extract_facts
from comfy_cpu_nodes.runtimes.llama.library import has_library, load_library, runtime_name
from comfy_cpu_nodes.runtimes.llama.model import STAND_IN_KEY, LlamaModel
from comfy_cpu_nodes.runtimes.llama.writing import Writer, write

__all__ = [
    "PRIORITIES",
    "STAND_IN_KEY",
    "FormTokens",
    "LlamaModel",
    "Writer",
    "chat_prompt",
    "extract_facts",
    "fill_in",
    "form_tokens",
    "has_library",
    "lease_llama",
    "load_library",
    "prepare",
    "runtime_name",
    "write",
]


@contextmanager
def lease_llama(path: Path, *, name: str, threads: int = 0) -> Iterator[LlamaModel]:
    """Have a GGUF model to oneself inside the block: from the process's cache, or loaded.

    There is one copy of the weights for each file, whatever contexts it is used with. The current run, if there is one,
    learns that the model is used, and warns the user of a stand-in.

    Args:
        path: the file.
        name: what messages and results call it: its path inside the model tree.
        threads: how many threads it will be used with; 0 for what this process may use.

    Raises:
        ModelMissing: there is no such file.
        ModelCorrupt: it is no whole GGUF file, or llama.cpp cannot make sense of it.
        ModelError: llama-cpp-python is not there, or the file cannot be read.
        Interrupted, DeadlineExceeded: the current run should end.
    """
    if not path.is_file():
        raise ModelMissing(f"model file {path} does not exist", remedy="fetch it with `comfy-cpu models fetch`")
    load_library()
    key = ModelKey.of(path, runtime="llama.cpp", precision="gguf")
    spent = 0.0

    def load() -> LlamaModel:
        nonlocal spent
        started = time.monotonic()
        model = LlamaModel(path)
        spent = time.monotonic() - started
        return model

    with model_cache().lease(key, load, expected_bytes=key.size) as model, model.exclusively():
        _tell_run(model, name, threads or get_resources().threads, spent)
        yield model


def _tell_run(model: LlamaModel, name: str, threads: int, load_seconds: float) -> None:
    lacks = "it looks for words instead of understanding them; use its results for demonstrations and tests only"
    use = ModelUse(name, runtime_name(), model.quantisation, threads, model.stand_in, load_seconds)
    host.model_used(use, lacks)
