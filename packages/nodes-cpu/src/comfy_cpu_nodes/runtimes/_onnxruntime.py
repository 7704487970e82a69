"""ONNX through onnxruntime."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from comfy_cpu_nodes.runtimes._process import resident_bytes, return_freed_memory
from comfy_cpu_nodes.runtimes._session import POLL_SECONDS, Array, Check, Session, TensorInfo

__all__ = ["OnnxruntimeSession"]

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}


class OnnxruntimeSession(Session):
    """A model in an onnxruntime session on the CPU. It computes in float32, whatever the weights are.

    Args:
        path: an ONNX file that `comfy_cpu_nodes.runtimes.onnx_metadata` found to be whole.
        threads: how many.

    Raises:
        Exception: onnxruntime cannot load it (its exceptions have no common base).
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        import onnxruntime as ort

        before = resident_bytes()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        # The arena keeps the peak of every inference, and doubles it with the second one (BEN2: 7.7 GB; 3.8 without).
        options.enable_cpu_mem_arena = False
        # Threads that spin while they wait take the CPU from other runtimes in this process, and eat a quota.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what is wrong is raised, too
        # The fallback would try the same once more, and print that it does.
        self._session: Any = ort.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        self.inputs = tuple(_tensor_info(value) for value in self._session.get_inputs())
        self.outputs = tuple(_tensor_info(value) for value in self._session.get_outputs())
        self.runtime = f"onnxruntime {ort.__version__}"
        self.precision = "f32"
        self.threads = threads
        return_freed_memory()
        super().__init__(max(resident_bytes() - before, path.stat().st_size))

    def infer(self, feeds: Mapping[str, Array], check: Check) -> dict[str, Array]:
        """Infer in a thread of its own, so that this one can call `check` every `POLL_SECONDS`."""
        import onnxruntime as ort

        options = ort.RunOptions()
        options.log_severity_level = 4
        results: list[Array] = []
        failures: list[BaseException] = []

        def work() -> None:
            try:
                results.extend(self._session.run(None, dict(feeds), options))
            except BaseException as error:
                failures.append(error)

        # In the caller's context: what onnxruntime calls back into (a custom operator) may look at the current run.
        worker = threading.Thread(target=contextvars.copy_context().run, args=(work,), name="onnxruntime", daemon=True)
        worker.start()
        try:
            while worker.is_alive():
                worker.join(POLL_SECONDS)
                if worker.is_alive():
                    check()
        except BaseException:
            options.terminate = True
            worker.join()  # it ends after the operation that it is at
            raise
        if failures:
            raise failures[0]
        return {info.name: np.asarray(result) for info, result in zip(self.outputs, results, strict=True)}

    def give_back(self) -> None:
        """Without an arena nothing is kept between inferences but what the C library holds."""
        return_freed_memory()

    def close(self) -> None:
        """Drop the session."""
        self._session = None
        return_freed_memory()


def _tensor_info(value: Any) -> TensorInfo:
    if value.type not in _DTYPES:
        raise ValueError(f"{value.name!r} is a {value.type}, which is not supported")
    shape = tuple(dimension if isinstance(dimension, int) else None for dimension in value.shape)
    return TensorInfo(value.name, shape, np.dtype(_DTYPES[value.type]))
