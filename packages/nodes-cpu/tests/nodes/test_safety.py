"""The safety checker: what it reports, and that it fails closed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_cpu_core.context import RunContext
from comfy_cpu_core.errors import ModelCorrupt, ModelMissing, NodeError
from comfy_cpu_nodes.nodes.safety import NudeNetSafetyChecker
from comfy_cpu_nodes.ops.detect import LABELS

PHOTO = Path(__file__).parents[4] / "examples" / "astronaut.jpg"
NSFW = {
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "ANUS_EXPOSED",
    "BUTTOCKS_EXPOSED",
}


def images(batch: int = 1, channels: int = 3) -> np.ndarray:
    """Pictures that a stub model can tell apart: each has its own grey."""
    return np.stack([np.full((32, 64, channels), (i + 1) / 10, np.float32) for i in range(batch)])


def seen(*found: tuple[str, float]) -> np.ndarray:
    """An answer with these labels at these scores, side by side."""
    table = np.zeros((1, 22, 2100), np.float32)
    for column, (label, score) in enumerate(found):
        table[0, :4, column] = (40 * column + 20, 30, 30, 30)
        table[0, 4 + LABELS.index(label), column] = score
    return table


def test_a_clean_picture(nudenet: Any) -> None:
    text, is_nsfw, max_score = NudeNetSafetyChecker().check_nudity(images())
    assert (is_nsfw, max_score) == (False, 0.0)
    assert text == (
        '{\n  "is_nsfw": false,\n  "max_score": 0.0,\n  "threshold": 0.6,\n  "detections": [],\n'
        '  "all_detections_count": 0,\n  "model": "NudeNet"\n}'
    )


def test_a_report(nudenet: Any) -> None:
    nudenet.answer = lambda planes: seen(("FACE_FEMALE", 0.875), ("ANUS_EXPOSED", 0.75), ("BUTTOCKS_EXPOSED", 0.5))
    text, is_nsfw, max_score = NudeNetSafetyChecker().check_nudity(images(), 0.625)
    assert (is_nsfw, max_score) == (True, 0.75)
    # 64×32 pixels: the network's 320 are the picture's 64.
    assert text == json.dumps(
        {
            "is_nsfw": True,
            "max_score": 0.75,
            "threshold": 0.625,
            "detections": [{"label": "ANUS_EXPOSED", "score": 0.75, "box": [9, 3, 6, 6]}],
            "all_detections_count": 3,
            "model": "NudeNet",
        },
        indent=2,
    )


@pytest.mark.parametrize("label", LABELS)
def test_which_labels_count(label: str, nudenet: Any) -> None:
    nudenet.answer = lambda planes: seen((label, 0.9))
    _, is_nsfw, _ = NudeNetSafetyChecker().check_nudity(images())
    assert is_nsfw is (label in NSFW)


@pytest.mark.parametrize(
    ("score", "threshold", "expected"),
    [(0.75, 0.75, True), (0.75, 0.7501, False), (1.0, 1.0, True), (0.26, 0.0, True), (0.24, 0.0, False)],
)
def test_the_threshold_itself_counts(score: float, threshold: float, expected: bool, nudenet: Any) -> None:
    nudenet.answer = lambda planes: seen(("ANUS_EXPOSED", score))
    assert NudeNetSafetyChecker().check_nudity(images(), threshold)[1] is expected


@pytest.mark.parametrize("position", [0, 1, 2])
def test_one_unsafe_picture_in_a_batch_is_enough(position: int, nudenet: Any) -> None:
    calls = iter(range(3))
    nudenet.answer = lambda planes: seen(("ANUS_EXPOSED", 0.875)) if next(calls) == position else seen()
    text, is_nsfw, max_score = NudeNetSafetyChecker().check_nudity(images(3))
    assert (is_nsfw, max_score) == (True, 0.875)
    (found,) = json.loads(text)["detections"]
    assert found["image"] == position


def test_every_picture_is_looked_at_in_full_precision(nudenet: Any, runtimes: Any, run: RunContext) -> None:
    NudeNetSafetyChecker().check_nudity(images(3))
    assert [round(float(fed.max()) * 255) for fed in nudenet.fed] == [25, 51, 76]
    assert {fed.shape for fed in nudenet.fed} == {(1, 3, 320, 320)}
    assert runtimes.loads == [
        {"path": run.models.path("Nudenet/320n.onnx"), "name": "Nudenet/320n.onnx", "precision": "f32"}
    ]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_lies_under_alpha_is_looked_at(channels: int, nudenet: Any) -> None:
    image = images(channels=channels)
    if channels == 4:
        image[..., 3] = 0
    NudeNetSafetyChecker().check_nudity(image)
    assert nudenet.fed[0].max() == pytest.approx(25 / 255)


def fail(planes: np.ndarray) -> np.ndarray:
    raise RuntimeError("the model broke")


def nan_image() -> np.ndarray:
    image = images(2)
    image[1, 3, 3, 1] = np.nan
    return image


def infinite_image() -> np.ndarray:
    image = images(1)
    image[0, 0, 0, 0] = np.inf
    return image


# What goes wrong: the model's answer, the picture, the threshold, and the error.
CLOSED: dict[str, tuple[Callable[[np.ndarray], np.ndarray] | None, Any, float, type[Exception]]] = {
    "exception-in-the-model": (fail, images(), 0.6, RuntimeError),
    "nan-score": (lambda p: seen(("ANUS_EXPOSED", np.nan)), images(), 0.6, NodeError),
    "infinite-score": (lambda p: seen(("ANUS_EXPOSED", np.inf)), images(), 0.6, NodeError),
    "minus-infinite-score": (lambda p: seen(("ANUS_EXPOSED", -np.inf)), images(), 0.6, NodeError),
    "nan-box": (lambda p: np.full((1, 22, 2100), np.nan, np.float32), images(), 0.6, NodeError),
    "logits": (lambda p: seen(("ANUS_EXPOSED", 3.0)), images(), 0.6, NodeError),
    "other-model": (lambda p: np.zeros((1, 84, 8400), np.float32), images(), 0.6, NodeError),
    "no-candidates": (lambda p: np.zeros((1, 22, 0), np.float32), images(), 0.6, NodeError),
    "empty-batch": (None, np.zeros((0, 8, 8, 3), np.float32), 0.6, NodeError),
    "no-pixels": (None, np.zeros((1, 0, 8, 3), np.float32), 0.6, NodeError),
    "no-image": (None, None, 0.6, NodeError),
    "bytes": (None, np.zeros((1, 8, 8, 3), np.uint8), 0.6, NodeError),
    "two-channels": (None, np.zeros((1, 8, 8, 2), np.float32), 0.6, NodeError),
    "nan-pixel-in-the-second": (None, nan_image(), 0.6, NodeError),
    "infinite-pixel": (None, infinite_image(), 0.6, NodeError),
    "nan-threshold": (None, images(), float("nan"), NodeError),
    "threshold-beyond-reach": (None, images(), 1.01, NodeError),
    "negative-threshold": (None, images(), -0.1, NodeError),
}


@pytest.mark.parametrize("case", CLOSED)
def test_fails_closed(case: str, nudenet: Any) -> None:
    answer, image, threshold, error = CLOSED[case]
    nudenet.answer = answer or nudenet.answer
    with pytest.raises(error):
        NudeNetSafetyChecker().check_nudity(image, threshold)


def test_an_error_in_a_later_picture_is_an_error(nudenet: Any) -> None:
    calls = iter(range(3))
    nudenet.answer = lambda planes: fail(planes) if next(calls) == 2 else seen()
    with pytest.raises(RuntimeError):
        NudeNetSafetyChecker().check_nudity(images(3))


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_cpu_core.fetchers.package.package_file", lambda name, path: None)


def test_a_missing_model_is_an_error(runtimes: Any, run: RunContext, no_package: None) -> None:
    with pytest.raises(ModelMissing, match=r"Nudenet/320n\.onnx") as caught:
        NudeNetSafetyChecker().check_nudity(images())
    assert caught.value.remedy is not None
    assert "comfy-cpu-plugin-nudenet[weights]" in caught.value.remedy
    assert runtimes.loads == []


def test_a_model_that_cannot_be_loaded_is_an_error(nudenet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def corrupt(*arguments: object, **options: object) -> None:
        raise ModelCorrupt("320n.onnx cannot be read")

    monkeypatch.setattr(sys.modules["comfy_cpu_nodes.runtimes"], "load_onnx", corrupt)
    with pytest.raises(ModelCorrupt):
        NudeNetSafetyChecker().check_nudity(images())


def test_the_packages_own_file_is_found_without_importing_it(
    runtimes: Any, nudenet: Any, run: RunContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def package_file(name: str, path: str) -> Path:
        asked.append((name, path))
        return tmp_path / "site" / name / path

    monkeypatch.setattr("comfy_cpu_core.fetchers.package.package_file", package_file)
    NudeNetSafetyChecker().check_nudity(images())
    assert asked == [], "the model tree comes first"
    run.models.path("Nudenet/320n.onnx").unlink()
    NudeNetSafetyChecker().check_nudity(images())
    assert asked == [("nudenet", "320n.onnx")]
    assert runtimes.loads[-1]["path"] == tmp_path / "site" / "nudenet" / "320n.onnx"


def test_on_a_photo_it_says_what_the_package_says(nudenet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from nudenet import NudeDetector

    detector = NudeDetector()
    nudenet.answer = lambda planes: detector.onnx_session.run(None, {detector.input_name: planes})[0]
    # Let the face count, so that there is something to report.
    monkeypatch.setattr("comfy_cpu_nodes.nodes.safety._NSFW", frozenset({"FACE_FEMALE", "FACE_MALE"}))
    with Image.open(PHOTO) as file:
        picture = np.asarray(file.convert("RGB"))
    text, is_nsfw, max_score = NudeNetSafetyChecker().check_nudity(picture[np.newaxis].astype(np.float32) / 255, 0.3)
    expected = detector.detect(np.ascontiguousarray(picture[..., ::-1]))
    assert is_nsfw
    assert max_score == max(found["score"] for found in expected)
    assert json.loads(text)["detections"] == [
        {"label": found["class"], "score": found["score"], "box": found["box"]} for found in expected
    ]
