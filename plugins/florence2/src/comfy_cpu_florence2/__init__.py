"""Florence-2 for comfy-cpu: where its weights come from, which nodes need them, what changes for a CPU.

The nodes themselves are in comfy-cpu-nodes; this is the data of the model family.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.models import ModelFile, ModelNeed, ModelSpec

if TYPE_CHECKING:
    from comfy_cpu_core.convert import CannotRun, InputChange
    from comfy_cpu_core.workflow import PromptNode


def _model(name: str, source: str, files: Iterable[str], licence: str, notice: str = "") -> ModelSpec:
    return ModelSpec(
        id=name.lower(),
        source=f"hf:{source}",
        licence=licence,
        files=tuple(ModelFile(file, f"LLM/{name}/{file}") for file in files),
        notice=notice,
    )


# What the nodes read. Nothing else is needed: the repositories' Python code is never run.
_FILES = ("config.json", "tokenizer.json", "model.safetensors")

# The weights of microsoft/* once more, in the form that transformers' own classes load.
_MODELS = {
    name: _model(name, f"florence-community/{name}", _FILES, "MIT")
    for name in ("Florence-2-base", "Florence-2-base-ft", "Florence-2-large", "Florence-2-large-ft")
}

_ADAPTERS = {
    "Florence-2-pixelprose": _model(
        "Florence-2-pixelprose",
        "NikshepShetty/Florence-2-pixelprose",
        ("adapter_config.json", "adapter_model.safetensors"),
        "see its model card",
        notice="A LoRA adapter that nobody has tried with these nodes yet; read its licence before you use it.",
    )
}

# Fine-tunes that workflows name. They are published for Python code beside the weights, and nobody has checked whether
# they come as safetensors.
_FINE_TUNES = frozenset(
    {
        "Florence-2-DocVQA",
        "CogFlorence-2.1-Large",
        "CogFlorence-2.2-Large",
        "Florence-2-SD3-Captioner",
        "Florence-2-Flux-Large",
        "Florence-2-base-PromptGen-v1.5",
        "Florence-2-large-PromptGen-v1.5",
        "Florence-2-base-PromptGen-v2.0",
        "Florence-2-large-PromptGen-v2.0",
        "Florence-2-base-Castollux-v0.5",
    }
)

_LOADER = "Florence2ModelLoader"
_FETCHING_LOADER = "DownloadAndLoadFlorence2Model"
_FETCHING_ADAPTER_LOADER = "DownloadAndLoadFlorence2Lora"


@hookimpl
def comfy_cpu_models() -> Iterable[ModelSpec]:
    """The four models of microsoft/*, and the adapter that the nodes offer."""
    return [*_MODELS.values(), *_ADAPTERS.values()]


@hookimpl
def comfy_cpu_models_for_node(node: PromptNode) -> Iterable[ModelNeed]:
    """The model that the node names; two of the three classes fetch it themselves.

    A name that is not known here is a directory of the user's own: the node looks for it when it runs.
    """
    if node.class_type not in {_LOADER, _FETCHING_LOADER, _FETCHING_ADAPTER_LOADER}:
        return
    named = node.widget("model")
    if not isinstance(named, str):  # connected: known only when the workflow runs
        return
    name = PurePosixPath(named).name
    known = _ADAPTERS if node.class_type == _FETCHING_ADAPTER_LOADER else _MODELS
    if name in known:
        yield ModelNeed(known[name].id, "model", named, fetched_by_node=node.class_type != _LOADER)
    elif name in _FINE_TUNES:
        reason = (
            f"it is published for Python code beside the weights, which is never run; put its config.json, "
            f"tokenizer.json and model.safetensors into LLM/{name} of the model tree: weights in that form are read"
        )
        yield ModelNeed(None, "model", named, reason, target=f"LLM/{name}/model.safetensors")


@hookimpl
def comfy_cpu_convert_node(node: PromptNode) -> Iterable[InputChange | CannotRun]:
    """The precision becomes the best that this CPU has, flash attention becomes PyTorch's own."""
    if node.class_type not in {_LOADER, _FETCHING_LOADER}:
        return
    from comfy_cpu_core.convert import InputChange
    from comfy_cpu_core.resources import get_resources

    precision, bf16 = node.widget("precision"), get_resources().has_bf16
    if precision == "fp16":
        best = "bf16" if bf16 else "fp32"
        yield InputChange("precision", best, f"a CPU computes slowly in fp16; {best} is the best that this one has")
    elif precision == "bf16" and not bf16:
        yield InputChange("precision", "fp32", "this CPU does not multiply bf16 matrices in hardware")
    if node.widget("attention") == "flash_attention_2":
        yield InputChange("attention", "sdpa", "flash attention needs a GPU; sdpa gives the same results")
