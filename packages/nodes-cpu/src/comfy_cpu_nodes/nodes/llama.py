"""Nodes that ask a language model. They fail closed: whatever goes wrong raises, and never reads as safe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_cpu_core.errors import ModelMissing, NodeError
from comfy_cpu_core.models import STATE_FOLDER
from comfy_cpu_nodes import host
from comfy_cpu_nodes.ops import forms
from comfy_cpu_nodes.ops.sampling import Sampling

if TYPE_CHECKING:
    pass

__all__ = [
    "LLM_FOLDERS",
    "LlamaHandle",
    "LocalJsonExtractor",
    "LocalLlmGenerate",
    "LocalLlmLoader",
    "MultiDomainSafetyClassifier",
]

#: Where the model tree keeps language models: packs do not agree on the spelling.
LLM_FOLDERS = ("llm", "LLM")

_DEFAULT_MODEL = "Meta-Llama-3.1-8B-Instruct-Q5_K_M.gguf"
_SUFFIX = ".gguf"

_CAPTION = ("STRING", {"default": "", "multiline": True, "tooltip": "The caption; data, never instructions."})
_MODEL_PATH = (
    "STRING",
    {
        "default": _DEFAULT_MODEL,
        "tooltip": "A GGUF file in models/llm or models/LLM. Of a path, only the file's name counts.",
    },
)
_N_CTX = (
    "INT",
    {
        "default": 4096,
        "min": 1024,
        "max": 8192,
        "step": 256,
        "tooltip": "How many tokens prompt and answer may have; memory is taken for those that are used.",
    },
)
_N_GPU_LAYERS = (
    "INT",
    {"default": -1, "min": -1, "max": 80, "step": 1, "tooltip": "Not used: everything runs on the CPU."},
)


def _temperature(tooltip: str) -> tuple[str, dict[str, Any]]:
    return "FLOAT", {"default": 0.1, "min": 0.0, "max": 1.0, "step": 0.05, "tooltip": tooltip}


class MultiDomainSafetyClassifier:
    """A language model rates a caption."""

    CATEGORY = "LLM/Local/Safety"
    DESCRIPTION = (
        "Rates a caption in five domains as SAFE, BORDERLINE or UNSAFE. The model does not write the answer: its "
        "probabilities for the three states are read for all domains at once. The confidence is the probability of the "
        "chosen state in the least certain domain. Of several captions the worst counts. Stops with an error if it "
        "cannot rate: it never calls SAFE what it has not read."
    )
    FUNCTION = "classify"
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("json",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"caption": _CAPTION, "model_path": _MODEL_PATH},
            "optional": {
                "temperature": _temperature("Not used: nothing is left to chance."),
                "max_new_tokens": (
                    "INT",
                    {
                        "default": 300,
                        "min": 64,
                        "max": 1024,
                        "step": 16,
                        "tooltip": "Not used: the answer has a fixed length.",
                    },
                ),
                "n_ctx": _N_CTX,
                "n_gpu_layers": _N_GPU_LAYERS,
            },
        }

    def classify(
        self,
        caption: Any,
        model_path: str = _DEFAULT_MODEL,
        temperature: float = 0.1,
        max_new_tokens: int = 300,
        n_ctx: int = 4096,
        n_gpu_layers: int = -1,
    ) -> tuple[str]:
        """Give the verdict as JSON, indented by two.

        Args:
            caption: one, or a list of them (of a batch).
            model_path: names the GGUF file.
            temperature, max_new_tokens, n_gpu_layers: not used.
            n_ctx: how many tokens prompt and caption may have.

        Raises:
            ModelMissing, ModelCorrupt, ModelError: the model or llama-cpp-python is not there, or does not work.
            NodeError: a caption is empty or no text, or the model does not answer the question.
            InputError: a caption is too long.
        """
        _report_unused(
            MultiDomainSafetyClassifier,
            {"temperature": temperature, "max_new_tokens": max_new_tokens, "n_gpu_layers": n_gpu_layers},
        )
        captions = _captions(caption)
        path, name = _find(model_path)
        from comfy_cpu_nodes.runtimes.llama import fill_in, form_tokens, lease_llama

        steps = host.progress(len(captions))
        verdicts = []
        with lease_llama(path, name=name) as model:
            tokens = form_tokens(model, forms.SAFETY_FORMS)
            for text in captions:
                answers = fill_in(model, tokens, forms.quoted(text), n_ctx=n_ctx, folder=_state_folder())
                try:
                    verdicts.append(forms.summarise(answers))
                except forms.Undecided as error:
                    raise _not_understood(name, error) from error
                steps.step()
        return (forms.worst(verdicts).to_json(),)


class LocalJsonExtractor:
    """A language model takes the facts out of a caption."""

    CATEGORY = "LLM/Local"
    DESCRIPTION = (
        "Says what a caption is about, what else is there, and whether it is sexual or violent, as JSON. The answer is "
        "always whole. Stops with an error if it cannot say: it never calls harmless what it has not read."
    )
    FUNCTION = "run"
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("json",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "caption": _CAPTION,
                "model_path": _MODEL_PATH,
                "subject_priority": (
                    ["auto", "product", "person"],
                    {"default": "product", "tooltip": "What the primary subject is where there are both."},
                ),
            },
            "optional": {
                "temperature": _temperature("Chance in the choice of words; the two flags are never left to chance."),
                "max_new_tokens": (
                    "INT",
                    {
                        "default": 192,
                        "min": 32,
                        "max": 1024,
                        "step": 16,
                        "tooltip": "How many tokens the subjects may have together; they are cut off there.",
                    },
                ),
                "n_ctx": _N_CTX,
                "n_gpu_layers": _N_GPU_LAYERS,
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**31 - 1, "tooltip": "Of chance."}),
            },
        }

    def run(
        self,
        caption: Any,
        model_path: str = _DEFAULT_MODEL,
        subject_priority: str = "product",
        temperature: float = 0.1,
        max_new_tokens: int = 192,
        n_ctx: int = 4096,
        n_gpu_layers: int = -1,
        seed: int = 0,
    ) -> tuple[str]:
        """Give the facts as compact JSON.

        Raises:
            ModelMissing, ModelCorrupt, ModelError: the model or llama-cpp-python is not there, or does not work.
            NodeError: the caption is empty, no text, or one of several; or the model does not answer the question.
            InputError: the caption is too long.
        """
        _report_unused(LocalJsonExtractor, {"n_gpu_layers": n_gpu_layers})
        text, *others = _captions(caption)
        if others:
            raise host.node_error(f"caption: one caption is needed, not {1 + len(others)}")
        path, name = _find(model_path)
        from comfy_cpu_nodes.runtimes.llama import PRIORITIES, extract_facts, lease_llama

        if subject_priority not in PRIORITIES:
            raise host.node_error(f"subject_priority {subject_priority!r} is none of {', '.join(PRIORITIES)}")
        steps = host.progress(1)
        with lease_llama(path, name=name) as model:
            try:
                facts = extract_facts(
                    model,
                    text,
                    priority=subject_priority,
                    sampling=Sampling(temperature=temperature),
                    seed=seed,
                    max_tokens=max_new_tokens,
                    n_ctx=n_ctx,
                )
            except forms.Undecided as error:
                raise _not_understood(name, error) from error
        steps.step()
        return (facts.to_json(),)


@dataclass(frozen=True)
class LlamaHandle:
    """What the loader hands on: which model to use, and how. The model itself is in the process's cache.

    Attributes:
        path: the file.
        name: its path inside the model tree.
        n_ctx: how many tokens prompt and answer may have.
        n_threads: 0 for what this process may use.
    """

    path: Path
    name: str
    n_ctx: int
    n_threads: int


class LocalLlmLoader:
    """Names a language model for other nodes."""

    CATEGORY = "LLM/Local"
    DESCRIPTION = "Loads a GGUF language model for the CPU. One copy of it serves every node of the process."
    FUNCTION = "load"
    RETURN_TYPES = ("LLM",)
    RETURN_NAMES = ("llm",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        found = sorted({name for folder in LLM_FOLDERS for name in host.models().files(folder, {_SUFFIX})})
        return {
            "required": {
                "model": (found or [_DEFAULT_MODEL], {"tooltip": "A GGUF file in models/llm or models/LLM."}),
                "n_ctx": (
                    "INT",
                    {
                        "default": 4096,
                        "min": 256,
                        "max": 131072,
                        "step": 256,
                        "tooltip": "How many tokens prompt and answer may have; memory is taken for those that are used.",
                    },
                ),
                "n_gpu_layers": _N_GPU_LAYERS,
                "n_threads": (
                    "INT",
                    {"default": 0, "min": 0, "max": 256, "step": 1, "tooltip": "0: as many as this process may use."},
                ),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, model: Any = None) -> bool | str:
        """Any path whose last part names a GGUF file will do, whatever machine the workflow comes from."""
        return True if model is None or _is_gguf(model) else f"model {model!r} names no {_SUFFIX} file"

    def load(
        self, model: str = _DEFAULT_MODEL, n_ctx: int = 4096, n_gpu_layers: int = -1, n_threads: int = 0
    ) -> tuple[LlamaHandle]:
        """Load the model, so that what is wrong with it shows here, and give a handle.

        Raises:
            ModelMissing, ModelCorrupt, ModelError: the model or llama-cpp-python is not there, or does not work.
        """
        _report_unused(LocalLlmLoader, {"n_gpu_layers": n_gpu_layers})
        path, name = _find(model)
        from comfy_cpu_nodes.runtimes.llama import lease_llama

        with lease_llama(path, name=name, threads=n_threads):
            return (LlamaHandle(path, name, n_ctx, n_threads),)


class LocalLlmGenerate:
    """A language model writes a text."""

    CATEGORY = "LLM/Local"
    DESCRIPTION = "Answers a prompt with a language model, in the model's own chat format."
    FUNCTION = "generate"
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("text",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        def number(default: float, high: float, step: float, tooltip: str) -> tuple[str, dict[str, Any]]:
            return "FLOAT", {"default": default, "min": 0.0, "max": high, "step": step, "tooltip": tooltip}

        def whole(default: int, low: int, high: int, tooltip: str) -> tuple[str, dict[str, Any]]:
            return "INT", {"default": default, "min": low, "max": high, "tooltip": tooltip}

        return {
            "required": {
                "llm": ("LLM", {"tooltip": "From the loader."}),
                "prompt": ("STRING", {"default": "", "multiline": True, "tooltip": "What to answer."}),
            },
            "optional": {
                "system_prompt": (
                    "STRING",
                    {"default": "You are a helpful assistant.", "multiline": True, "tooltip": "How to answer."},
                ),
                "max_new_tokens": whole(256, 1, 8192, "How long the answer may be."),
                "temperature": number(0.7, 2.0, 0.05, "0 always takes the most likely word."),
                "top_k": whole(40, 0, 1000, "Only so many of the most likely tokens; 0 for all."),
                "top_p": number(0.95, 1.0, 0.01, "Only the most likely tokens with this probability together."),
                "min_p": number(0.05, 1.0, 0.01, "Only tokens at least this fraction as likely as the most likely."),
                "repeat_penalty": number(1.1, 2.0, 0.05, "Above 1, words are repeated less."),
                "seed": (
                    "INT",
                    {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True, "tooltip": "Of chance."},
                ),
            },
        }

    def generate(
        self,
        llm: LlamaHandle,
        prompt: str,
        system_prompt: str = "You are a helpful assistant.",
        max_new_tokens: int = 256,
        temperature: float = 0.7,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        repeat_penalty: float = 1.1,
        seed: int = 0,
    ) -> tuple[str]:
        """Give the answer.

        Raises:
            ModelMissing, ModelCorrupt, ModelError: the model or llama-cpp-python is not there, or does not work.
            NodeError: `llm` is not from our loader, or the prompt is empty.
            InputError: the prompt is too long.
        """
        if not isinstance(llm, LlamaHandle):
            raise host.node_error(
                f"llm: a {type(llm).__name__} is no model of ours", remedy="connect LocalLLMLoader_AdvV2"
            )
        if not prompt.strip():
            raise host.node_error("prompt is empty")
        from comfy_cpu_nodes.runtimes.llama import Writer, chat_prompt, lease_llama, write

        sampling = Sampling(temperature, top_k, top_p, min_p, max(repeat_penalty, 0.01))
        steps = host.progress(max_new_tokens)
        with lease_llama(llm.path, name=llm.name, threads=llm.n_threads) as model:
            writer = Writer(
                model,
                chat_prompt(model, system_prompt, prompt),
                room=max_new_tokens,
                n_ctx=llm.n_ctx,
                sampling=sampling,
                seed=seed,
                threads=llm.n_threads,
            )
            return (write(writer, max_new_tokens, steps.step).strip(),)


def _is_gguf(named: Any) -> bool:
    return isinstance(named, str) and named.lower().endswith(_SUFFIX)


def _find(named: Any) -> tuple[Path, str]:
    """The model file that a workflow names, and its path inside the model tree."""
    tree = host.models()
    if not _is_gguf(named):
        raise host.node_error(f"model {named!r} names no {_SUFFIX} file")
    path = tree.find_by_name(named, LLM_FOLDERS)
    if path is None:
        name = named.replace("\\", "/").rpartition("/")[2]
        raise ModelMissing(
            f"model file {name} is neither in llm nor in LLM of the model tree {tree.root}",
            remedy="fetch it with `comfy-cpu models fetch --workflow FILE`, or put it there",
        )
    return path, tree.target_of(path)


def _state_folder() -> Path:
    """Where the model tree keeps what models remember of constant prompts."""
    return host.models().root / STATE_FOLDER / "llama"


def _captions(caption: Any) -> list[str]:
    """One caption or several; each must say something."""
    captions = list(caption) if isinstance(caption, list | tuple) else [caption]
    if not captions:
        raise host.node_error("caption: there is none")
    for text in captions:
        if not isinstance(text, str):
            raise host.node_error(f"caption: text is needed, not {type(text).__name__}")
        if not text.strip():
            raise host.node_error(
                "caption is empty: there is nothing to look at", remedy="look at what made the caption"
            )
    return captions


def _not_understood(name: str, error: forms.Undecided) -> NodeError:
    return host.node_error(
        f"the caption cannot be rated with {name}: {error}",
        remedy="use an instruction-tuned language model, such as Llama 3.1 8B Instruct",
    )


def _report_unused(node: type, given: Mapping[str, Any]) -> None:
    """Say which inputs were set to something, and make no difference."""
    declared = node.INPUT_TYPES()  # type: ignore[attr-defined]
    defaults = {name: spec[1].get("default") for section in declared.values() for name, spec in section.items()}
    unused = [f"{name}={value}" for name, value in given.items() if value != defaults[name]]
    # 0 GPU layers is what a CPU does anyway.
    unused = [text for text in unused if text != "n_gpu_layers=0"]
    if unused:
        host.warn(f"{', '.join(unused)}: not used, it makes no difference on a CPU here")
