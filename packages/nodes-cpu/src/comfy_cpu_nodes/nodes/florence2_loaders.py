"""Nodes that load Florence-2, and fetch it if need be."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from comfy_cpu_core.errors import Interrupted, ModelMissing
from comfy_cpu_nodes import host

if TYPE_CHECKING:
    from comfy_cpu_core.models import ModelSpec
    from comfy_cpu_nodes.runtimes.florence import Adapter, Florence, Precision

__all__ = [
    "ADAPTERS",
    "MODELS",
    "DownloadAndLoadFlorence2Lora",
    "DownloadAndLoadFlorence2Model",
    "Florence2ModelLoader",
]

_CATEGORY = "Florence2"

#: Where the model tree keeps them.
_FOLDER = "LLM"

MODELS = (
    "microsoft/Florence-2-base",
    "microsoft/Florence-2-base-ft",
    "microsoft/Florence-2-large",
    "microsoft/Florence-2-large-ft",
    "HuggingFaceM4/Florence-2-DocVQA",
    "thwri/CogFlorence-2.1-Large",
    "thwri/CogFlorence-2.2-Large",
    "gokaygokay/Florence-2-SD3-Captioner",
    "gokaygokay/Florence-2-Flux-Large",
    "MiaoshouAI/Florence-2-base-PromptGen-v1.5",
    "MiaoshouAI/Florence-2-large-PromptGen-v1.5",
    "MiaoshouAI/Florence-2-base-PromptGen-v2.0",
    "MiaoshouAI/Florence-2-large-PromptGen-v2.0",
    "PJMixers-Images/Florence-2-base-Castollux-v0.5",
)

ADAPTERS = ("NikshepShetty/Florence-2-pixelprose",)

_PRECISIONS = ("fp16", "bf16", "fp32")
_ATTENTIONS = ("flash_attention_2", "sdpa", "eager")


class _Loader:
    """What the two nodes that load a model have in common."""

    CATEGORY = _CATEGORY
    FUNCTION = "loadmodel"
    RETURN_TYPES = ("FL2MODEL",)
    RETURN_NAMES = ("florence2_model",)

    @classmethod
    def IS_CHANGED(cls, model: Any = None, **_settings: Any) -> str:
        """Say which files there are: a model that was replaced is loaded anew."""
        files = sorted(_directory(model).glob("*")) if isinstance(model, str) else []
        return repr([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()])


def _loader_inputs(model: tuple[Any, dict[str, Any]]) -> dict[str, Any]:
    return {
        "required": {
            "model": model,
            "precision": (
                list(_PRECISIONS),
                {"default": "fp16", "tooltip": "fp16 becomes what this CPU computes in best: bf16, or fp32."},
            ),
            "attention": (
                list(_ATTENTIONS),
                {"default": "sdpa", "tooltip": "flash_attention_2 needs a GPU; sdpa is used instead."},
            ),
        },
        "optional": {
            "lora": ("PEFTLORA", {"tooltip": "An adapter, which is added to the weights when they are loaded."}),
            "convert_to_safetensors": (
                "BOOLEAN",
                {"default": False, "tooltip": "Weights that are not safetensors are an error: pickles are never read."},
            ),
        },
    }


class DownloadAndLoadFlorence2Model(_Loader):
    """Loads a published Florence-2, and fetches it first if it is not there."""

    DESCRIPTION = (
        "Loads a Florence-2 from models/LLM. If it is not there, the same weights are fetched in the form that "
        "transformers' own classes load: Python code beside a model is never run."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        model = (list(MODELS), {"default": MODELS[0], "tooltip": "Kept in models/LLM under the last part of its name."})
        return _loader_inputs(model)

    def loadmodel(
        self,
        model: str,
        precision: str = "fp16",
        attention: str = "sdpa",
        lora: Any = None,
        convert_to_safetensors: bool = False,
    ) -> tuple[Florence]:
        """Give the model.

        Raises:
            ModelMissing, ModelCorrupt, ModelError: it cannot be fetched or loaded, or has only pickles.
            HubError: the Hub cannot be reached.
        """
        class_type = type(self).__name__
        try:
            return (_open(class_type, model, precision, attention, lora),)
        except ModelMissing:
            _fetch(class_type, model)
        return (_open(class_type, model, precision, attention, lora),)


class Florence2ModelLoader(_Loader):
    """Loads a Florence-2 that is in the model tree."""

    DESCRIPTION = (
        "Loads a Florence-2 from models/LLM, in the layout of transformers' own classes or in that of microsoft/*. "
        "Python code beside a model is never run."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _loader_inputs((_names(), {"tooltip": "A directory in models/LLM."}))

    @classmethod
    def VALIDATE_INPUTS(cls, model: Any = None) -> bool | str:
        """Take names that are not in the list: `loadmodel` says better than the list where the model should be."""
        return True if model is None or isinstance(model, str) else "the name of a directory is needed"

    def loadmodel(
        self,
        model: str,
        precision: str = "fp16",
        attention: str = "sdpa",
        lora: Any = None,
        convert_to_safetensors: bool = False,
    ) -> tuple[Florence]:
        """Give the model.

        Raises:
            ModelMissing, ModelCorrupt, ModelError: it is not there, cannot be loaded, or has only pickles.
        """
        return (_open(type(self).__name__, model, precision, attention, lora),)


class DownloadAndLoadFlorence2Lora:
    """Names an adapter for a Florence-2, and fetches it first if it is not there."""

    CATEGORY = _CATEGORY
    DESCRIPTION = "Takes a LoRA adapter from models/LLM, and fetches it if it is not there."
    FUNCTION = "loadmodel"
    RETURN_TYPES = ("PEFTLORA",)
    RETURN_NAMES = ("lora",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": (list(ADAPTERS), {"default": ADAPTERS[0], "tooltip": "Kept in models/LLM."})}}

    def loadmodel(self, model: str) -> tuple[Adapter]:
        """Give the adapter.

        Raises:
            ModelMissing, ModelCorrupt, ModelError: it cannot be fetched or read, or is of a kind that is not for us.
            HubError: the Hub cannot be reached.
        """
        from comfy_cpu_nodes.runtimes.florence import open_adapter

        hint = _fetch_hint(type(self).__name__, model)
        try:
            return (open_adapter(_directory(model), fetch=hint),)
        except ModelMissing:
            _fetch(type(self).__name__, model)
        return (open_adapter(_directory(model), fetch=hint),)


def _names() -> list[str]:
    """The directories that models may be in."""
    places = (place for place in host.models().places(_FOLDER) if place.is_dir())
    return sorted({entry.name for place in places for entry in place.iterdir() if entry.is_dir()})


def _directory(model: str) -> Path:
    """Where a model is or would be: under the last part of its name.

    Raises:
        NodeError: the name is none.
    """
    name = PurePosixPath(model).name
    if name in {"", ".."} or name != PureWindowsPath(name).name:
        raise host.node_error(f"model {model!r} is no name of a directory in models/{_FOLDER}")
    return host.models().path(f"{_FOLDER}/{name}")


def _open(class_type: str, model: str, precision: str, attention: str, adapter: Adapter | None) -> Florence:
    from comfy_cpu_nodes.runtimes.florence import open_florence

    folder = _directory(model)
    if attention == "flash_attention_2":
        host.warn("attention flash_attention_2 needs a GPU: sdpa is used instead")
    return open_florence(
        folder,
        name=f"{_FOLDER}/{folder.name}",
        fetch=_fetch_hint(class_type, model),
        precision=_precision(precision),
        attention="eager" if attention == "eager" else "sdpa",
        adapter=adapter,
    )


def _precision(wanted: str) -> Precision:
    from comfy_cpu_nodes.runtimes.florence import best_precision

    best = best_precision()
    if wanted == "fp32":
        return "f32"
    if wanted != best:
        slow = "a CPU computes slowly in it"
        ruled_out = "this CPU does not multiply it in hardware, or COMFY_CPU_PRECISION rules it out"
        host.warn(
            f"precision {wanted}: {slow if wanted == 'fp16' else ruled_out}; "
            f"{'fp32' if best == 'f32' else best} is used instead"
        )
    return best


def _known_model(class_type: str, model: str) -> tuple[ModelSpec | None, str]:
    """The model that the plugins know for a node's input, or None and what they say instead."""
    from comfy_cpu_core.needs import models_for_prompt
    from comfy_cpu_core.plugins import get_plugins
    from comfy_cpu_core.workflow import PromptNode

    for need in models_for_prompt([PromptNode("1", class_type, {"model": model})], get_plugins()):
        return need.spec, need.need.reason
    return None, ""


def _fetch_hint(class_type: str, model: str) -> str:
    """What to do if a model, or a part of it, is missing."""
    spec, reason = _known_model(class_type, model)
    if spec is not None:
        return host.fetch_hint(spec.id)
    return reason or f"put config.json, tokenizer.json and model.safetensors into models/{_FOLDER}/{model}"


def _fetch(class_type: str, model: str) -> None:
    """Fetch a model from where the plugins know it to be.

    Raises:
        ModelMissing: they know none.
        HubError, ModelCorrupt, ModelError: as `comfy_cpu_core.fetch.fetch_model`.
    """
    from comfy_cpu_core.fetch import Fetchers, fetch_model
    from comfy_cpu_core.plugins import get_plugins

    spec, _ = _known_model(class_type, model)
    if spec is None:
        raise ModelMissing(
            f"model {model} is not in the model tree {host.models().root}, and no plugin knows where to fetch it",
            remedy=_fetch_hint(class_type, model),
        )

    stopped: list[BaseException] = []

    def on_bytes(_target: str, _done: int, _total: int | None) -> None:
        try:
            host.check_interrupt()
        except host.interruptions() as error:
            stopped.append(error)
            # A ComfyUI's own exception would count as a failure of the connection.
            raise Interrupted("interrupted") from error

    try:
        fetch_model(
            spec, host.models(), Fetchers.of(get_plugins()), progress=on_bytes, checking=on_bytes, note=host.warn
        )
    except Interrupted:
        raise stopped[0] from None
