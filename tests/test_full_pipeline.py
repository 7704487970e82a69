"""The reference's whole pipeline, its workflow unchanged: caption, language model, NudeNet, gate, BEN2."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pipeline_models import GGUF, write_pipeline_models

ROOT = Path(__file__).parent.parent
WORKFLOW = ROOT / "examples" / "workflows" / "BG_remove_BEN2_simple_1st.json"
PHOTO = ROOT / "examples" / "astronaut.jpg"

for _module, _variable in (("torch", "COMFY_CPU_REQUIRE_TORCH"), ("llama_cpp", "COMFY_CPU_REQUIRE_LLAMA")):
    if find_spec(_module) is None and os.environ.get(_variable) != "1":
        pytest.skip(f"the full pipeline needs {_module}, which is not installed", allow_module_level=True)


def run(cli: Any, models: Path, output: Path) -> Any:
    return cli("run", WORKFLOW, "-i", f"1.image={PHOTO}", "--models", models, "-o", output, "--json")


def test_a_harmless_picture_is_cut_out(cli: Any, stand_in_models: Path, tmp_path: Path) -> None:
    models = write_pipeline_models(shutil.copytree(stand_in_models, tmp_path / "models"), "An astronaut smiles.")
    answer = run(cli, models, tmp_path / "out")
    assert answer.code == 0, answer.err
    result = answer.json()
    texts = [Path(o["path"]).read_text() for o in result["outputs"] if o["kind"] == "text"]
    assert any("astronaut smiles" in text for text in texts)
    assert any('"violence": "SAFE"' in text for text in texts)
    (picture,) = [Path(o["path"]) for o in result["outputs"] if o["kind"] == "image"]
    with Image.open(picture) as image:
        assert (image.mode, image.size) == ("RGBA", (512, 512))
        assert image.getchannel("A").getextrema() == (0, 255)
    changed = {(change["node_id"], change["input"]) for change in result["changes"]["changes"]}
    assert changed >= {("4", "provider"), ("15", "precision"), ("25", "n_gpu_layers"), ("25", "model_path")}
    assert result["changes"]["unknown"] == []
    assert len(result["models"]) == 4


def test_what_the_caption_gives_away_is_blocked(cli: Any, stand_in_models: Path, tmp_path: Path) -> None:
    models = write_pipeline_models(
        shutil.copytree(stand_in_models, tmp_path / "models"), "A man is stabbing an astronaut."
    )
    answer = run(cli, models, tmp_path / "out")
    assert answer.code == 8, answer.err
    result = answer.json()
    assert result["status"] == "blocked"
    assert result["errors"][0]["message"].startswith("Content blocked by hybrid safety gate: ")
    assert result["outputs"] == []
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("missing", [f"llm/{GGUF}", "LLM/Florence-2-base", "ben2_onnx"])
def test_no_model_no_picture(missing: str, cli: Any, stand_in_models: Path, tmp_path: Path) -> None:
    models = write_pipeline_models(shutil.copytree(stand_in_models, tmp_path / "models"), "An astronaut smiles.")
    gone = models / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    answer = run(cli, models, tmp_path / "out")
    assert answer.code == 4
    assert len(answer.error_lines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_conversion_is_complete(cli: Any) -> None:
    answer = cli("convert", WORKFLOW, "--json")
    assert answer.code == 0, answer.err
    report = answer.json()["report"]
    assert report["unknown"] == []
    assert report["cannot_run"] == []
