"""The same prompt gives the same pixels in ComfyUI and in the engine, from every node of ours that is deterministic."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfyui_server import Server, Workbench
from PIL import Image
from pipeline_models import write_pipeline_models

from comfy_cpu_client import Client
from comfy_cpu_core.results import Output
from comfy_cpu_nodes.nodes import NODES

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / "examples" / "workflows"
PHOTO = ROOT / "examples" / "astronaut.jpg"

Prompt = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def engine(model_tree: Path) -> Iterator[Client]:
    with Client("embedded", models=model_tree) as client:
        yield client


@pytest.fixture(scope="module")
def same_pillow(workbench: Workbench) -> bool:
    """Whether both write PNG with the same library: only then can files be the same and not just pixels."""
    return workbench.distributions()["pillow"] == metadata.version("pillow")


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)


@dataclass
class Pair:
    """One picture, from ComfyUI and from the engine."""

    node_id: str
    theirs: bytes
    ours: bytes

    def difference(self) -> int:
        """How far the worst pixel is off, in 1/255."""
        theirs, ours = pixels(self.theirs), pixels(self.ours)
        assert theirs.shape == ours.shape
        return int(np.abs(theirs.astype(int) - ours.astype(int)).max())


@pytest.fixture
def both(server: Server, engine: Client, photo: str) -> Callable[..., tuple[list[Pair], dict[str, Any], list[Output]]]:
    """Run a prompt on both: pairs of pictures, what else ComfyUI showed, what else the engine gave."""

    def run(prompt: Prompt) -> tuple[list[Pair], dict[str, Any], list[Output]]:
        theirs = server.run(prompt)
        assert theirs.ending == "executing", theirs.error
        loads = [i for i, node in prompt.items() if node["class_type"] == "LoadImage"]
        ours = engine.run(prompt, inputs={f"{i}.image": PHOTO for i in loads})
        assert ours.ok, ours.errors
        pairs = []
        for node_id in dict.fromkeys(output.node_id for output in ours.images):
            pictures = [output for output in ours.images if output.node_id == node_id]
            shown = theirs.outputs[node_id]["images"]
            assert len(shown) == len(pictures)
            for picture, item in zip(pictures, shown, strict=True):
                assert (picture.folder, picture.subfolder) == (item["type"], item["subfolder"])
                pairs.append(Pair(node_id, server.picture(item), picture.data))
        rest = {i: shown for i, shown in theirs.outputs.items() if "images" not in shown}
        return pairs, rest, [output for output in ours.outputs if output.kind != "image"]

    return run


def shown_texts(rest: dict[str, Any]) -> dict[str, list[str]]:
    """What ComfyUI showed as text, by node."""
    return {node_id: shown["text"] for node_id, shown in rest.items() if "text" in shown}


# --- the shared workflows -------------------------------------------------------------------------------------------


def converted(cli: Any, workflow: Path, photo: str, tmp_path: Path) -> Prompt:
    """What `comfy-cpu convert` makes of a workflow that was saved in ComfyUI, with our photo."""
    target = tmp_path / "converted.json"
    answer = cli("convert", workflow, "--output", target)
    assert answer.code == 0, answer.err
    prompt: Prompt = json.loads(target.read_text())
    for node in prompt.values():
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = photo
    return prompt


@pytest.mark.parametrize("name", ["BG_remove_BEN2_simple_2nd", "background_removal"])
def test_a_shared_workflow_gives_the_same_bytes(
    name: str, cli: Any, both: Any, photo: str, tmp_path: Path, same_pillow: bool
) -> None:
    prompt = converted(cli, WORKFLOWS / f"{name}.json", photo, tmp_path)
    assert {node["inputs"].get("provider", "CPU") for node in prompt.values()} == {"CPU"}
    pairs, rest, texts = both(prompt)
    assert pairs
    for pair in pairs:
        assert pixels(pair.theirs).tobytes() == pixels(pair.ours).tobytes(), prompt[pair.node_id]["class_type"]
        if same_pillow:
            assert pair.theirs == pair.ours, "the files too"
    assert any(pixels(pair.ours).ndim == 3 and pixels(pair.ours).shape[2] == 4 for pair in pairs), "a cut-out"
    assert shown_texts(rest) == {output.node_id: [output.text] for output in texts}
    print(f"{name}: {len(pairs)} pictures, {len(texts)} texts the same, files too: {same_pillow}")


PIPELINE = "BG_remove_BEN2_simple_1st"


@pytest.fixture(scope="module")
def captioned(workbench: Workbench, model_tree: Path) -> Callable[[str], None]:
    """Put models in place with which both sides caption any picture so."""
    if missing := [module for module in ("torch", "llama_cpp") if find_spec(module) is None]:
        pytest.skip(f"the whole pipeline needs {' and '.join(missing)}, not installed here")

    def place(caption: str) -> None:
        write_pipeline_models(model_tree, caption)
        # The language model lies where only extra_model_paths.yaml finds it.
        for folder, place in (("LLM", "models/LLM"), ("llm", "disk/words")):
            shutil.rmtree(workbench.root / place, ignore_errors=True)
            shutil.copytree(model_tree / folder, workbench.root / place)

    return place


def test_the_whole_pipeline_gives_the_same_bytes(
    captioned: Callable[[str], None], cli: Any, both: Any, photo: str, tmp_path: Path
) -> None:
    captioned("An astronaut smiles.")
    prompt = converted(cli, WORKFLOWS / f"{PIPELINE}.json", photo, tmp_path)
    pairs, rest, texts = both(prompt)
    (pair,) = pairs
    assert pixels(pair.theirs).tobytes() == pixels(pair.ours).tobytes()
    assert pixels(pair.ours).shape == (512, 512, 4)
    shown = shown_texts(rest)
    assert shown == {output.node_id: [output.text] for output in texts}
    assert any("astronaut smiles" in text for (text,) in shown.values())


def test_the_whole_pipeline_blocks_in_comfyui_too(
    captioned: Callable[[str], None], cli: Any, server: Server, engine: Client, photo: str, tmp_path: Path
) -> None:
    captioned("A man is stabbing an astronaut.")
    prompt = converted(cli, WORKFLOWS / f"{PIPELINE}.json", photo, tmp_path)
    theirs = server.run(prompt)
    ours = engine.run(prompt, inputs={"1.image": PHOTO})
    assert theirs.ending == "execution_error"
    assert theirs.error.startswith("Content blocked by hybrid safety gate: ")
    assert (ours.status, ours.errors[0].message) == ("blocked", theirs.error)
    assert not any("images" in shown for shown in theirs.outputs.values())


# --- every node -----------------------------------------------------------------------------------------------------


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def chain(class_type: str, *, mask: bool = False, **inputs: Any) -> Prompt:
    """Load, resize to something small and odd, the node, show it (and its mask)."""
    prompt = {
        "1": node("LoadImage", image="astronaut.jpg"),
        "2": node("ImageCrop", image=["1", 0], width=333, height=405, x=90, y=7),
        "3": node(class_type, image=["2", 0], **inputs),
        "4": node("PreviewImage", images=["3", 0]),
    }
    if mask:
        prompt["5"] = node("MaskToImage", mask=["3", 1])
        prompt["6"] = node("PreviewImage", images=["5", 0])
    return prompt


def texts_of(prompt: Prompt, *outputs: tuple[str, int]) -> Prompt:
    """Show texts as well."""
    shown = {f"t{n}": node("ShowText|pysssss", text=[i, slot]) for n, (i, slot) in enumerate(outputs)}
    return {**prompt, **shown}


def censored(**inputs: Any) -> Prompt:
    # What the photo shows is a face: censored because its label is not among the exempt ones.
    values = {"censor_method": "pixelate", "min_score": 0.2, "blocks": 3, "block_count_scaling": "fixed"} | inputs
    return {
        **chain("ApplyNudenet", nudenet_model=["7", 0], filtered_labels=["8", 0], **values),
        "7": node("NudenetModelLoader", model="320n.onnx"),
        "8": node("FilterdLabel", **dict.fromkeys(LABELS, True)),
    }


LABELS = [spec.name for n in NODES if n.class_type == "FilterdLabel" for spec in n.signature.inputs]
STATES = dict.fromkeys(("sexual", "violence", "hate", "disturbing", "drugs"), "SAFE")
CLASSIFIED = {"classification": STATES, "reasons": [], "confidence": 0.9}
FACTS = {"primary_subject": "a woman", "secondary_subjects": ["a rocket"], "nsfw": False, "violence": False}
FINISHED = {
    "provider": "CPU", "background_color": "custom", "custom_hex_color": "#12AB90", "sensitivity": 0.6, "mask_blur": 5,
    "mask_offset": -4,
}  # fmt: skip

PROMPTS: dict[str, Prompt] = {
    "ben2": chain("BEN2_ONNX_RemoveBg", mask=True, provider="CPU"),
    "ben2-finished": chain("BEN2_ONNX_RemoveBg", mask=True, **FINISHED),
    "ben2-raw": {
        **{key: value for key, value in chain("BEN2_ONNX_RawMask").items() if key < "4"},
        "4": node("MaskToImage", mask=["3", 0]),
        "5": node("PreviewImage", images=["4", 0]),
    },
    "birefnet": chain("BiRefNet_ONNX_RemoveBg", mask=True, model_variant="general", **FINISHED),
    "smart-resize": chain(
        "SmartResizeForModel", target_model="1024 (BEN2/BiRefNet)", resize_mode="smart", interpolation="bicubic"
    ),
    "restore": chain("RestoreOriginalSize", original_width=517, original_height=200, interpolation="lanczos"),
    **{
        f"process-{mode}-{method}": chain(
            "ImageResizeForProcessing", target_resolution="custom", custom_width=256, custom_height=192,
            resize_mode=mode, interpolation=method,
        )
        for mode, method in [("stretch", "bilinear"), ("fit", "nearest"), ("fill", "bicubic"), ("fit", "lanczos")]
    },
    "to-reference": chain("ImageResizeToReference", scale_mode="reference", reference_image=["1", 0]),
    "to-factor": chain("ImageResizeToReference", scale_mode="scale_factor", scale_factor=1.7),
    "to-dimensions": chain(
        "ImageResizeToReference", scale_mode="dimensions", target_width=448, target_height=128, interpolation="bilinear"
    ),
    **{
        f"by-{factor}-{method}": chain("ImageScaleByFactor", scale_factor=factor, interpolation=method)
        for factor, method in [("0.25x", "bicubic"), ("1.5x", "lanczos"), ("2x", "nearest"), ("0.75x", "bilinear")]
    },
    "free": {**chain("FreeVRAMInline", mode="aggressive"), "7": node("FreeVRAM"), "8": node("FreeVRAMAutomatic")},
    "nudenet": texts_of(
        {**chain("FreeVRAMInline"), "9": node("NudeNetSafetyChecker", image=["2", 0])}, ("9", 0)
    ),
    **{f"censor-{method}": censored(censor_method=method) for method in ("pixelate", "blur", "gaussian_blur")},
    "censor-image": censored(censor_method="image", overlay_image=["2", 0], overlay_strength=0.5),
    "gate-multi-domain": texts_of(
        chain("MultiDomainSafetyGate", classification_json=json.dumps(CLASSIFIED)), ("3", 1)
    ),
    "gate-image": texts_of(chain("ImageSafetyGate", json_string=json.dumps(FACTS)), ("3", 1)),
    "gate-hybrid": texts_of(
        {
            **chain("HybridSafetyGate", multidomain_json=json.dumps(CLASSIFIED), nudenet_json=["9", 0]),
            "9": node("NudeNetSafetyChecker", image=["2", 0]),
        },
        ("3", 1),
    ),
    "parse": texts_of(
        {
            **chain("FreeVRAMInline"),
            "8": node("LLMJSONParser", json_string=json.dumps(FACTS)),
            "9": node("LLMSafetyGate", primary_subject=["8", 0], nsfw=["8", 2], violence=["8", 3]),
            "10": node("LLMSafetyGateJSON", json_string=json.dumps(FACTS)),
        },
        ("8", 1),
        ("9", 0),
        ("10", 0),
    ),
    "save": {
        **chain("FreeVRAMInline"),
        "7": node("SaveImageNoMetadata", images=["2", 0], filename_prefix="sub/saved"),
    },
}  # fmt: skip

# What says something else each time, or on each machine.
NOT_COMPARED = {"VRAMMonitor", "VRAMMonitorInline"}
NOT_HERE = {
    "BiRefNet_HR_RemoveBg": "the same code as BiRefNet_ONNX_RemoveBg, with a file of the user's",
    "LocalJSONExtractorLlama": "a language model's words",
    "LocalLLMLoader_AdvV2": "a language model's words",
    "LocalLLMGenerate": "a language model's words",
    "DownloadAndLoadFlorence2Lora": "fetches",
    "DownloadAndLoadFlorence2Model": "fetches",
    "MultiDomainSafetyClassifier": "compared in the whole pipeline",
    "Florence2ModelLoader": "compared in the whole pipeline",
    "Florence2Run": "compared in the whole pipeline",
}


def test_every_deterministic_node_is_compared() -> None:
    used = {node["class_type"] for prompt in PROMPTS.values() for node in prompt.values()}
    assert {n.class_type for n in NODES} - NOT_COMPARED - set(NOT_HERE) <= used


@pytest.mark.parametrize("name", PROMPTS)
def test_a_node_gives_the_same_bytes(name: str, both: Any) -> None:
    pairs, rest, texts = both(PROMPTS[name])
    assert pairs
    for pair in pairs:
        assert pixels(pair.theirs).tobytes() == pixels(pair.ours).tobytes(), f"off by up to {pair.difference()}"
    assert shown_texts(rest) == {output.node_id: [output.text] for output in texts}


@pytest.mark.parametrize("method", ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"])
def test_what_comfyui_resamples_is_within_one_step(method: str, both: Any) -> None:
    prompt = chain("ImageScale", upscale_method=method, width=211, height=0, crop="disabled")
    (pair,) = both(prompt)[0]
    assert pair.difference() <= 1
