"""ONNX models: `load_onnx` gives back an `OnnxModel`, whichever runtime carries it out.

OpenVINO where it is installed, else onnxruntime; ``COMFY_CPU_ONNX_RUNTIME`` chooses by hand. OpenVINO computes in
bfloat16 where the CPU multiplies bfloat16 matrices in hardware, else in float32; ``COMFY_CPU_PRECISION=f32`` forces
float32.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from comfy_cpu_core.errors import ComfyCpuError, InputError, ModelCorrupt, ModelError, ModelMissing
from comfy_cpu_core.results import ModelUse
from comfy_cpu_nodes import host
from comfy_cpu_nodes.runtimes._session import Array, Session, TensorInfo
from comfy_cpu_nodes.runtimes.cache import ModelKey, model_cache
from comfy_cpu_nodes.runtimes.onnx_metadata import is_stand_in, needs_f32, read_metadata

__all__ = [
    "PRECISION_VARIABLE",
    "RUNTIME_VARIABLE",
    "OnnxModel",
    "OnnxRuntime",
    "Precision",
    "TensorInfo",
    "import_onnx_runtime",
    "installed_onnx_runtimes",
    "load_onnx",
]

#: The environment variables that choose the runtime and force the precision.
RUNTIME_VARIABLE = "COMFY_CPU_ONNX_RUNTIME"
PRECISION_VARIABLE = "COMFY_CPU_PRECISION"

OnnxRuntime = Literal["openvino", "onnxruntime"]
Precision = Literal["auto", "f32"]

_VERIFY = "check the model tree with `comfy-cpu models verify`, and fetch the file again"


class OnnxModel:
    """An ONNX model, ready to run.

    It is a handle: the weights are in the process's cache, which may drop them between two inferences to stay within
    its budget, and loads them again for the next one. Safe to use from several threads; inferences of one model wait
    for each other, because one alone already uses every thread.

    Attributes:
        name: what messages and results call it.
        path: the file.
        inputs, outputs: what it takes and gives.
        runtime: what runs it, with its version.
        precision: what it computes in: ``bf16`` or ``f32``.
        threads: how many threads it uses.
        stand_in: whether it only imitates the model of that name.
    """

    def __init__(self, name: str, key: ModelKey, session: Session, *, threads: int, stand_in: bool) -> None:
        self.name = name
        self.path = key.path
        self.inputs = session.inputs
        self.outputs = session.outputs
        self.runtime = session.runtime
        self.precision = session.precision
        self.threads = session.threads
        self.stand_in = stand_in
        self._key = key
        self._threads_wanted = threads

    def __repr__(self) -> str:
        return f"<OnnxModel {self.name} {self.runtime} {self.precision}>"

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Infer.

        Args:
            feeds: an array for each of `inputs`, of exactly its type and shape.

        Returns:
            An array for each of `outputs`, which belongs to the caller.

        Raises:
            ModelError: an input is missing, unknown or does not fit, or the runtime failed.
            Interrupted, DeadlineExceeded: the current run should end (inside a ComfyUI: its own exception); within a
                second as a rule, because the runtime finishes the operation that it is at.
        """
        fitting = self._fitting(feeds)
        with model_cache().lease(self._key, self._load, expected_bytes=2 * self._key.size) as session:
            try:
                return session.run(fitting, host.check_interrupt)
            except (ComfyCpuError, KeyboardInterrupt):
                raise
            except host.interruptions():
                raise
            except MemoryError as error:
                raise _no_memory(self.name) from error
            except Exception as error:
                raise ModelError(f"{self.name}: {self.runtime} failed to infer: {_reason(error)}") from error

    def use(self, load_seconds: float = 0.0) -> ModelUse:
        """What a result says of this model."""
        return ModelUse(self.name, self.runtime, self.precision, self.threads, self.stand_in, load_seconds)

    def _load(self) -> Session:
        return _open(self._key, self.name, self._threads_wanted)

    def _fitting(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        known = {info.name for info in self.inputs}
        if unknown := sorted(set(feeds) - known):
            raise ModelError(f"{self.name} has no input {unknown[0]!r}; it has {', '.join(sorted(known))}")
        fitting = {}
        for info in self.inputs:
            if info.name not in feeds:
                raise ModelError(f"{self.name} needs the input {info.name!r}: {info}")
            array = feeds[info.name]
            if not info.accepts(array):
                given = TensorInfo(info.name, array.shape, array.dtype)
                raise ModelError(
                    f"{self.name} takes {info} as {info.name!r}, not {given}",
                    remedy="the file may be another model than its name says: `comfy-cpu models verify`",
                )
            fitting[info.name] = np.ascontiguousarray(array)
        return fitting


def load_onnx(path: Path, *, name: str, precision: Precision = "auto") -> OnnxModel:
    """Load an ONNX model, or find it in the process's cache.

    The current run, if there is one, learns that the model is used. The user is warned of a stand-in.

    Args:
        path: the file.
        name: what messages and results call it: its path inside the model tree.
        precision: ``f32`` for models that bfloat16 is too coarse for; a file may ask for it by itself (`PRECISION_KEY`).

    Raises:
        ModelMissing: there is no such file.
        ModelCorrupt: it is not a whole ONNX file, or the runtime cannot make sense of it.
        ModelError: no runtime is installed, or there is not enough memory.
        InputError: an environment variable has a value that means nothing.
    """
    if not path.exists():
        raise ModelMissing(f"model file {path} does not exist", remedy="fetch it with `comfy-cpu models fetch`")
    if not path.is_file():
        raise ModelCorrupt(f"model file {path} is not a file", remedy=_VERIFY)
    notes = read_metadata(path)
    if needs_f32(notes):
        precision = "f32"
    runtime = _choose_runtime(os.environ.get(RUNTIME_VARIABLE, ""))
    threads, computes_in = _settings(runtime, precision, os.environ.get(PRECISION_VARIABLE, ""))
    key = ModelKey.of(path, runtime=runtime, precision=computes_in)
    spent = 0.0

    def load() -> Session:
        nonlocal spent
        started = time.monotonic()
        session = _open(key, name, threads)
        spent = time.monotonic() - started
        return session

    with model_cache().lease(key, load, expected_bytes=2 * key.size) as session:
        model = OnnxModel(name, key, session, threads=threads, stand_in=is_stand_in(notes))
    _tell_run(model, spent)
    return model


def installed_onnx_runtimes() -> tuple[OnnxRuntime, ...]:
    """The runtimes that are installed, the preferred one first."""
    return tuple(name for name in get_args(OnnxRuntime) if find_spec(name) is not None)


def import_onnx_runtime() -> None:
    """Import the library that the next model will be loaded with, which takes some tenths of a second the first time.

    Raises:
        ComfyCpuError: there is none, or it is not the one that the environment asks for.
        ImportError: it cannot be imported.
    """
    if _choose_runtime(os.environ.get(RUNTIME_VARIABLE, "")) == "openvino":
        from comfy_cpu_nodes.runtimes import _openvino  # noqa: F401
    else:
        import onnxruntime  # noqa: F401


def _choose_runtime(wanted: str) -> OnnxRuntime:
    installed = installed_onnx_runtimes()
    if not wanted:
        if not installed:
            raise ModelError(
                "no runtime for ONNX models is installed", remedy="pip install 'comfy-cpu-nodes[openvino]'"
            )
        return installed[0]
    if wanted not in get_args(OnnxRuntime):
        raise InputError(
            f"{RUNTIME_VARIABLE} is {wanted!r}, which is no runtime",
            remedy=f"set it to {' or '.join(get_args(OnnxRuntime))}, or unset it",
        )
    if wanted not in installed:
        raise ModelError(
            f"{RUNTIME_VARIABLE} is {wanted}, which is not installed",
            remedy=f"pip install 'comfy-cpu-nodes[{wanted}]'",
        )
    return wanted


def _settings(runtime: OnnxRuntime, precision: Precision, forced: str) -> tuple[int, str]:
    """The number of threads, and what to compute in."""
    from comfy_cpu_core.resources import get_resources

    if forced not in {"", *get_args(Precision)}:
        raise InputError(
            f"{PRECISION_VARIABLE} is {forced!r}, which is no precision",
            remedy=f"set it to {' or '.join(get_args(Precision))}, or unset it",
        )
    resources = get_resources()
    if runtime == "onnxruntime" or "f32" in {precision, forced} or not resources.has_bf16:
        return resources.threads, "f32"
    from comfy_cpu_nodes.runtimes._openvino import supports_bf16

    return resources.threads, "bf16" if supports_bf16() else "f32"


def _open(key: ModelKey, name: str, threads: int) -> Session:
    """Load with the runtime that the key names; its exceptions become ours."""
    try:
        if key.runtime == "openvino":
            from comfy_cpu_nodes.runtimes._openvino import OpenvinoSession

            return OpenvinoSession(key.path, precision=key.precision, threads=threads)
        from comfy_cpu_nodes.runtimes._onnxruntime import OnnxruntimeSession

        return OnnxruntimeSession(key.path, threads=threads)
    except ImportError as error:
        raise ModelError(
            f"{key.runtime} is installed, but cannot be imported: {_reason(error)}",
            remedy=f"pip install --force-reinstall 'comfy-cpu-nodes[{key.runtime}]'",
        ) from error
    except MemoryError as error:
        raise _no_memory(name) from error
    except Exception as error:
        if "bad_alloc" in str(error):
            raise _no_memory(name) from error
        raise ModelCorrupt(
            f"model file {key.path} cannot be loaded by {key.runtime}: {_reason(error)}", remedy=_VERIFY
        ) from error


def _tell_run(model: OnnxModel, load_seconds: float) -> None:
    lacks = "it has the real model's inputs and outputs, not its quality; use its results for demonstrations only"
    host.model_used(model.use(load_seconds), lacks)


def _no_memory(name: str) -> ModelError:
    return ModelError(
        f"{name}: not enough memory",
        remedy="give the process more memory, or let it keep fewer models with COMFY_CPU_CACHE_BYTES",
    )


def _reason(error: BaseException) -> str:
    """The most telling line of a library's exception: the last one, after where in its source it was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
