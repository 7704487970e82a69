"""Loaded models, and what runs them. No torch; the runtimes' libraries are imported when a model is loaded."""

from comfy_cpu_nodes.runtimes.cache import (
    CACHE_VARIABLE,
    LoadedModel,
    ModelCache,
    ModelKey,
    Resident,
    loaded_models,
    model_cache,
    release_models,
)
from comfy_cpu_nodes.runtimes.onnx import (
    PRECISION_VARIABLE,
    RUNTIME_VARIABLE,
    OnnxModel,
    OnnxRuntime,
    Precision,
    TensorInfo,
    import_onnx_runtime,
    installed_onnx_runtimes,
    load_onnx,
)
from comfy_cpu_nodes.runtimes.onnx_metadata import PRECISION_KEY, STAND_IN_KEY, is_stand_in, read_metadata

__all__ = [
    "CACHE_VARIABLE",
    "PRECISION_KEY",
    "PRECISION_VARIABLE",
    "RUNTIME_VARIABLE",
    "STAND_IN_KEY",
    "LoadedModel",
    "ModelCache",
    "ModelKey",
    "OnnxModel",
    "OnnxRuntime",
    "Precision",
    "Resident",
    "TensorInfo",
    "import_onnx_runtime",
    "installed_onnx_runtimes",
    "is_stand_in",
    "load_onnx",
    "loaded_models",
    "model_cache",
    "read_metadata",
    "release_models",
]
