from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_core.context import RunContext
from comfy_cpu_core.errors import InputError, ModelMissing, NodeError
from comfy_cpu_core.results import Progress
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_nodes.nodes.llama import (
    LocalJsonExtractor,
    LocalLlmGenerate,
    LocalLlmLoader,
    MultiDomainSafetyClassifier,
)
from comfy_cpu_nodes.ops.verdicts import DOMAINS, read_classification, read_facts
from comfy_cpu_nodes.runtimes import loaded_models
from comfy_cpu_nodes.runtimes.llama import LlamaModel
from comfy_cpu_nodes.testing_llama import write_llama_stand_in

MODEL = "Meta-Llama-3.1-8B-Instruct-Q5_K_M.gguf"
WINDOWS = f"C:/Users/genfp/AI_avatar/Comfy_vanila/ComfyUI/models/llm/{MODEL}"


def classify(caption: Any, model_path: str = WINDOWS, **options: Any) -> dict[str, Any]:
    (text,) = MultiDomainSafetyClassifier().classify(caption, model_path, **options)
    read_classification(text)
    return json.loads(text)


@pytest.mark.usefixtures("llama_cpp", "tree")
class TestClassifier:
    def test_a_caption_is_rated(self) -> None:
        verdict = classify("A naked man on a boat, and a boxing match.")
        assert list(verdict) == ["classification", "reasons", "confidence"]
        assert verdict["classification"] == {
            "sexual": "UNSAFE",
            "violence": "BORDERLINE",
            "hate": "SAFE",
            "disturbing": "SAFE",
            "drugs": "SAFE",
        }
        assert [reason.partition(":")[0] for reason in verdict["reasons"]] == ["sexual", "violence"]
        assert 0.9 < verdict["confidence"] <= 1

    def test_the_answer_is_indented_by_two(self) -> None:
        (text,) = MultiDomainSafetyClassifier().classify("a boat", WINDOWS)
        assert text.startswith('{\n  "classification": {\n    "sexual": "SAFE",\n')
        assert json.dumps(json.loads(text), indent=2) == text

    @pytest.mark.parametrize(
        "model_path",
        [MODEL, WINDOWS, WINDOWS.replace("/", "\\"), f"/workspace/models/LLM/{MODEL}", f"\\\\server\\share\\{MODEL}"],
    )
    def test_of_a_path_only_the_name_counts(self, model_path: str) -> None:
        assert classify("a boat", model_path)["classification"]["sexual"] == "SAFE"

    def test_of_a_batch_the_worst_counts(self, events: list[Progress]) -> None:
        verdict = classify(["a boat", "a stabbing", "a scar"])
        assert verdict["classification"] == {
            **dict.fromkeys(DOMAINS, "SAFE"),
            "violence": "UNSAFE",
            "disturbing": "BORDERLINE",
        }
        assert verdict["reasons"][1].startswith("caption 2: violence: UNSAFE")
        assert [event.value for event in events if event.kind == "step"] == [1, 2, 3]

    def test_one_model_serves_every_n_ctx(self) -> None:
        for n_ctx in (2048, 4096, 8192):
            classify("a boat", n_ctx=n_ctx)
        assert len(loaded_models()) == 1

    def test_the_state_of_the_prompt_is_kept_in_the_model_tree(self, tree: ModelTree) -> None:
        classify("a boat")
        (kept,) = (tree.root / ".comfy-cpu" / "llama").iterdir()
        assert kept.name.startswith("Meta-Llama-3.1-8B-Instruct-Q5_K_M-safety-json-")

    def test_a_tree_that_cannot_be_written_to_will_do(self, tree: ModelTree) -> None:
        (tree.root / ".comfy-cpu").touch()
        assert classify("a stabbing")["classification"]["violence"] == "UNSAFE"

    def test_what_is_not_used_is_reported(self, run: RunContext) -> None:
        classify("a boat", temperature=0.9, max_new_tokens=300, n_gpu_layers=35)
        assert "temperature=0.9, n_gpu_layers=35: not used, it makes no difference on a CPU here" in run.warnings

    @pytest.mark.parametrize("n_gpu_layers", [-1, 0])
    def test_what_nobody_set_is_not_reported(self, run: RunContext, n_gpu_layers: int) -> None:
        classify("a boat", n_gpu_layers=n_gpu_layers)
        assert not [warning for warning in run.warnings if "not used" in warning]


@pytest.mark.usefixtures("llama_cpp", "tree")
class TestExtractor:
    def test_facts_are_compact_json(self) -> None:
        (text,) = LocalJsonExtractor().run("a naked man", WINDOWS)
        assert text == '{"primary_subject":"thing","secondary_subjects":[],"nsfw":true,"violence":false}'
        read_facts(text)

    def test_only_one_caption(self) -> None:
        assert LocalJsonExtractor().run(["a boat"], WINDOWS) == LocalJsonExtractor().run("a boat", WINDOWS)
        with pytest.raises(NodeError, match="one caption is needed, not 2"):
            LocalJsonExtractor().run(["a boat", "a naked man"], WINDOWS)

    def test_an_unknown_priority(self) -> None:
        with pytest.raises(NodeError, match="subject_priority 'cat' is none of auto, product, person"):
            LocalJsonExtractor().run("a boat", WINDOWS, "cat")

    def test_a_caption_that_is_too_long(self) -> None:
        with pytest.raises(InputError, match="too long"):
            LocalJsonExtractor().run("a boat " * 1000, WINDOWS, n_ctx=1024)


@pytest.mark.usefixtures("llama_cpp", "tree")
class TestLoaderAndGenerate:
    def test_a_prompt_is_answered(self, run: RunContext, events: list[Progress]) -> None:
        (handle,) = LocalLlmLoader().load(WINDOWS, n_ctx=2048, n_gpu_layers=20, n_threads=1)
        assert (handle.name, handle.n_ctx, handle.n_threads) == (f"llm/{MODEL}", 2048, 1)
        assert LocalLlmGenerate().generate(handle, "What is it?", temperature=0.0) == ("thing",)
        assert [event.total for event in events if event.kind == "step"] == [256, 256]
        assert run.model_uses[0].threads == 1
        assert "n_gpu_layers=20: not used, it makes no difference on a CPU here" in run.warnings

    def test_the_models_that_are_there_are_listed(self, tree: ModelTree) -> None:
        other = tree.path("LLM/sub/other.gguf")
        other.parent.mkdir(parents=True)
        other.touch()
        (choices, _) = LocalLlmLoader.INPUT_TYPES()["required"]["model"]
        assert choices == sorted([MODEL, "sub/other.gguf"])

    @pytest.mark.parametrize(("model", "valid"), [(MODEL, True), (WINDOWS, True), ("a.bin", False), (None, True)])
    def test_which_names_are_valid(self, model: str | None, valid: bool) -> None:
        assert (LocalLlmLoader.VALIDATE_INPUTS(model) is True) is valid

    def test_an_empty_prompt(self) -> None:
        (handle,) = LocalLlmLoader().load(MODEL)
        with pytest.raises(NodeError, match="prompt is empty"):
            LocalLlmGenerate().generate(handle, "  ")

    def test_a_handle_of_another_pack(self) -> None:
        with pytest.raises(NodeError, match="a dict is no model of ours"):
            LocalLlmGenerate().generate({"path": MODEL}, "hello")  # type: ignore[arg-type]

    def test_the_handle_outlives_the_model_in_memory(self) -> None:
        from comfy_cpu_nodes.runtimes import release_models

        (handle,) = LocalLlmLoader().load(MODEL)
        release_models(aggressive=True)
        assert LocalLlmGenerate().generate(handle, "What is it?", temperature=0.0) == ("thing",)


def test_a_missing_model_says_how_to_get_it(run: RunContext) -> None:
    for ask in (
        lambda: MultiDomainSafetyClassifier().classify("a boat", WINDOWS),
        lambda: LocalJsonExtractor().run("a boat", WINDOWS),
        lambda: LocalLlmLoader().load(WINDOWS),
    ):
        with pytest.raises(ModelMissing, match=f"model file {MODEL} is neither in llm nor in LLM") as error:
            ask()
        assert "comfy-cpu models fetch" in (error.value.remedy or "")
        assert "genfp" not in str(error.value), "the path of the other machine says nothing here"


def test_the_list_without_any_model(run: RunContext) -> None:
    (choices, _) = LocalLlmLoader.INPUT_TYPES()["required"]["model"]
    assert choices == [MODEL]


def test_a_file_under_LLM_is_found(llama_cpp: None, run: RunContext) -> None:
    place = run.models.path("LLM/deep/own.GGUF")
    place.parent.mkdir(parents=True)
    write_llama_stand_in(place)
    assert classify("a swastika", "own.GGUF")["classification"]["hate"] == "UNSAFE"
    assert run.model_uses[0].name == "LLM/deep/own.GGUF"


def test_a_model_that_knows_nothing_is_not_believed(llama_cpp: None, run: RunContext) -> None:
    place = run.models.path(f"llm/{MODEL}")
    place.parent.mkdir(parents=True)
    write_llama_stand_in(place, random=1)
    with pytest.raises(NodeError, match=r"the caption cannot be rated with llm/.*: asked about 'sexual'") as error:
        classify("a boat")
    assert "instruction-tuned" in (error.value.remedy or "")
    assert error.value.node_id == "25"


def test_the_model_is_used_only_while_it_is_held(
    llama_cpp: None, run: RunContext, tree: ModelTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two classifiers at once do not mix their answers."""
    from concurrent.futures import ThreadPoolExecutor

    from comfy_cpu_core.context import use_run

    def rate(caption: str) -> dict[str, Any]:
        with use_run(run):
            return classify(caption)["classification"]

    captions = ["a boat", "a naked man", "a stabbing", "cocaine"] * 4
    with ThreadPoolExecutor(4) as threads:
        verdicts = list(threads.map(rate, captions))
    expected = {"a boat": None, "a naked man": "sexual", "a stabbing": "violence", "cocaine": "drugs"}
    for caption, verdict in zip(captions, verdicts, strict=True):
        assert {domain for domain, state in verdict.items() if state != "SAFE"} == {expected[caption]} - {None}


def test_importing_the_nodes_loads_no_library() -> None:
    program = "import sys, comfy_cpu_nodes.nodes.llama, comfy_cpu_nodes.nodes.gates; print('llama_cpp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_the_stand_in_is_marked(llama_cpp: None, stand_in: Path) -> None:
    model = LlamaModel(stand_in)
    assert model.stand_in
    model.close()
