"""The engine against a real ComfyUI: the same nodes, values and files must give the same pixels.

Needs COMFYUI_PATH (a checkout, 0.3.64) and COMFYUI_PYTHON (its interpreter); without them the tests are skipped, and
pytest's summary says so. One process of ComfyUI answers all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_cpu_core.context import Folders, RunContext, use_run
from comfy_cpu_core.errors import WorkflowInvalid
from comfy_cpu_core.plugins import load_plugins
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_engine.engine import Engine
from comfy_cpu_engine.nodes import NODE_CLASSES

pytestmark = pytest.mark.skipif(
    not os.environ.get("COMFYUI_PATH"),
    reason="set COMFYUI_PATH (and COMFYUI_PYTHON) to compare the engine with a real ComfyUI",
)

CLASSES = {node.class_type: node.cls for node in NODE_CLASSES}
RESAMPLED = 1 / 255


@dataclass
class Case:
    """One call of a node.

    Attributes:
        inputs: arrays and values.
        tolerance: how far a pixel may be off; 0 for exactly the same.
    """

    name: str
    class_type: str
    inputs: dict[str, Any]
    tolerance: float = 0.0


def noise(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def scale_cases() -> Iterator[Case]:
    sizes = [
        ((1, 37, 53, 3), 16, 9), ((2, 37, 53, 3), 97, 120), ((1, 64, 64, 4), 32, 32), ((1, 64, 48, 3), 48, 64),
        ((1, 1, 1, 3), 7, 5), ((1, 5000, 1, 3), 3, 40), ((1, 1, 5000, 3), 4999, 2), ((1, 600, 801, 3), 333, 0),
        ((1, 333, 517, 3), 0, 1024), ((1, 20, 30, 3), 0, 0), ((3, 31, 17, 3), 17, 31), ((1, 2160, 3840, 3), 1024, 1024),
    ]  # fmt: skip
    for method in ("nearest-exact", "bilinear", "area", "bicubic", "lanczos"):
        for crop in ("disabled", "center"):
            for number, (shape, width, height) in enumerate(sizes):
                if number == len(sizes) - 1 and method not in {"nearest-exact", "bilinear"}:
                    continue
                exact = method in {"nearest-exact", "lanczos"} or (width, height) == (0, 0)
                yield Case(
                    f"scale-{method}-{crop}-{shape}-{width}x{height}",
                    "ImageScale",
                    {"image": noise(*shape), "upscale_method": method, "width": width, "height": height, "crop": crop},
                    0.0 if exact else RESAMPLED,
                )
    generator = np.random.default_rng(5)
    for number in range(60):
        height, width, new_height, new_width = (int(n) for n in generator.integers(1, 300, 4))
        for method in ("nearest-exact", "area", "bicubic", "bilinear"):
            yield Case(
                f"random-{number}-{method}-{width}x{height}-{new_width}x{new_height}",
                "ImageScale",
                {
                    "image": noise(1, height, width, 3, seed=number), "upscale_method": method, "width": new_width,
                    "height": new_height, "crop": "disabled",
                },
                0.0 if method == "nearest-exact" else RESAMPLED,
            )  # fmt: skip


def other_cases() -> Iterator[Case]:
    yield Case("invert", "ImageInvert", {"image": noise(2, 5, 7, 4)})
    yield Case("batch-same", "ImageBatch", {"image1": noise(2, 5, 7, 3), "image2": noise(1, 5, 7, 3, seed=2)})
    yield Case(
        "batch-other", "ImageBatch", {"image1": noise(1, 50, 70, 3), "image2": noise(2, 33, 90, 3, seed=2)}, RESAMPLED
    )
    for color in (0, 0xFFFFFF, 0x123456):
        yield Case(f"empty-{color}", "EmptyImage", {"width": 5, "height": 3, "batch_size": 2, "color": color})
    for x, y, width, height in ((0, 0, 4, 4), (3, 2, 100, 100), (99, 99, 1, 1), (6, 0, 512, 3)):
        yield Case(
            f"crop-{x}-{y}", "ImageCrop", {"image": noise(2, 5, 7, 3), "width": width, "height": height, "x": x, "y": y}
        )
    for sides in ((8, 0, 0, 0), (0, 8, 16, 0), (8, 8, 8, 8), (0, 0, 0, 0), (0, 0, 0, 40)):
        for feathering in (0, 1, 5, 12, 40):
            left, top, right, bottom = sides
            yield Case(
                f"pad-{sides}-{feathering}",
                "ImagePadForOutpaint",
                {
                    "image": noise(2, 30, 26, 3), "left": left, "top": top, "right": right, "bottom": bottom,
                    "feathering": feathering,
                },
            )  # fmt: skip
    for x, y in ((0, 0), (5, 3), (25, 29), (26, 30), (16384, 16384)):
        for mask in (None, noise(1, 12, 9, seed=4), noise(2, 20, 33, seed=5)):
            for count in (1, 2, 3):
                inputs = {
                    "destination": noise(2, 30, 26, 3), "source": noise(count, 12, 9, 3, seed=3), "x": x, "y": y,
                    "resize_source": False,
                }  # fmt: skip
                exact = mask is None or mask.shape[1:] == (12, 9)
                name = f"composite-{x}-{y}-{count}-{None if mask is None else mask.shape}"
                yield Case(
                    name,
                    "ImageCompositeMasked",
                    inputs if mask is None else {**inputs, "mask": mask},
                    0.0 if exact else RESAMPLED,
                )
    yield Case(
        "composite-stretched",
        "ImageCompositeMasked",
        {
            "destination": noise(1, 30, 26, 3), "source": noise(1, 12, 9, 4, seed=3), "x": 0, "y": 0,
            "resize_source": True, "mask": noise(1, 8, 8),
        },
        RESAMPLED,
    )  # fmt: skip
    yield Case("mask-to-image", "MaskToImage", {"mask": noise(2, 5, 7)})
    for channel in ("red", "green", "blue", "alpha"):
        yield Case(f"image-to-mask-{channel}", "ImageToMask", {"image": noise(2, 5, 7, 4), "channel": channel})
    yield Case("invert-mask", "InvertMask", {"mask": noise(2, 5, 7)})
    yield Case("join-same", "JoinImageWithAlpha", {"image": noise(2, 5, 7, 3), "alpha": noise(2, 5, 7)})
    yield Case("join-rgba", "JoinImageWithAlpha", {"image": noise(3, 5, 7, 4), "alpha": noise(2, 5, 7)})
    yield Case("join-other", "JoinImageWithAlpha", {"image": noise(1, 50, 70, 3), "alpha": noise(1, 64, 64)}, RESAMPLED)
    yield Case("split-rgb", "SplitImageWithAlpha", {"image": noise(2, 5, 7, 3)})
    yield Case("split-rgba", "SplitImageWithAlpha", {"image": noise(2, 5, 7, 4)})


def write_pictures(folder: Path) -> list[str]:
    """One file of every kind that LoadImage treats in its own way."""
    generator = np.random.default_rng(7)
    pixels = generator.integers(0, 256, (24, 32, 4), dtype=np.uint8)
    rgba, rgb = Image.fromarray(pixels), Image.fromarray(pixels[..., :3])
    rgb.save(folder / "rgb.png")
    rgba.save(folder / "rgba.png")
    rgb.convert("L").save(folder / "grey.png")
    rgba.convert("LA").save(folder / "grey-alpha.png")
    rgb.convert("1").save(folder / "bits.png")
    rgb.quantize(16).save(folder / "palette.png")
    rgb.quantize(16).save(folder / "palette-transparent.png", transparency=3)
    rgb.quantize(16).save(folder / "palette-alpha.png", transparency=bytes(range(0, 256, 16)))
    rgb.convert("L").save(folder / "grey-keyed.png", transparency=40)
    Image.fromarray(generator.integers(0, 65536, (24, 32), dtype=np.uint16)).save(folder / "sixteen.png")
    Image.fromarray(generator.integers(0, 65536, (24, 32), dtype=np.int32)).save(folder / "thirtytwo.tiff")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.convert("CMYK").save(folder / "cmyk.tiff")
    rgb.save(folder / "photo.jpg", quality=90)
    rgb.save(folder / "photo.webp")
    rgba.save(folder / "alpha.webp", lossless=True)
    rgb.save(folder / "photo.bmp")
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        rgb.save(folder / f"turned-{orientation}.jpg", exif=exif)
        rgba.save(folder / f"turned-{orientation}.png", exif=exif)
    frames = [Image.fromarray(generator.integers(0, 256, (10, 12, 3), dtype=np.uint8)) for _ in range(3)]
    frames[0].save(folder / "animation.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "animation.png", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "animation.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(folder / "pages.tiff", save_all=True, append_images=[frames[1], frames[2].resize((5, 5))])
    frames[0].save(folder / "stereo.mpo", save_all=True, append_images=frames[1:])
    Image.new("RGB", (1, 1), "red").save(folder / "one.png")
    Image.fromarray(generator.integers(0, 256, (5000, 1, 3), dtype=np.uint8)).save(folder / "thin.png")
    (folder / "sub").mkdir()
    rgb.save(folder / "sub" / "inner.png")
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def prompt(**changes: Any) -> dict[str, Any]:
    """Load, scale, save, with inputs changed: ``scale_width=-1``; None leaves the input out."""
    made = {
        "1": node("LoadImage", image="rgb.png"),
        "2": node("ImageScale", image=["1", 0], upscale_method="area", width=8, height=8, crop="disabled"),
        "3": node("SaveImage", images=["2", 0], filename_prefix="out"),
    }
    names = {"load": "1", "scale": "2", "save": "3"}
    for key, value in changes.items():
        which, _, name = key.partition("_")
        inputs = made[names[which]]["inputs"]
        inputs[name] = value
        if value is None:
            del inputs[name]
    return made


# Prompts that both must judge alike.
JUDGED = {
    "good": prompt(),
    "no-nodes": {},
    "no-output": {"1": node("LoadImage", image="rgb.png")},
    "missing": prompt(scale_width=None),
    "two-missing": prompt(scale_width=None, scale_crop=None),
    "missing-connection": prompt(save_images=None),
    "too-small": prompt(scale_width=-1),
    "too-big": prompt(scale_height=16385),
    "at-the-edge": prompt(scale_height=16384, scale_width=1),
    "no-option": prompt(scale_crop="left"),
    "no-number": prompt(scale_width="wide"),
    "null": prompt(scale_width={}),
    "text-number": prompt(scale_width="12"),
    "broken-number": prompt(scale_width="12.5"),
    "float": prompt(scale_width=12.9),
    "boolean-number": prompt(scale_width=True),
    "wrapped": prompt(scale_width={"__value__": 12}),
    "wrapped-list": prompt(scale_width={"__value__": [12]}),
    "wrong-type": prompt(save_images=["1", 1]),
    "list": prompt(scale_image=["1", 0, 0]),
    "empty-list": prompt(scale_width=[]),
    "no-such-file": prompt(load_image="nowhere.png"),
    "linked-number": prompt(scale_width=["1", 0]),
    "linked-option": prompt(scale_crop=["1", 0]),
    "extra-input": prompt(scale_unknown=7),
    "upstream": prompt(load_image="nowhere.png", scale_width=-1),
    "prefix-number": prompt(save_filename_prefix=5),
    "unconnected-branch": {**prompt(), "9": node("ImageInvert")},
}

RUNS = {
    "scale": prompt(scale_width=20, scale_height=0, scale_upscale_method="lanczos"),
    "subfolder": prompt(save_filename_prefix="a/b/%width%x%height%_c"),
    "batch": {
        "1": node("LoadImage", image="animation.gif"),
        "2": node("SaveImage", images=["1", 0], filename_prefix="f%batch_num%"),
        "3": node("SaveImage", images=["4", 0], filename_prefix="g%batch_num%"),
        "4": node("ImageInvert", image=["1", 0]),
    },
    "masked": {
        "1": node("LoadImage", image="rgba.png"),
        "2": node("InvertMask", mask=["1", 1]),
        "3": node("JoinImageWithAlpha", image=["1", 0], alpha=["2", 0]),
        "4": node("SaveImage", images=["3", 0], filename_prefix="masked"),
        "5": node("MaskToImage", mask=["1", 1]),
        "6": node("PreviewImage", images=["5", 0]),
    },
}


# Area is a mean in float32, and what is cut off to 8 bits may then differ by one step. Lanczos is exact.
RESAMPLED_RUNS = {"subfolder"}


@dataclass
class Answers:
    """What ComfyUI said, and the pictures that both read."""

    answer: dict[str, Any]
    folder: Path
    cases: list[Case] = field(default_factory=list)


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    work = tmp_path_factory.mktemp("fidelity")
    folder = work / "input"
    folder.mkdir()
    pictures = write_pictures(folder)
    cases = [*scale_cases(), *other_cases()]
    cases += [Case(f"load-{name}", "LoadImage", {"image": name}) for name in pictures]
    cases += [
        Case(f"load-mask-{name}-{channel}", "LoadImageMask", {"image": name, "channel": channel})
        for name in pictures
        for channel in ("alpha", "red", "green", "blue")
    ]
    job = {
        "input": str(folder),
        "classes": list(CLASSES),
        "nodes": [{"class_type": case.class_type, "inputs": on_disk(case, work)} for case in cases],
        "prompts": list(JUDGED.values()),
        "runs": list(RUNS.values()),
    }
    (work / "job.json").write_text(json.dumps(job))
    done = subprocess.run(
        [
            os.environ.get("COMFYUI_PYTHON", "python"), Path(__file__).with_name("comfyui_side.py"),
            os.environ["COMFYUI_PATH"], work / "job.json", work / "answer.json",
        ],
        check=False,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return Answers(json.loads((work / "answer.json").read_text()), folder, cases)


def on_disk(case: Case, work: Path) -> dict[str, Any]:
    inputs = {}
    for name, value in case.inputs.items():
        inputs[name] = value
        if isinstance(value, np.ndarray):
            file = work / f"{len(list(work.iterdir()))}.npy"
            np.save(file, value)
            inputs[name] = {"array": str(file)}
    return inputs


@pytest.fixture
def call(comfyui: Answers, tmp_path: Path) -> Iterator[Callable[[Case], tuple[Any, ...]]]:
    """Run one of our nodes on a case."""
    folders = Folders(comfyui.folder, tmp_path / "output", tmp_path / "temp")

    def run(case: Case) -> tuple[Any, ...]:
        cls = CLASSES[case.class_type]
        return getattr(cls(), cls.FUNCTION)(**case.inputs)

    with use_run(RunContext(folders, ModelTree(tmp_path))):
        yield run


def test_every_node_gives_the_same_pixels(
    comfyui: Answers, call: Callable[[Case], tuple[Any, ...]], record_property: Callable[[str, object], None]
) -> None:
    worst: dict[str, float] = {}
    problems = []
    compared = 0
    for case, theirs in zip(comfyui.cases, comfyui.answer["nodes"], strict=True):
        if "error" in theirs:
            # Where ComfyUI fails, ours may do better; it must not fail in a worse way than with a result or one line.
            worst[f"{case.class_type}: ComfyUI fails"] = worst.get(f"{case.class_type}: ComfyUI fails", 0) + 1
            call(case)
            continue
        for ours, file in zip(call(case), theirs["files"], strict=True):
            expected = np.load(file)
            if ours.shape != expected.shape or ours.dtype != expected.dtype:
                problems.append(f"{case.name}: {ours.shape} {ours.dtype}, not {expected.shape} {expected.dtype}")
                continue
            compared += 1
            off = float(np.abs(ours - expected).max(initial=0))
            kind = f"{case.class_type} {case.inputs.get('upscale_method', '')} {'exact' if not case.tolerance else ''}"
            worst[kind] = max(worst.get(kind, 0.0), off)
            if off > case.tolerance:
                problems.append(f"{case.name}: off by {off:.2g}")
    for kind, off in sorted(worst.items()):
        print(f"{kind:45} {off:.3g}")
    print(f"{compared} outputs compared")
    record_property("worst", worst)
    assert problems == []
    assert compared > 500


def test_signatures_are_the_same(comfyui: Answers) -> None:
    for class_type, theirs in comfyui.answer["signatures"].items():
        cls = CLASSES[class_type]
        assert list(cls.RETURN_TYPES) == theirs["outputs"], class_type
        assert bool(getattr(cls, "OUTPUT_NODE", False)) == theirs["output_node"], class_type
        assert theirs["category"] == cls.CATEGORY
        assert next(n.display_name for n in NODE_CLASSES if n.class_type == class_type) == theirs["display_name"]
        ours = json.loads(json.dumps(cls.INPUT_TYPES()))
        for section in ("required", "optional", "hidden"):
            expected = theirs["inputs"].get(section, {})
            assert list(ours.get(section, {})) == list(expected), class_type
            for name, definition in expected.items():
                if section == "hidden":
                    assert ours[section][name] == definition
                    continue
                mine = ours[section][name]
                if name != "image" or definition[0] == "IMAGE":  # the options of LoadImage are the files
                    assert mine[0] == definition[0], (class_type, name)
                for option in ("default", "min", "max", "step", "image_upload", "display"):
                    theirs_has = definition[1].get(option) if len(definition) > 1 else None
                    mine_has = mine[1].get(option) if len(mine) > 1 else None
                    assert mine_has == theirs_has, (class_type, name, option)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    classes = {node.class_type: node for node in NODE_CLASSES}
    return Engine(classes, load_plugins({}), ModelTree(tmp_path / "models"), workdir=tmp_path)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.mark.parametrize("name", JUDGED)
def test_prompts_are_judged_alike(name: str, comfyui: Answers, engine: Engine) -> None:
    theirs = comfyui.answer["prompts"][list(JUDGED).index(name)]
    if theirs["valid"]:
        assert engine.run(JUDGED[name], files=files(comfyui.folder)).ok
        return
    with pytest.raises(WorkflowInvalid) as refused:
        engine.run(JUDGED[name], files=files(comfyui.folder))
    ours = {
        node_id: [[e["type"], e["extra_info"].get("input_name")] for e in found["errors"]]
        for node_id, found in refused.value.node_errors.items()
    }
    expected = {node_id: sorted(found) for node_id, found in theirs["node_errors"].items()}
    assert {node_id: sorted(found) for node_id, found in ours.items()} == expected
    assert refused.value.error["type"] == theirs["error"]


@pytest.mark.parametrize("name", RUNS)
def test_runs_write_the_same_files(name: str, comfyui: Answers, engine: Engine) -> None:
    theirs = comfyui.answer["runs"][list(RUNS).index(name)]
    assert theirs["success"]
    expected = [
        (node_id, item["type"], item["subfolder"], item["filename"], Path(theirs["folder"]) / item["type"])
        for node_id, shown in sorted(theirs["outputs"].items())
        for item in shown["images"]
    ]
    result = engine.run(RUNS[name], files=files(comfyui.folder))
    assert result.ok, result.errors
    outputs = sorted(result.outputs, key=lambda output: output.node_id)
    assert len(outputs) == len(expected)
    for output, (node_id, folder, subfolder, filename, base) in zip(outputs, expected, strict=True):
        assert (output.node_id, output.folder, output.subfolder) == (node_id, folder, subfolder)
        if folder == "output":
            assert output.filename == filename
        (base / "ours.png").write_bytes(output.data)
        ours, other = Image.open(base / "ours.png"), Image.open(base / subfolder / filename)
        assert ours.mode == other.mode
        off = np.abs(np.asarray(ours).astype(int) - np.asarray(other)).max()
        assert off <= (1 if name in RESAMPLED_RUNS else 0)
