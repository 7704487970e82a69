"""ONNX through OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from comfy_cpu_nodes.runtimes._openvino_graph import fold_upsampling, to_bfloat16
from comfy_cpu_nodes.runtimes._process import resident_bytes, return_freed_memory
from comfy_cpu_nodes.runtimes._session import POLL_SECONDS, Array, Check, Session, TensorInfo
from comfy_cpu_nodes.runtimes.openvino_library import import_openvino

__all__ = ["OpenvinoSession", "supports_bf16"]

# This module is imported when a model is to be loaded; whoever imports openvino behind it gets the same module.
ov = import_openvino()


@lru_cache(maxsize=1)
def _core() -> Any:
    return ov.Core()


def supports_bf16() -> bool:
    """Whether OpenVINO computes in bfloat16 on this CPU."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenvinoSession(Session):
    """A model compiled by OpenVINO's CPU plugin.

    Args:
        path: an ONNX file that `comfy_cpu_nodes.runtimes.onnx_metadata` found to be whole.
        precision: ``bf16`` or ``f32``.
        threads: how many; OpenVINO takes fewer if there are fewer CPUs.

    Raises:
        RuntimeError: OpenVINO cannot read or compile it.
    """

    def __init__(self, path: Path, *, precision: str, threads: int) -> None:
        before = resident_bytes()
        model, self._compiled = _compiled(path, precision, _properties(precision, threads))
        self.inputs = tuple(_tensor_info(port) for port in model.inputs)
        self.outputs = tuple(_tensor_info(port) for port in model.outputs)
        self._request: Any = self._compiled.create_infer_request()
        self.runtime = f"openvino {ov.__version__.split('-')[0]}"
        self.precision = precision
        self.threads = int(self._compiled.get_property("INFERENCE_NUM_THREADS"))
        del model
        return_freed_memory()
        super().__init__(max(resident_bytes() - before, path.stat().st_size))

    def infer(self, feeds: Mapping[str, Array], check: Check) -> dict[str, Array]:
        """Infer; `check` is called every `POLL_SECONDS`."""
        self._request.start_async(dict(feeds), share_inputs=True)
        try:
            while not self._request.wait_for(round(POLL_SECONDS * 1000)):
                check()
        except BaseException:
            self._cancel()
            raise
        self._request.wait()  # raises what went wrong, where something did
        tensors = (self._request.get_output_tensor(i) for i in range(len(self.outputs)))
        # The tensors' memory belongs to the request, and the next inference writes into it.
        return {info.name: np.array(tensor.data) for info, tensor in zip(self.outputs, tensors, strict=True)}

    def _cancel(self) -> None:
        self._request.cancel()
        with suppress(RuntimeError):  # it says that it was cancelled
            self._request.wait()  # the plugin ends after the operation that it is at; the arrays must live till then

    def give_back(self) -> None:
        """Release the intermediate results' memory; the next inference takes it again."""
        self._compiled.release_memory()
        return_freed_memory()

    def close(self) -> None:
        """Drop the compiled model."""
        self._request = self._compiled = None
        return_freed_memory()


def _compiled(path: Path, precision: str, properties: dict[str, Any]) -> tuple[Any, Any]:
    """The model as it was read, and as it was compiled."""
    model = _read(path)
    if precision == "bf16":
        try:
            fold_upsampling(model)
            if to_bfloat16(model):
                return model, _core().compile_model(model, "CPU", properties)
        except RuntimeError:
            pass  # some operator does not take bfloat16
        model = _read(path)  # as it is: OpenVINO chooses what runs in bfloat16
    return model, _core().compile_model(model, "CPU", properties)


def _read(path: Path) -> Any:
    # Through the ONNX front end, and not Core.read_model, which tries the readers of seven formats on a bad file.
    from openvino.frontend import FrontEndManager

    front_end = FrontEndManager().load_by_framework("onnx")
    return front_end.convert(front_end.load(str(path)))


def _properties(precision: str, threads: int) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        # Pinned threads of several containers on one host would all sit on its first cores.
        "ENABLE_CPU_PINNING": False,
        # How many threads and on which CPUs is decided by comfy_cpu_core.resources, hardware threads included.
        "ENABLE_HYPER_THREADING": True,
        "SCHEDULING_CORE_TYPE": "ANY_CORE",
    }


def _tensor_info(port: Any) -> TensorInfo:
    partial = port.get_partial_shape()
    shape = tuple(None if dimension.is_dynamic else int(dimension.get_length()) for dimension in partial)
    return TensorInfo(port.get_any_name(), shape, np.dtype(port.get_element_type().to_dtype()))
