"""The main job, end to end: a workflow made for CUDA and a photo go in, the cut-out picture comes out."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PHOTO = ROOT / "examples" / "astronaut.jpg"
WORKFLOWS = ROOT / "examples" / "workflows"
REAL_WORKFLOW = WORKFLOWS / "BG_remove_BEN2_simple_2nd.json"


def assert_cut_out(path: Path, size: tuple[int, int]) -> None:
    with Image.open(path) as picture:
        assert picture.mode == "RGBA"
        assert picture.size == size
        assert picture.getchannel("A").getextrema() == (0, 255)


def test_the_real_workflow_runs_unchanged(cli: Any, stand_in_models: Path, tmp_path: Path) -> None:
    answer = cli(
        "run", REAL_WORKFLOW, "--input", f"1.image={PHOTO}", "--models", stand_in_models,
        "--output", tmp_path / "out", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    result = answer.json()
    assert result["status"] == "completed"
    (output,) = result["outputs"]
    assert_cut_out(Path(output["path"]), (512, 512))
    assert output["folder"] == "temp", "the workflow's SaveImageNoMetadata is bypassed: its only output is a preview"
    assert [(c["node_id"], c["input"], c["old"], c["new"]) for c in result["changes"]["changes"]] == [
        ("4", "provider", "CUDA", "CPU")
    ]
    assert result["stand_in"] is True
    assert "stand-in" in answer.err.lower()


def test_convert_lists_every_change(cli: Any) -> None:
    answer = cli("convert", REAL_WORKFLOW, "--json")
    assert answer.code == 0, answer.err
    (change,) = answer.json()["report"]["changes"]
    assert {key: change[key] for key in ("node_id", "input", "old", "new")} == {
        "node_id": "4",
        "input": "provider",
        "old": "CUDA",
        "new": "CPU",
    }
    assert change["reason"]


def test_convert_names_the_classes_that_nobody_knows(cli: Any, tmp_path: Path) -> None:
    document = json.loads(REAL_WORKFLOW.read_text())
    next(node for node in document["nodes"] if node["id"] == 4)["type"] = "SomebodysNode"
    workflow = tmp_path / "workflow.json"
    workflow.write_text(json.dumps(document))
    answer = cli("convert", workflow, "--json")
    assert answer.code == 3
    assert [(e["node_id"], e["class_type"]) for e in answer.json()["report"]["unknown"]] == [("4", "SomebodysNode")]


def test_the_converted_workflow_can_be_run_again(cli: Any, stand_in_models: Path, tmp_path: Path) -> None:
    converted = tmp_path / "converted.json"
    assert cli("convert", REAL_WORKFLOW, "--output", converted).code == 0
    assert json.loads(converted.read_text())["4"]["inputs"]["provider"] == "CPU"
    answer = cli(
        "run", converted, "-i", f"1.image={PHOTO}", "--models", stand_in_models, "-o", tmp_path / "o", "--json"
    )
    assert answer.code == 0, answer.err
    assert answer.json()["changes"]["changes"] == []


def test_the_same_run_gives_the_same_bytes(cli: Any, stand_in_models: Path, tmp_path: Path) -> None:
    hashes = []
    for number in (1, 2):
        answer = cli(
            "run", REAL_WORKFLOW, "-i", f"1.image={PHOTO}", "--models", stand_in_models,
            "-o", tmp_path / str(number), "--json",
        )  # fmt: skip
        hashes.append([output["sha256"] for output in answer.json()["outputs"]])
    assert hashes[0] == hashes[1]


def test_no_torch_is_imported(run_python: Any, stand_in_models: Path) -> None:
    program = """
import sys
from comfy_cpu_client import Client
with Client("embedded", models=sys.argv[1]) as client:
    result = client.run(sys.argv[2], inputs={"1.image": sys.argv[3]})
assert result.ok, result.errors
assert len(result.images) == 1
print("torch" in sys.modules, sorted(m for m in sys.modules if m.startswith("transformers")))
"""
    done = run_python(program, stand_in_models, REAL_WORKFLOW, PHOTO)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False []"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The demo's files, made by a fresh process that reaches no Hub."""
    import os

    home = tmp_path_factory.mktemp("demo")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("COMFY_CPU_", "HF_"))}
    environment |= {"XDG_DATA_HOME": str(home), "HF_HOME": str(home), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py", "--output", home / "out"],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        cwd=home,
    )
    return done, home / "out"


def test_the_demo_writes_its_four_files(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, out = demo
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {"cutout.png", "mask.png", "result.json", "report.html"}
    assert_cut_out(out / "cutout.png", (512, 512))
    with Image.open(out / "mask.png") as mask:
        assert mask.size == (512, 512)


def test_the_demo_says_loudly_that_it_used_a_stand_in(
    demo: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, out = demo
    assert "STAND-IN" in done.stderr
    result = json.loads((out / "result.json").read_text())
    assert result["stand_in"] is True
    used = {model["name"]: model["stand_in"] for model in result["models"]}
    assert used["ben2_onnx/BEN2_Base.onnx"] is True
    assert [stand_in for name, stand_in in used.items() if "320n" in name] == [False], "NudeNet's weights are real"
    assert "Not the real model" in (out / "report.html").read_text()


def test_the_demo_page_shows_the_whole_run(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, out = demo
    page = (out / "report.html").read_text()
    assert page.count("<img ") == 3
    assert "http://" not in page
    assert "https://" not in page
    for text in ("CUDA", "provider", "BEN2_ONNX_RemoveBg", "is_nsfw", "NudeNet", "openvino"):
        assert text in page


def test_the_demo_checks_the_photo_with_nudenet(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, out = demo
    text = html.unescape((out / "report.html").read_text())
    verdict = json.loads(text[text.index("<pre>") + 5 : text.index("</pre>")])
    assert verdict["model"] == "NudeNet"
    assert verdict["is_nsfw"] is False
    assert verdict["all_detections_count"] >= 1, "NudeNet's real weights see the face"
