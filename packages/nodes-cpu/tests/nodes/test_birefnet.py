"""BiRefNet's two nodes. What happens after the model is BEN2's, and tested there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_cpu_core.context import RunContext
from comfy_cpu_core.errors import ModelMissing, NodeError
from comfy_cpu_nodes.nodes.background import Ben2RemoveBackground
from comfy_cpu_nodes.nodes.birefnet import BiRefNetHrRemoveBackground, BiRefNetRemoveBackground

MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)


def plain_mean(planes: np.ndarray) -> np.ndarray:
    """The mean of the three channels as it was before ImageNet's came off."""
    return (planes * DEVIATION + MEAN).mean(axis=1, keepdims=True)


def mean_as_logits(planes: np.ndarray) -> np.ndarray:
    """The same, as logits: those who take the sigmoid get it back."""
    share = plain_mean(planes).clip(1e-4, 1 - 1e-4)
    return np.log(share / (1 - share))


def picture(width: int, height: int, *, batch: int = 1, channels: int = 3) -> np.ndarray:
    levels = np.random.default_rng(width * height).integers(0, 256, (batch, height, width, channels))
    return levels.astype(np.float32) / np.float32(255)


@pytest.fixture
def birefnet(ben2: Any, put_model: Callable[[str], Path]) -> Any:
    """A model of any size, for every variant."""
    for variant in ("general", "portrait", "general-lite", "matting"):
        put_model(f"birefnet_onnx/BiRefNet-{variant}.onnx")
    for variant in ("BiRefNet_HR", "BiRefNet_HR-matting"):
        put_model(f"birefnet_hr/{variant}.onnx")
    ben2.inputs[0].shape = (1, 3, None, None)
    ben2.answer = mean_as_logits
    return ben2


@pytest.mark.parametrize(
    ("node", "default", "file"),
    [
        (BiRefNetRemoveBackground, {}, "birefnet_onnx/BiRefNet-general.onnx"),
        (BiRefNetRemoveBackground, {"model_variant": "portrait"}, "birefnet_onnx/BiRefNet-portrait.onnx"),
        (BiRefNetRemoveBackground, {"model_variant": "general-lite"}, "birefnet_onnx/BiRefNet-general-lite.onnx"),
        (BiRefNetRemoveBackground, {"model_variant": "matting"}, "birefnet_onnx/BiRefNet-matting.onnx"),
        (BiRefNetHrRemoveBackground, {}, "birefnet_hr/BiRefNet_HR.onnx"),
        (BiRefNetHrRemoveBackground, {"model_variant": "BiRefNet_HR-matting"}, "birefnet_hr/BiRefNet_HR-matting.onnx"),
    ],
)
def test_which_file(node: Any, default: Any, file: str, birefnet: Any, runtimes: Any, run: RunContext) -> None:
    node().remove_background(picture(8, 8), process_resolution=32, **default)
    assert runtimes.loads == [{"path": run.models.path(file), "name": file, "precision": "auto"}]


@pytest.mark.parametrize("node", [BiRefNetRemoveBackground, BiRefNetHrRemoveBackground])
@pytest.mark.parametrize("resolution", [512, 1088])
def test_what_the_model_is_fed(node: Any, resolution: int, birefnet: Any, run: RunContext) -> None:
    image = picture(60, 40, batch=2)
    node().remove_background(image, process_resolution=resolution)
    assert len(birefnet.fed) == 2
    for fed, frame in zip(birefnet.fed, image, strict=True):
        resized = Image.fromarray((frame * 255).astype(np.uint8)).resize((resolution,) * 2, Image.Resampling.BILINEAR)
        planes = (np.asarray(resized).astype(np.float32) / 255.0).transpose(2, 0, 1)[np.newaxis]
        assert fed.dtype == np.float32
        np.testing.assert_allclose(fed, (planes - MEAN) / DEVIATION, atol=1e-5)
    assert not any("process_resolution" in warning for warning in run.warnings)


@pytest.mark.parametrize(("node", "side"), [(BiRefNetRemoveBackground, 1024), (BiRefNetHrRemoveBackground, 2048)])
def test_the_resolution_by_default(node: Any, side: int, birefnet: Any) -> None:
    node().remove_background(picture(4, 4))
    assert birefnet.fed[0].shape == (1, 3, side, side)


@pytest.mark.parametrize("node", [BiRefNetRemoveBackground, BiRefNetHrRemoveBackground])
@pytest.mark.parametrize(
    ("fixed", "expected"), [((1, 3, 256, 256), (256, 256)), ((None, 3, 320, 192), (320, 192)), ((1, 3), (512, 512))]
)
def test_a_fixed_size_is_kept_to_and_reported(
    node: Any, fixed: tuple[int | None, ...], expected: tuple[int, int], birefnet: Any, run: RunContext
) -> None:
    birefnet.inputs[0].shape = fixed
    node().remove_background(picture(30, 20, batch=2), process_resolution=512)
    assert {fed.shape[2:] for fed in birefnet.fed} == {expected}
    told = [warning for warning in run.warnings if "process_resolution 512 was not used" in warning]
    assert [f"{expected[1]}×{expected[0]}" in warning for warning in told] == [True] * (expected != (512, 512))


def test_a_fixed_size_that_is_asked_for_is_nothing_to_report(birefnet: Any, run: RunContext) -> None:
    birefnet.inputs[0].shape = (1, 3, 512, 512)
    BiRefNetRemoveBackground().remove_background(picture(30, 20), process_resolution=512)
    assert run.warnings == []


@pytest.mark.parametrize("answer", [plain_mean, mean_as_logits], ids=["probabilities", "logits"])
@pytest.mark.parametrize("node", [BiRefNetRemoveBackground, BiRefNetHrRemoveBackground])
def test_probabilities_and_logits_give_ben2s_result(node: Any, answer: Any, birefnet: Any) -> None:
    """The stub BEN2 scores the mean of the channels, too: what follows must be the same."""
    image = picture(64, 64, batch=2)
    finish = {"sensitivity": 0.7, "mask_blur": 2, "mask_offset": -1, "background_color": "red"}
    birefnet.answer = answer
    made, mask = node().remove_background(image, process_resolution=64, **finish)
    birefnet.inputs[0].shape = (1, 3, 64, 64)
    birefnet.answer = lambda planes: planes.mean(axis=1, keepdims=True)
    expected, expected_mask = Ben2RemoveBackground().remove_background(image, **finish)
    assert np.abs(mask - expected_mask).max() <= 2 / 255
    assert np.abs(made - expected).max() <= 3 / 255
    assert np.abs(made - expected).mean() < 0.1 / 255


def test_the_last_output_counts(birefnet: Any, runtimes: Any) -> None:
    class Several:
        inputs = birefnet.inputs
        outputs = tuple(replace(birefnet.outputs[0], name=name) for name in ("coarse", "finer", "finest"))

        def run(self, feeds: Any) -> Any:
            (planes,) = feeds.values()
            good = plain_mean(planes)
            return {"coarse": np.zeros_like(good), "finer": 1 - good, "finest": good}

    image = picture(64, 64)
    _, expected = BiRefNetRemoveBackground().remove_background(image, process_resolution=64)
    runtimes.model = Several()
    _, mask = BiRefNetRemoveBackground().remove_background(image, process_resolution=64)
    assert np.abs(mask - expected).max() <= 2 / 255


def test_a_model_in_half_precision_is_fed_half_precision(birefnet: Any) -> None:
    birefnet.inputs[0].dtype = "float16"
    birefnet.answer = lambda planes: plain_mean(planes).astype(np.float16)
    _, mask = BiRefNetRemoveBackground().remove_background(picture(64, 64), process_resolution=64)
    assert birefnet.fed[0].dtype == np.float16
    assert mask.dtype == np.float32


@pytest.mark.parametrize(("provider", "told"), [("CPU", False), ("CUDA", True), ("DirectML", True)])
def test_another_provider_runs_on_the_cpu_and_is_reported(
    provider: str, told: bool, birefnet: Any, run: RunContext
) -> None:
    image = picture(9, 9)
    BiRefNetRemoveBackground().remove_background(image, "general", provider, process_resolution=32)
    assert [provider in warning for warning in run.warnings] == [True] * told


@pytest.mark.parametrize("use_fp16", [True, False])
def test_use_fp16_is_not_used_and_reported(use_fp16: bool, birefnet: Any, run: RunContext) -> None:
    BiRefNetHrRemoveBackground().remove_background(picture(9, 9), process_resolution=32, use_fp16=use_fp16)
    assert ["use_fp16 was not used" in warning for warning in run.warnings] == [True] * use_fp16


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 3000), (3000, 1), (31, 77)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_size_and_any_channels(width: int, height: int, channels: int, birefnet: Any) -> None:
    image = picture(width, height, batch=2, channels=channels)
    before = image.copy()
    made, mask = BiRefNetRemoveBackground().remove_background(image, process_resolution=64)
    assert made.shape == (2, height, width, 4)
    assert mask.shape == (2, height, width)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("variant", ["general", "portrait", "general-lite"])
def test_a_missing_variant_names_the_command_that_fetches_it(variant: str, runtimes: Any, run: RunContext) -> None:
    with pytest.raises(ModelMissing, match=rf"birefnet_onnx/BiRefNet-{variant}\.onnx") as caught:
        BiRefNetRemoveBackground().remove_background(picture(4, 4), variant)
    assert f"models fetch birefnet-{variant}" in str(caught.value.remedy)
    assert runtimes.loads == []


def test_the_variant_without_a_source_says_so(runtimes: Any, run: RunContext) -> None:
    with pytest.raises(ModelMissing, match=r"birefnet_onnx/BiRefNet-matting\.onnx") as caught:
        BiRefNetRemoveBackground().remove_background(picture(4, 4), "matting")
    assert "no source is known" in str(caught.value.remedy)


@pytest.mark.parametrize("variant", ["BiRefNet_HR", "BiRefNet_HR-matting"])
def test_hr_says_where_the_export_goes_and_that_no_code_is_run(
    variant: str, runtimes: Any, run: RunContext, put_model: Callable[[str], Path]
) -> None:
    put_model(f"birefnet_hr/{variant}/birefnet.py")
    put_model(f"birefnet_hr/{variant}/model.safetensors")
    with pytest.raises(ModelMissing) as caught:
        BiRefNetHrRemoveBackground().remove_background(picture(4, 4), variant)
    assert f"birefnet_hr/{variant}.onnx" in str(caught.value)
    assert str(run.models.root) in str(caught.value)
    assert "never run" in str(caught.value.remedy)
    assert runtimes.loads == []


@pytest.mark.parametrize("node", [BiRefNetRemoveBackground, BiRefNetHrRemoveBackground])
@pytest.mark.parametrize("variant", ["", "HR", "../ben2_onnx/BEN2_Base"])
def test_a_variant_that_does_not_exist(node: Any, variant: str, birefnet: Any, runtimes: Any) -> None:
    with pytest.raises(NodeError, match="model_variant"):
        node().remove_background(picture(4, 4), variant)
    assert runtimes.loads == []


@pytest.mark.parametrize("node", [BiRefNetRemoveBackground, BiRefNetHrRemoveBackground])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_no_mask(node: Any, value: float, birefnet: Any) -> None:
    birefnet.answer = lambda planes: np.full((1, 1, 32, 32), value, np.float32)
    with pytest.raises(NodeError, match="BiRefNet gave"):
        node().remove_background(picture(4, 4), process_resolution=32)


def test_an_empty_scene_is_stretched_but_not_silently(birefnet: Any, run: RunContext) -> None:
    image = np.random.default_rng(0).uniform(0, 0.02, (1, 64, 64, 3)).astype(np.float32)
    _, mask = BiRefNetRemoveBackground().remove_background(image, process_resolution=64)
    assert (mask.min(), mask.max()) == (0, 1)
    assert ["image 0: BiRefNet found no subject" in warning for warning in run.warnings] == [True]
