"""The nodes over the real ONNX runtime: a small model with BEN2's inputs and outputs, and NudeNet's own weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_cpu_core.context import RunContext
from comfy_cpu_core.errors import Interrupted, ModelError
from comfy_cpu_core.fetchers.package import package_file
from comfy_cpu_nodes.nodes.background import BEN2_FILE, Ben2RemoveBackground
from comfy_cpu_nodes.nodes.birefnet import BiRefNetHrRemoveBackground, hr_file
from comfy_cpu_nodes.nodes.nudenet import ApplyNudenet, FilteredLabel, NudenetModelLoader
from comfy_cpu_nodes.nodes.safety import NudeNetSafetyChecker
from comfy_cpu_nodes.runtimes import RUNTIME_VARIABLE

PHOTO = Path(__file__).parents[4] / "examples" / "astronaut.jpg"


def photo() -> np.ndarray:
    with Image.open(PHOTO) as file:
        return np.asarray(file.convert("RGB"), np.float32)[np.newaxis] / np.float32(255)


@pytest.fixture
def red_channel_model(run: RunContext) -> Path:
    """Scores are the red channel; float32 in, float16 out."""
    from onnx import TensorProto, checker, helper, save

    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["input", "first", "second", "axis"], ["red"]),
            helper.make_node("Cast", ["red"], ["output"], to=TensorProto.FLOAT16),
        ],
        "red",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 1024, 1024])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT16, [1, 1, 1024, 1024])],
        [
            helper.make_tensor(name, TensorProto.INT64, [1], [n])
            for name, n in (("first", 0), ("second", 1), ("axis", 1))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    path = run.models.path(BEN2_FILE)
    path.parent.mkdir(parents=True)
    save(model, path)
    return path


def test_background(red_channel_model: Path, run: RunContext) -> None:
    image = photo()
    made, mask = Ben2RemoveBackground().remove_background(image)
    (use,) = run.model_uses
    assert use.name == BEN2_FILE
    red = image[0, ..., 0]
    expected = (red - red.min()) / (red.max() - red.min())
    # The picture is smaller than 1024²: up and down again blurs a little, and bf16 has 8 bits.
    assert np.abs(mask[0] - expected).mean() < 0.02
    assert np.array_equal(made[..., :3], image)
    assert np.array_equal(made[..., 3], mask)


def test_an_interrupt_ends_the_run(red_channel_model: Path, run: RunContext) -> None:
    def stop() -> None:
        raise Interrupted("stopped")

    run.check = stop
    with pytest.raises(Interrupted):
        Ben2RemoveBackground().remove_background(photo())


def test_a_broken_model_is_an_error(red_channel_model: Path) -> None:
    red_channel_model.write_bytes(red_channel_model.read_bytes()[:-20])
    with pytest.raises(ModelError, match=r"BEN2_Base\.onnx"):
        Ben2RemoveBackground().remove_background(photo())


@pytest.fixture(scope="module")
def expected() -> list[dict[str, Any]]:
    """What the `nudenet` package says of the photo, as OpenCV would read it from a lossless file."""
    from nudenet import NudeDetector

    picture = (photo()[0] * 255).astype(np.uint8)
    return NudeDetector().detect(np.ascontiguousarray(picture[..., ::-1]))  # type: ignore[no-any-return]


@pytest.mark.parametrize("in_tree", [False, True])
def test_nudenet_with_its_own_weights(
    in_tree: bool, expected: list[dict[str, Any]], run: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_tree:
        weights = package_file("nudenet", "320n.onnx")
        assert weights is not None
        target = run.models.path("Nudenet/320n.onnx")
        target.parent.mkdir(parents=True)
        shutil.copy(weights, target)
    monkeypatch.setattr("comfy_cpu_nodes.nodes.safety._NSFW", frozenset({"FACE_FEMALE"}))
    text, is_nsfw, max_score = NudeNetSafetyChecker().check_nudity(photo(), 0.5)
    assert is_nsfw
    report = json.loads(text)
    assert report["all_detections_count"] == len(expected)
    (found,), (face,) = report["detections"], [e for e in expected if e["class"] == "FACE_FEMALE"]
    assert found["score"] == pytest.approx(face["score"], abs=1e-3)
    assert max_score == found["score"]
    assert np.abs(np.subtract(found["box"], face["box"])).max() <= 1
    (use,) = run.model_uses
    assert (use.name, use.precision, use.stand_in) == ("Nudenet/320n.onnx", "f32", False)


def test_nudenet_finds_the_photo_safe() -> None:
    text, is_nsfw, max_score = NudeNetSafetyChecker().check_nudity(np.concatenate([photo(), photo()]))
    assert (is_nsfw, max_score) == (False, 0.0)
    assert json.loads(text)["all_detections_count"] >= 2


def test_another_model_in_nudenets_place_is_an_error(red_channel_model: Path, run: RunContext) -> None:
    target = run.models.path("Nudenet/320n.onnx")
    target.parent.mkdir(parents=True)
    shutil.copy(red_channel_model, target)
    with pytest.raises(ModelError):
        NudeNetSafetyChecker().check_nudity(photo())


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_birefnet_hr_on_an_export_of_any_size(runtime: str, run: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits that come to the red channel, at whatever size; of two outputs the last counts."""
    from onnx import TensorProto, checker, helper, save

    pytest.importorskip(runtime)
    monkeypatch.setenv(RUNTIME_VARIABLE, runtime)
    constants = {"first": [0], "second": [1], "axis": [1]}
    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["x", "first", "second", "axis"], ["red"]),
            helper.make_node("Mul", ["red", "eight"], ["logits"]),
            helper.make_node("Neg", ["logits"], ["coarse"]),
        ],
        "red",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "height", "width"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, None, None]) for name in ("coarse", "logits")],
        [
            *(helper.make_tensor(name, TensorProto.INT64, [1], value) for name, value in constants.items()),
            helper.make_tensor("eight", TensorProto.FLOAT, [], [8.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    path = run.models.path(hr_file("BiRefNet_HR"))
    path.parent.mkdir(parents=True)
    save(model, path)
    image = photo()
    _, mask = BiRefNetHrRemoveBackground().remove_background(image, process_resolution=1280, use_fp16=False)
    # The mean red is ImageNet's; eight times what lies above it in deviations comes near a threshold.
    red = image[0, ..., 0]
    assert mask[0][red > 0.485 + 0.3].min() > 0.8
    assert mask[0][red < 0.485 - 0.3].max() < 0.2
    assert run.warnings == []
    (use,) = run.model_uses
    assert (use.name, use.stand_in, use.runtime.split()[0]) == ("birefnet_hr/BiRefNet_HR.onnx", False, runtime)


def test_the_censor_on_nudenets_own_weights() -> None:
    image = np.concatenate([photo(), photo()[:, :, ::-1]])
    before = image.copy()
    (detector,) = NudenetModelLoader().load_model("320n.onnx")
    (everything,) = FilteredLabel().filter_labels()
    (made,) = ApplyNudenet().apply_nudenet(detector, image, "pixelate", everything)
    for index, (x, y) in enumerate([(224, 120), (511 - 224, 120)]):  # the face
        assert not np.array_equal(made[index, y, x], image[index, y, x])
        assert np.array_equal(made[index, 400:], image[index, 400:])
    assert np.array_equal(image, before)
    (but_faces,) = FilteredLabel().filter_labels(FACE_FEMALE=False, FACE_MALE=False)
    (made,) = ApplyNudenet().apply_nudenet(detector, image, "pixelate", but_faces)
    assert np.array_equal(made[0, 100:150, 190:250], image[0, 100:150, 190:250])
