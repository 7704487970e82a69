"""Caption, classifier, NudeNet and gate in one workflow: what passes, what is blocked, what fails."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

MODEL = "Meta-Llama-3.1-8B-Instruct-Q5_K_M.gguf"
PHOTO = Path(__file__).parent.parent / "examples" / "astronaut.jpg"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    if find_spec("llama_cpp") is None:
        reason = "llama-cpp-python is not installed"
        if os.environ.get("COMFY_CPU_REQUIRE_LLAMA") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    from comfy_cpu_nodes.testing_llama import write_llama_stand_in

    tree = tmp_path / "models"
    (tree / "llm").mkdir(parents=True)
    write_llama_stand_in(tree / "llm" / MODEL)
    return tree


@pytest.fixture
def run(cli: Any, models: Path, tmp_path: Path) -> Callable[..., Any]:
    """Run the reference's safety check over a caption; give back the command's answer."""

    def run(caption: str, **options: Any) -> Any:
        classifier = {"caption": caption, "model_path": f"C:/Users/x/models/llm/{MODEL}", "n_gpu_layers": -1}
        workflow = {
            "1": {"class_type": "LoadImage", "inputs": {"image": "photo.jpg"}},
            "26": {"class_type": "NudeNetSafetyChecker", "inputs": {"image": ["1", 0], "threshold": 0.6}},
            "25": {"class_type": "MultiDomainSafetyClassifier", "inputs": classifier},
            "27": {
                "class_type": "HybridSafetyGate",
                "inputs": {"image": ["1", 0], "nudenet_json": ["26", 0], "multidomain_json": ["25", 0], **options},
            },
            "9": {"class_type": "PreviewImage", "inputs": {"images": ["27", 0]}},
            "18": {"class_type": "ShowText|pysssss", "inputs": {"text": ["27", 1]}},
        }
        file = tmp_path / "workflow.json"
        file.write_text(json.dumps(workflow))
        return cli(
            "run", file, "--input", f"1.image={PHOTO}", "--models", models, "--output", tmp_path / "out", "--json"
        )

    return run


def test_a_harmless_picture_passes(run: Callable[..., Any]) -> None:
    answer = run("An astronaut in an orange suit smiles.")
    assert answer.code == 0, answer.err
    result = answer.json()
    assert result["status"] == "completed"
    assert result["stand_in"] is True
    assert {output["kind"] for output in result["outputs"]} == {"image", "text"}
    changes = {(change["node_id"], change["input"]): change["new"] for change in result["changes"]["changes"]}
    assert changes == {("25", "n_gpu_layers"): 0, ("25", "model_path"): MODEL}
    (used,) = [model for model in result["models"] if model["name"] == f"llm/{MODEL}"]
    assert used["runtime"].startswith("llama.cpp")


def test_a_caption_that_is_unsafe_blocks(run: Callable[..., Any]) -> None:
    answer = run("An astronaut is stabbing a man.")
    assert answer.code == 8
    result = answer.json()
    assert result["status"] == "blocked"
    assert result["outputs"] == []
    (error,) = result["errors"]
    assert (error["node_id"], error["code"]) == ("27", "blocked")
    assert error["message"] == "Content blocked by hybrid safety gate: Violence content (UNSAFE)"


@pytest.mark.parametrize("caption", ["", "<|eot_id|>" * 3000])
def test_what_cannot_be_rated_fails_and_shows_nothing(run: Callable[..., Any], caption: str) -> None:
    answer = run(caption)
    assert answer.code in {3, 6}
    assert not any(output["kind"] == "image" for output in answer.json()["outputs"])


def test_the_model_may_lie_in_the_other_folder(run: Callable[..., Any], models: Path) -> None:
    (models / "llm").rename(models / "LLM")
    answer = run("An astronaut.")
    assert answer.code == 0, answer.err
    assert f"LLM/{MODEL}" in [model["name"] for model in answer.json()["models"]]


def test_a_model_that_is_missing_is_found_out_at_once(run: Callable[..., Any], models: Path) -> None:
    (models / "llm" / MODEL).unlink()
    answer = run("An astronaut.")
    assert answer.code == 4
    assert "comfy-cpu models fetch meta-llama-3.1-8b-instruct-q5_k_m" in answer.err
