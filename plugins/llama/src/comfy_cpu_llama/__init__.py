"""Llama for comfy-cpu: where the GGUF files come from, which nodes need them, what changes for a CPU.

The nodes themselves are in comfy-cpu-nodes; this is the data of the model family.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.models import ModelFile, ModelNeed, ModelSpec

if TYPE_CHECKING:
    from comfy_cpu_core.convert import CannotRun, InputChange
    from comfy_cpu_core.workflow import PromptNode

_NOTICE = (
    "Gigabytes large. Meta's licence asks for attribution ('Built with Llama') and forbids some uses: read it first."
)


def _model(repository: str, file: str, licence: str, size: int | None) -> ModelSpec:
    return ModelSpec(
        id=PurePosixPath(file).stem.lower(),
        source=f"hf:{repository}",
        licence=licence,
        files=(ModelFile(file, f"llm/{file}", size=size, also=(f"LLM/{file}",)),),
        notice=_NOTICE,
    )


_LLAMA_8B = "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF"
_LICENCE_3_1 = "Llama 3.1 Community License"

_MODELS = (
    _model(_LLAMA_8B, "Meta-Llama-3.1-8B-Instruct-Q5_K_M.gguf", _LICENCE_3_1, 5_732_992_416),
    _model(_LLAMA_8B, "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf", _LICENCE_3_1, 4_920_739_232),
    _model(
        "bartowski/Llama-3.2-3B-Instruct-GGUF",
        "Llama-3.2-3B-Instruct-Q5_K_M.gguf",
        "Llama 3.2 Community License",
        None,
    ),
)

#: The input of each class that names a GGUF file.
_MODEL_INPUTS = {
    "MultiDomainSafetyClassifier": "model_path",
    "LocalJSONExtractorLlama": "model_path",
    "LocalLLMLoader_AdvV2": "model",
}


@hookimpl
def comfy_cpu_models() -> Iterable[ModelSpec]:
    """Llama 3.1 8B Instruct in two sizes, and Llama 3.2 3B Instruct as the small alternative."""
    return _MODELS


@hookimpl
def comfy_cpu_models_for_node(node: PromptNode) -> Iterable[ModelNeed]:
    """The model that has the file name at the end of the path, whatever machine the path is of.

    A file that is not known here is the user's own: the node looks for it in the model tree when it runs.
    """
    named = _named(node)
    if named is None:
        return []
    file = PureWindowsPath(named).name
    input_name = _MODEL_INPUTS[node.class_type]
    return [ModelNeed(model.id, input_name, named) for model in _MODELS if model.files[0].path == file]


@hookimpl
def comfy_cpu_convert_node(node: PromptNode) -> Iterable[InputChange | CannotRun]:
    """No layers on a GPU; a path of another machine becomes the name of the file."""
    if node.class_type not in _MODEL_INPUTS:
        return
    from comfy_cpu_core.convert import InputChange

    layers = node.widget("n_gpu_layers")
    if layers is not None and layers != 0:
        yield InputChange("n_gpu_layers", 0, "there is no GPU to put layers on: the model runs on the CPU")
    named = _named(node)
    if named is not None and _is_absolute(named):
        file = PureWindowsPath(named).name
        reason = "a path of the machine where the workflow was made; the file of that name in models/llm or models/LLM is used"
        yield InputChange(_MODEL_INPUTS[node.class_type], file, reason)


def _named(node: PromptNode) -> str | None:
    """The path or name of the GGUF file that a node of ours names, if it does."""
    if node.class_type not in _MODEL_INPUTS:
        return None
    named = node.widget(_MODEL_INPUTS[node.class_type])
    return named if isinstance(named, str) and PureWindowsPath(named).name else None


def _is_absolute(named: str) -> bool:
    # Windows paths have a drive, or begin with two backslashes; all others are absolute if they begin with a slash.
    return bool(PureWindowsPath(named).drive) or named.startswith(("/", "\\"))
