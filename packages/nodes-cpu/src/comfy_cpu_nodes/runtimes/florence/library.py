"""torch and transformers: found, imported when a model is loaded, and told how many threads to use.

Both are typed as Any: they need not be installed where the types are checked.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from comfy_cpu_core.errors import ModelError
from comfy_cpu_core.resources import get_resources
from comfy_cpu_nodes.host import check_interrupt

__all__ = ["Libraries", "has_libraries", "load_libraries", "runtime_name", "torch_to_oneself"]

_DISTRIBUTIONS = ("torch", "transformers", "tokenizers", "safetensors")
_REMEDY = "pip install 'comfy-cpu-nodes[florence2]', with the CPU build of torch (the other one is gigabytes larger)"

#: torch's number of threads and its random numbers belong to the process, and one model alone uses every thread.
_torch = threading.Lock()


class Libraries:
    """The modules of the libraries.

    Attributes:
        torch, transformers, tokenizers, safetensors: the modules.
    """

    torch: Any
    transformers: Any
    tokenizers: Any
    safetensors: Any

    def __init__(self) -> None:
        for name in _DISTRIBUTIONS:
            setattr(self, name, import_module(name))


def has_libraries() -> bool:
    """Whether everything is installed; nothing is imported for it."""
    return all(find_spec(name) is not None for name in _DISTRIBUTIONS)


@lru_cache(maxsize=1)
def load_libraries() -> Libraries:
    """Import the libraries, which takes seconds the first time.

    Raises:
        ModelError: one is missing, cannot be imported, or is too old to know Florence-2.
    """
    missing = [name for name in _DISTRIBUTIONS if find_spec(name) is None]
    if missing:
        raise ModelError(f"Florence-2 needs {', '.join(missing)}, which is not installed", remedy=_REMEDY)
    try:
        libraries = Libraries()
    except ImportError as error:
        raise ModelError(f"Florence-2's libraries cannot be imported: {error}", remedy=_REMEDY) from error
    if not hasattr(libraries.transformers, "Florence2ForConditionalGeneration"):
        raise ModelError(
            f"transformers {libraries.transformers.__version__} does not know Florence-2; 4.56 is the first that does",
            remedy=_REMEDY,
        )
    return libraries


def runtime_name() -> str:
    """What runs the models, with its version, for results."""
    try:
        return f"transformers {version('transformers')}"
    except PackageNotFoundError:
        return "transformers"


@contextmanager
def torch_to_oneself(torch: Any) -> Iterator[None]:
    """Have torch to oneself inside the block, with as many threads as this process may use.

    Raises:
        Interrupted, DeadlineExceeded: the current run should end while it waits.
    """
    while not _torch.acquire(timeout=0.1):
        check_interrupt()
    try:
        before = torch.get_num_threads()
        torch.set_num_threads(get_resources().threads)
        try:
            with torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(before)
    finally:
        _torch.release()
