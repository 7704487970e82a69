from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from comfy_cpu_core.context import RunContext
from comfy_cpu_core.errors import Interrupted, ModelMissing, NodeError
from comfy_cpu_nodes.nodes.background import Ben2RawMask, Ben2RemoveBackground


def picture(width: int, height: int, *, batch: int = 1, channels: int = 3) -> np.ndarray:
    """A bright disc on a dark ground, not centred, with some noise."""
    y, x = np.mgrid[:height, :width]
    disc = np.hypot(x - width * 0.6, y - height * 0.4) < min(width, height) * 0.3
    noise = np.random.default_rng(width).random((batch, height, width, channels)) * 0.2
    levels = np.where(disc[..., np.newaxis], 0.9, 0.05) + noise
    return (np.clip(levels, 0, 1) * 255).astype(np.uint8).astype(np.float32) / np.float32(255)


def slow_mask(frame: np.ndarray, sensitivity: float = 1.0) -> np.ndarray:
    """The mask of the stub model by another route: PIL's own bilinear filter, which at equal size is the identity."""
    assert frame.shape == (1024, 1024, 3)
    scores = (frame.transpose(2, 0, 1)[np.newaxis].mean(axis=1)).astype(np.float16).astype(np.float32)[0]
    scores = (scores - scores.min()) / (scores.max() - scores.min())
    mask = (scores * 255).astype(np.uint8).astype(np.float32) / 255.0 * np.float32(2 - sensitivity)
    return (np.clip(mask, 0, 1) * 255).astype(np.uint8)


def test_the_whole_pipeline_step_by_step(ben2: Any, run: RunContext) -> None:
    image = picture(1024, 1024)
    made, mask = Ben2RemoveBackground().remove_background(image, sensitivity=0.7, mask_blur=3, mask_offset=-2)
    expected = slow_mask(image[0], 0.7)
    assert np.array_equal(mask[0], expected.astype(np.float32) / 255.0), "no blur and no offset in the mask"
    alpha = Image.fromarray(expected).filter(ImageFilter.GaussianBlur(3))
    for _ in range(2):
        alpha = alpha.filter(ImageFilter.MinFilter(3))
    assert np.array_equal(made[0, ..., 3], np.asarray(alpha).astype(np.float32) / 255.0)
    assert np.array_equal(made[0, ..., :3], image[0])
    assert run.warnings == []


def test_the_model_is_loaded_from_the_tree_by_its_name_in_it(ben2: Any, runtimes: Any, run: RunContext) -> None:
    Ben2RemoveBackground().remove_background(picture(8, 8))
    file = "ben2_onnx/BEN2_Base.onnx"
    assert runtimes.loads == [{"path": run.models.path(file), "name": file, "precision": "auto"}]


def test_what_the_model_is_fed(ben2: Any) -> None:
    image = picture(60, 40, batch=2)
    Ben2RemoveBackground().remove_background(image)
    assert len(ben2.fed) == 2
    for fed, frame in zip(ben2.fed, image, strict=True):
        resized = Image.fromarray((frame * 255).astype(np.uint8)).resize((1024, 1024), Image.Resampling.BILINEAR)
        expected = (np.asarray(resized).astype(np.float32) / 255.0).transpose(2, 0, 1)[np.newaxis]
        assert fed.dtype == np.float32
        assert np.array_equal(fed, expected)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 5000), (5000, 1), (31, 77), (1300, 2)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_size_and_any_channels(width: int, height: int, channels: int, ben2: Any) -> None:
    image = picture(width, height, batch=2, channels=channels)
    made, mask = Ben2RemoveBackground().remove_background(image, mask_blur=1, mask_offset=64)
    assert made.shape == (2, height, width, 4)
    assert mask.shape == (2, height, width)
    assert made.dtype == mask.dtype == np.float32
    assert np.array_equal(made[..., :3], np.broadcast_to(image[..., :3], made[..., :3].shape))


def test_each_picture_of_a_batch_has_its_own_mask(ben2: Any) -> None:
    both = np.concatenate([picture(40, 30), picture(40, 30)[:, ::-1]])
    _, masks = Ben2RemoveBackground().remove_background(both)
    for one, mask in zip(both, masks, strict=True):
        _, alone = Ben2RemoveBackground().remove_background(one[np.newaxis])
        assert np.array_equal(mask, alone[0])
    assert not np.array_equal(masks[0], masks[1])


@pytest.mark.parametrize(
    ("name", "custom", "expected"),
    [
        ("white", "#000000", (255, 255, 255)),
        ("black", "", (0, 0, 0)),
        ("red", "", (255, 0, 0)),
        ("green", "", (0, 255, 0)),
        ("blue", "", (0, 0, 255)),
        ("custom", "#F3FF80", (243, 255, 128)),
        ("custom", "no colour", (255, 255, 255)),
    ],
)
def test_backgrounds(name: str, custom: str, expected: tuple[int, int, int], ben2: Any, run: RunContext) -> None:
    image = picture(1024, 1024)
    made, mask = Ben2RemoveBackground().remove_background(image, background_color=name, custom_hex_color=custom)
    assert made.shape == (1, 1024, 1024, 3)
    outside = mask[0] == 0
    assert outside.any()
    assert (made[0][outside] * 255 == expected).all()
    assert any("no colour" in warning for warning in run.warnings) is (custom == "no colour")


@pytest.mark.parametrize(("provider", "told"), [("CPU", False), ("CUDA", True), ("DirectML", True)])
def test_another_provider_runs_on_the_cpu_and_is_reported(
    provider: str, told: bool, ben2: Any, run: RunContext
) -> None:
    Ben2RemoveBackground().remove_background(picture(9, 9, batch=3), provider)
    assert [provider in warning for warning in run.warnings] == [True] * told


def test_an_empty_scene_is_stretched_as_ever_but_not_silently(ben2: Any, run: RunContext) -> None:
    image = np.random.default_rng(0).uniform(0, 0.02, (1, 64, 64, 3)).astype(np.float32)
    _, mask = Ben2RemoveBackground().remove_background(image)
    assert (mask.min(), mask.max()) == (0, 1)
    assert [warning for warning in run.warnings if "image 0" in warning and "no subject" in warning] == run.warnings
    (raw,) = Ben2RawMask().raw_mask(image)
    assert raw.max() < 0.03


def test_the_raw_mask_is_what_the_model_says(ben2: Any) -> None:
    image = picture(1024, 1024, batch=2)
    (raw,) = Ben2RawMask().raw_mask(image)
    assert raw.shape == (2, 1024, 1024)
    np.testing.assert_allclose(raw, image.mean(axis=3), atol=1e-3)


def test_a_missing_model_names_the_command_that_fetches_it(runtimes: Any, run: RunContext) -> None:
    with pytest.raises(ModelMissing, match=r"BEN2_Base\.onnx") as caught:
        Ben2RemoveBackground().remove_background(picture(4, 4))
    assert caught.value.remedy is not None
    assert "models fetch ben2-base" in caught.value.remedy
    assert runtimes.loads == []


@pytest.mark.parametrize(
    "answer",
    [
        np.full((1, 1, 1024, 1024), np.nan, np.float16),
        np.full((1, 1, 1024, 1024), np.inf, np.float16),
        np.zeros((1, 3, 1024, 1024), np.float16),
        np.zeros((1024,), np.float16),
        np.zeros((1, 1, 0, 0), np.float16),
    ],
    ids=["nan", "inf", "three-masks", "a-line", "nothing"],
)
def test_an_answer_that_is_no_mask(answer: np.ndarray, ben2: Any) -> None:
    ben2.answer = lambda planes: answer
    with pytest.raises(NodeError, match="BEN2 gave"):
        Ben2RemoveBackground().remove_background(picture(4, 4))


@pytest.mark.parametrize("shape", [(1, 1, 256, 256), (1, 256, 256), (256, 256)])
def test_answers_with_fewer_dimensions_or_of_another_size(shape: tuple[int, ...], ben2: Any) -> None:
    scores = np.linspace(0, 1, 256 * 256, dtype=np.float32).reshape(shape)
    ben2.answer = lambda planes: scores
    _, mask = Ben2RemoveBackground().remove_background(picture(256, 256))
    assert np.array_equal(mask[0], (scores.reshape(256, 256) * 255).astype(np.uint8).astype(np.float32) / 255.0)


@pytest.mark.parametrize("shape", [(1, 3, 512, 256), (None, 3, None, None), (1, 3)])
def test_the_models_own_input_size_counts(shape: tuple[int | None, ...], ben2: Any) -> None:
    ben2.inputs[0].shape = shape
    Ben2RemoveBackground().remove_background(picture(16, 16))
    assert ben2.fed[0].shape == ((1, 3, 512, 256) if shape[2:] == (512, 256) else (1, 3, 1024, 1024))


def test_an_interrupt_ends_a_batch(ben2: Any, run: RunContext) -> None:
    def stop() -> None:
        raise Interrupted("stopped")

    run.check = stop
    with pytest.raises(Interrupted):
        Ben2RemoveBackground().remove_background(picture(8, 8, batch=3))
    assert len(ben2.fed) == 1


def test_the_input_stays_as_it_is(ben2: Any) -> None:
    image = picture(50, 50)
    before = image.copy()
    Ben2RemoveBackground().remove_background(image, mask_offset=5)
    Ben2RawMask().raw_mask(image)
    assert np.array_equal(image, before)


PROGRAM = """
import sys, types
import numpy as np
from pathlib import Path
from comfy_cpu_core.context import Folders, RunContext, use_run
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_nodes.nodes import NODE_CLASS_MAPPINGS

class Model:
    inputs = (types.SimpleNamespace(name="input", shape=(1, 3, 1024, 1024)),)
    outputs = (types.SimpleNamespace(name="output"),)
    def run(self, feeds):
        return {"output": feeds["input"][:, :1].astype(np.float16)}

stub = types.ModuleType("comfy_cpu_nodes.runtimes")
stub.load_onnx = lambda path, *, name, precision="auto": Model()
sys.modules[stub.__name__] = stub
here = Path(sys.argv[1])
tree = ModelTree(here)
tree.path("ben2_onnx").mkdir()
tree.path("ben2_onnx/BEN2_Base.onnx").touch()
with use_run(RunContext(Folders(here, here, here), tree)):
    image, mask = NODE_CLASS_MAPPINGS["BEN2_ONNX_RemoveBg"]().remove_background(
        np.linspace(0, 1, 4 * 5 * 3, dtype=np.float32).reshape(1, 4, 5, 3)
    )
assert type(image) is np.ndarray and image.shape == (1, 4, 5, 4), image.shape
heavy = {"torch", "cv2", "nudenet", "openvino", "onnxruntime", "huggingface_hub", "rich"}
print(sorted(heavy & set(sys.modules)))
"""


def test_no_torch_and_no_runtime_is_loaded_for_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
