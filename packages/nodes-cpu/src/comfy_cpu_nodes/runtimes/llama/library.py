"""llama.cpp, by way of llama-cpp-python's low-level functions: found, told which CPU it is on, and listened to.

`llama_cpp` is imported by `load_library` and nowhere else. Everything of it is typed as Any: it need not be installed
where the types are checked.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from comfy_cpu_core.errors import ModelError

__all__ = ["complaints", "has_library", "load_library", "runtime_name"]

_log = logging.getLogger("comfy_cpu.llama")

_WARNING, _ERROR = 3, 4  # ggml_log_level

#: What llama.cpp complained about last: its functions only say that they failed, the log says why.
_complaints: deque[str] = deque(maxlen=8)

#: How GNU's OpenMP is told how long a thread that waits for the others looks before it sleeps. Left to itself it looks
#: for some milliseconds, after each of the hundreds of steps of a batch: on a machine that others use too, or under a
#: quota, it takes the very time that the others need (a third of it, measured).
_WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_SHORT = "1000"

_REMEDY = "pip install 'comfy-cpu-nodes[llama]' (compiles llama.cpp: a C++ compiler and CMake must be there)"


def has_library() -> bool:
    """Whether llama-cpp-python is installed; does not import it."""
    return find_spec("llama_cpp") is not None


@lru_cache(maxsize=1)
def load_library() -> Any:
    """The module `llama_cpp`, ready to load models.

    Raises:
        ModelError: it is not installed, or its libraries cannot be loaded.
    """
    with _short_waits():
        library = _import()
        library.llama_log_set(_listener(library), ctypes.c_void_p(0))
        library.llama_backend_init()
        _load_cpu_backend(library)
    return library


def _import() -> Any:
    try:
        return import_module("llama_cpp")
    except ModuleNotFoundError as error:
        if error.name != "llama_cpp":
            raise _unusable(error) from error
        raise ModelError("llama-cpp-python is not installed, and Llama models need it", remedy=_REMEDY) from error
    except (ImportError, OSError, RuntimeError) as error:  # a wheel for another machine, or libgomp is missing
        raise _unusable(error) from error


def runtime_name() -> str:
    """What results call the runtime: ``llama.cpp`` with the version of llama-cpp-python.

    Raises:
        ModelError: as `load_library`.
    """
    return f"llama.cpp {load_library().__version__}"


def complaints() -> str:
    """What llama.cpp complained about since the last call, in one line; empty if it did not."""
    text = "; ".join(_complaints)
    _complaints.clear()
    return text


@contextmanager
def _short_waits() -> Iterator[None]:
    """Have OpenMP, if it is loaded inside the block, wait as `_SHORT` says; unless the user has an opinion."""
    if any(name in os.environ for name in _WAITING):
        yield
        return
    os.environ[_WAITING[0]] = _SHORT
    try:
        yield
    finally:
        del os.environ[_WAITING[0]]


def _unusable(error: Exception) -> ModelError:
    return ModelError(
        f"llama-cpp-python is installed, but cannot be used: {' '.join(str(error).split())}",
        remedy="install libgomp1, or reinstall: pip install --force-reinstall 'comfy-cpu-nodes[llama]'",
    )


def _load_cpu_backend(library: Any) -> None:
    """Load the CPU backend that suits this CPU best.

    A portable build has a library for each generation of CPUs (GGML_CPU_ALL_VARIANTS), beside the main one, and loads
    none by itself; a build for one CPU has its backend linked in already.
    """
    low_level = library.llama_cpp._lib
    low_level.ggml_backend_dev_count.restype = ctypes.c_size_t
    if low_level.ggml_backend_dev_count():
        return
    folder = Path(low_level._name).parent
    low_level.ggml_backend_load_all_from_path(ctypes.c_char_p(str(folder).encode()))
    if not low_level.ggml_backend_dev_count():
        raise ModelError(
            f"llama-cpp-python has no CPU backend in {folder}",
            remedy="build it with -DCMAKE_INSTALL_BINDIR=llama_cpp/lib, or without GGML_BACKEND_DL",
        )


@lru_cache(maxsize=1)  # llama.cpp keeps the pointer: the object must live as long as the process
def _listener(library: Any) -> Any:
    def listen(level: int, text: bytes, _: Any) -> None:
        line = text.decode("utf-8", "replace").strip()
        if level in (_WARNING, _ERROR) and line:
            _complaints.append(line)
        _log.debug("%s", line)

    return library.llama_log_callback(listen)
