"""The censor's nodes: what they change and what not, and that they fail closed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comfy_cpu_core.context import RunContext
from comfy_cpu_core.errors import Interrupted, ModelCorrupt, ModelMissing, NodeError
from comfy_cpu_nodes.nodes.detector import DetectorFile
from comfy_cpu_nodes.nodes.nudenet import ApplyNudenet, FilteredLabel, NudenetModelLoader
from comfy_cpu_nodes.ops import censor
from comfy_cpu_nodes.ops.detect import LABELS

FACE, BREAST = LABELS.index("FACE_FEMALE"), LABELS.index("FEMALE_BREAST_EXPOSED")
# The network's box, in its 320 pixels, and what is to be censored in a picture of 160×80: half of it, and the edge.
BOX = (100, 60, 80, 40)
ROWS, COLUMNS = slice(20, 42), slice(30, 72)


def pictures(batch: int = 1, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(batch).random((batch, 80, 160, channels), np.float32)


def seen(*found: tuple[int, float], box: tuple[float, ...] = BOX) -> np.ndarray:
    """An answer with these labels at these scores, all but the first somewhere on the right."""
    table = np.zeros((1, 22, 2100), np.float32)
    for column, (label, score) in enumerate(found):
        table[0, :4, column] = box if column == 0 else (200 + 40 * column, 60, 20, 20)
        table[0, 4 + label, column] = score
    return table


def load(name: str = "320n.onnx") -> DetectorFile:
    (file,) = NudenetModelLoader().load_model(name)
    return file


def apply(image: Any, method: str = "pixelate", **inputs: Any) -> np.ndarray:
    inputs = {"nudenet_model": inputs.pop("nudenet_model", None) or load(), "filtered_labels": [], **inputs}
    (made,) = ApplyNudenet().apply_nudenet(image=image, censor_method=method, **inputs)
    assert isinstance(made, np.ndarray)
    return made


@pytest.fixture
def face(nudenet: Any) -> Any:
    """A detector that sees one face, at `BOX`."""
    nudenet.answer = lambda planes: seen((FACE, 0.9))
    return nudenet


def outside_is_untouched(made: np.ndarray, image: np.ndarray) -> bool:
    inside = np.zeros(image.shape[1:3], bool)
    inside[ROWS, COLUMNS] = True
    return np.array_equal(made[:, ~inside], image[:, ~inside])


# The loader.


def test_the_loaders_list_has_the_trees_files_and_the_packages(
    run: RunContext, put_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def choices() -> Any:
        return NudenetModelLoader.INPUT_TYPES()["required"]["model"][0]

    put_model("Nudenet/640m.onnx")
    put_model("Nudenet/own/detector.ONNX")
    put_model("Nudenet/notes.txt")
    assert choices() == ["320n.onnx", "640m.onnx", "own/detector.ONNX"], "the first is the package's"
    monkeypatch.setattr("comfy_cpu_core.fetchers.package.package_file", lambda name, path: None)
    assert choices() == ["640m.onnx", "own/detector.ONNX"]
    put_model("Nudenet/320n.onnx")
    assert choices() == ["320n.onnx", "640m.onnx", "own/detector.ONNX"]


@pytest.mark.parametrize("value", ["320n.onnx", "gone.onnx", None])
def test_any_name_validates_so_that_the_run_can_say_what_is_missing(value: Any) -> None:
    assert NudenetModelLoader.VALIDATE_INPUTS(value) is True


def test_what_is_no_name_does_not_validate() -> None:
    assert NudenetModelLoader.VALIDATE_INPUTS(7) == "the name of a file is needed"


@pytest.mark.parametrize("saved", ["own/detector.onnx", "own\\detector.onnx"])
def test_a_file_in_a_subfolder_also_by_its_name_from_windows(
    saved: str, nudenet: Any, runtimes: Any, put_model: Callable[[str], Path]
) -> None:
    path = put_model("Nudenet/own/detector.onnx")
    assert load(saved) == DetectorFile("Nudenet/own/detector.onnx", path)
    assert runtimes.loads == [{"path": path, "name": "Nudenet/own/detector.onnx", "precision": "f32"}]


@pytest.mark.parametrize("saved", ["640m.onnx", "../ben2_onnx/BEN2_Base.onnx", "", "/etc/passwd", "notes.txt"])
def test_a_name_that_is_not_in_the_list_is_a_missing_model(
    saved: str, nudenet: Any, put_model: Callable[[str], Path]
) -> None:
    put_model("ben2_onnx/BEN2_Base.onnx")
    put_model("Nudenet/notes.txt")
    with pytest.raises(ModelMissing) as caught:
        load(saved)
    assert f"Nudenet/{saved}" in str(caught.value)
    assert "320n.onnx" in str(caught.value.remedy)


def test_no_detector_at_all(runtimes: Any, run: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfy_cpu_core.fetchers.package.package_file", lambda name, path: None)
    with pytest.raises(ModelMissing) as caught:
        load()
    assert "comfy-cpu-plugin-nudenet[weights]" in str(caught.value.remedy)
    with pytest.raises(ModelMissing) as caught:
        load("640m.onnx")
    assert "none is there" in str(caught.value.remedy)
    assert runtimes.loads == []


@pytest.mark.parametrize(
    ("name", "shape", "side"),
    [
        ("320n.onnx", (None, 3, None, None), 320),
        ("640m.onnx", (None, 3, None, None), 640),
        ("own.onnx", (None, 3, None, None), 320),
        ("own.onnx", (1, 3, 480, 480), 480),
        ("640m.onnx", (1, 3, 320, 320), 320),
        ("6400.onnx", (None, 3, None, None), 320),
    ],
)
def test_the_side_of_the_networks_input(
    name: str, shape: tuple[int | None, ...], side: int, face: Any, put_model: Callable[[str], Path]
) -> None:
    put_model(f"Nudenet/{name}")
    face.inputs[0].shape = shape
    face.answer = lambda planes: seen((FACE, 0.9), box=tuple(side / 320 * value for value in BOX))
    image = pictures()
    made = apply(image, nudenet_model=load(name))
    assert face.fed[0].shape == (1, 3, side, side)
    assert np.array_equal(made[0, ROWS, COLUMNS], censor.pixelate(image[0, ROWS, COLUMNS], 3))


def test_another_model_is_corrupt(nudenet: Any) -> None:
    nudenet.outputs[0].shape = (1, 84, 8400)
    with pytest.raises(ModelCorrupt, match="no NudeNet detector"):
        load()


# The labels.


def test_no_label_is_exempt_by_default() -> None:
    assert FilteredLabel().filter_labels(**dict.fromkeys(LABELS, True)) == ([],)
    assert FilteredLabel().filter_labels() == ([],)


def test_labels_set_to_false_are_exempt() -> None:
    for number, label in enumerate(LABELS):
        assert FilteredLabel().filter_labels(**{**dict.fromkeys(LABELS, True), label: False}) == ([number],)
    assert FilteredLabel().filter_labels(**dict.fromkeys(LABELS, False)) == (list(range(18)),)


@pytest.mark.parametrize("value", [None, 0, 1, "False", "true"])
def test_a_label_is_true_or_false(value: Any) -> None:
    with pytest.raises(NodeError, match="ANUS_EXPOSED: true or false"):
        FilteredLabel().filter_labels(ANUS_EXPOSED=value)


def test_a_label_that_does_not_exist() -> None:
    with pytest.raises(NodeError, match="no such label"):
        FilteredLabel().filter_labels(ANUS=False)


# The censor.


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("method", ["pixelate", "blur", "gaussian_blur"])
def test_what_is_found_is_censored_and_nothing_else(method: str, channels: int, face: Any) -> None:
    image = pictures(channels=channels)
    before = image.copy()
    made = apply(image, method, blocks=5)
    area = image[0, ROWS, COLUMNS]
    expected = {
        "pixelate": lambda: censor.pixelate(area, 5),
        "blur": lambda: censor.blur(area, 5),
        "gaussian_blur": lambda: censor.gaussian_blur(area),
    }[method]()
    assert made.dtype == np.float32
    assert np.array_equal(made[0, ROWS, COLUMNS], expected)
    assert not np.array_equal(expected, area)
    assert outside_is_untouched(made, image)
    assert np.array_equal(image, before), "the picture belongs to other nodes, too"


def test_the_input_may_be_read_only_and_is_not_given_back(nudenet: Any) -> None:
    image = pictures()
    image.flags.writeable = False
    made = apply(image)
    assert np.array_equal(made, image)
    assert not np.shares_memory(made, image)
    assert made.flags.writeable


@pytest.mark.parametrize(("scaling", "expected"), [("fixed", 10), ("fewer_when_large", 3), ("fewer_when_small", 7)])
def test_block_count_scaling(scaling: str, expected: int, nudenet: Any) -> None:
    nudenet.answer = lambda planes: seen((FACE, 0.9), box=(160, 60, 240, 20))
    image = pictures()
    made = apply(image, blocks=10, block_count_scaling=scaling)
    # The area is 122×12 of 160×80: the larger of its shares is that of the width.
    area = (0, slice(25, 37), slice(20, 142))
    assert np.array_equal(made[area], censor.pixelate(image[area], expected))


@pytest.mark.parametrize(
    ("blocks", "scaling"), [(1, "fixed"), (3, "fewer_when_small"), (100, "fixed"), (100, "fewer_when_large")]
)
@pytest.mark.parametrize("method", ["pixelate", "blur", "gaussian_blur"])
@pytest.mark.parametrize(
    "box",
    [(100, 60, 80, 40), (100, 60, 300, 2), (100, 60, 2, 300), (100, 60, 1, 1), (160, 80, 2000, 2000), (-9, -9, 30, 30)],
)
def test_nothing_that_is_found_stays_as_it_was(
    box: tuple[float, ...], method: str, blocks: int, scaling: str, nudenet: Any
) -> None:
    nudenet.answer = lambda planes: seen((BREAST, 0.9), box=box)
    image = pictures()
    made = apply(image, method, blocks=blocks, block_count_scaling=scaling)
    x, y = (min(max(0, int(centre / 2)), limit - 1) for centre, limit in zip(box[:2], (160, 80), strict=True))
    assert not np.array_equal(made[0, y, x], image[0, y, x])
    assert np.isfinite(made).all()
    assert 0 <= made.min() <= made.max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3)])
@pytest.mark.parametrize("method", ["pixelate", "blur", "gaussian_blur"])
def test_pictures_of_any_size(size: tuple[int, int], method: str, nudenet: Any) -> None:
    nudenet.answer = lambda planes: seen((BREAST, 0.9), box=(160, 160, 320, 320))
    image = np.random.default_rng(1).random((2, *size, 3), np.float32)
    made = apply(image, method)
    assert made.shape == image.shape
    assert np.allclose(made, image, atol=1e-6) == (size == (1, 1)), "a single pixel shows nothing"


def test_every_picture_of_a_batch_is_looked_at(nudenet: Any) -> None:
    answers = iter([seen(), seen((FACE, 0.9)), seen(), seen((BREAST, 0.3))])
    nudenet.answer = lambda planes: next(answers)
    image = pictures(4)
    made = apply(image)
    assert len(nudenet.fed) == 4
    assert [not np.array_equal(a, b) for a, b in zip(made, image, strict=True)] == [False, True, False, True]
    assert outside_is_untouched(made, image)


def test_all_that_is_found_in_a_picture_is_censored(nudenet: Any) -> None:
    nudenet.answer = lambda planes: seen((FACE, 0.9), (BREAST, 0.5), (LABELS.index("FEET_EXPOSED"), 0.7))
    image = pictures()
    made = apply(image)
    for x in (50, 120, 140):
        assert not np.array_equal(made[0, 30, x], image[0, 30, x])
    assert np.array_equal(made[0, 30, 90], image[0, 30, 90])


@pytest.mark.parametrize(("score", "min_score", "censored"), [(0.5, 0.5, True), (0.5, 0.51, False), (0.26, 0.0, True)])
def test_min_score(score: float, min_score: float, censored: bool, nudenet: Any) -> None:
    nudenet.answer = lambda planes: seen((FACE, score))
    image = pictures()
    assert np.array_equal(apply(image, min_score=min_score), image) is not censored


def test_exempt_labels_are_left_alone(nudenet: Any) -> None:
    nudenet.answer = lambda planes: seen((FACE, 0.9), (BREAST, 0.8))
    image = pictures()
    (exempt,) = FilteredLabel().filter_labels(FACE_FEMALE=False)
    made = apply(image, filtered_labels=exempt)
    assert np.array_equal(made[0, ROWS, COLUMNS], image[0, ROWS, COLUMNS])
    assert not np.array_equal(made, image)
    everything = apply(image, filtered_labels=list(range(18)))
    assert np.array_equal(everything, image)


def test_an_exempt_label_hides_no_other_in_the_same_place(nudenet: Any) -> None:
    answer, image = seen((FACE, 0.9), (BREAST, 0.8)), pictures()
    answer[0, :4, 1] = BOX
    nudenet.answer = lambda planes: answer
    (exempt,) = FilteredLabel().filter_labels(FACE_FEMALE=False)
    made = apply(image, filtered_labels=exempt)
    assert not np.array_equal(made[0, ROWS, COLUMNS], image[0, ROWS, COLUMNS])


def test_an_overlay(face: Any) -> None:
    image, overlay = pictures(channels=4), pictures(3)[:, :7, :9]
    mask = np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 3, 4)
    made = apply(image, "image", overlay_image=overlay, overlay_strength=0.5, alpha_mask=mask)
    expected = censor.cover(image[0, ROWS, COLUMNS], overlay[0], mask[0], 0.5)
    assert np.array_equal(made[0, ROWS, COLUMNS], expected)
    assert outside_is_untouched(made, image)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_overlay_without_a_mask_hides_everything(channels: int, face: Any) -> None:
    overlay = np.full((1, 5, 5, channels), 0.25, np.float32)
    made = apply(pictures(), "image", overlay_image=overlay)
    assert (made[0, ROWS, COLUMNS] == np.float32(0.25)).all()


def test_each_of_several_areas_gets_the_whole_mask(nudenet: Any) -> None:
    """The original shrinks the mask to the first area, and that to the second."""
    nudenet.answer = lambda planes: seen((FACE, 0.9), (BREAST, 0.8))
    image, overlay = pictures(), np.zeros((1, 64, 64, 3), np.float32)
    mask = pictures()[..., 0] * 0.5
    made = apply(image, "image", overlay_image=overlay, alpha_mask=mask)
    rows, columns = censor.area_of((115, 25, 10, 10), 160, 80)
    assert np.array_equal(made[0, rows, columns], censor.cover(image[0, rows, columns], overlay[0], mask[0], 1.0))


@pytest.mark.parametrize(
    ("method", "blocks", "told"),
    [("pixelate", 3, False), ("pixelate", 16, False), ("pixelate", 17, True), ("blur", 2, True), ("blur", 3, False)],
)
def test_a_setting_that_hides_little_is_said(method: str, blocks: int, told: bool, face: Any, run: RunContext) -> None:
    apply(pictures(2), method, blocks=blocks)  # an area of 42×22
    assert ["recognisable" in warning for warning in run.warnings] == [True] * told


def test_progress_and_interrupts(face: Any, run: RunContext, events: list[Any]) -> None:
    apply(pictures(2))
    assert [(event.value, event.total) for event in events if event.kind == "step"] == [(1, 2), (2, 2)]

    def stop() -> None:
        raise Interrupted("stopped")

    run.check = stop
    with pytest.raises(Interrupted):
        apply(pictures(3))


def test_a_tensor_comes_back_as_a_tensor(face: Any) -> None:
    torch = pytest.importorskip("torch")
    image = torch.from_numpy(pictures())
    before = image.clone()
    (made,) = ApplyNudenet().apply_nudenet(load(), image, "pixelate", [])
    assert isinstance(made, torch.Tensor)
    assert torch.equal(image, before)
    assert not torch.equal(made, image)


# Failing closed.


def fail(planes: np.ndarray) -> np.ndarray:
    raise RuntimeError("the model broke")


def broken(value: float, channels: int = 3) -> np.ndarray:
    image = pictures(2, channels)
    image[1, 3, 3, 0] = value
    return image


OVERLAY = np.zeros((1, 4, 4, 3), np.float32)
OPAQUE, CLEAR = np.zeros((1, 4, 4), np.float32), np.ones((1, 4, 4), np.float32)

# What goes wrong: the model's answer (None: it sees a face), the inputs, and the error.
CLOSED: dict[str, tuple[Callable[[np.ndarray], np.ndarray] | None, dict[str, Any], type[Exception]]] = {
    "exception-in-the-model": (fail, {}, RuntimeError),
    "nan-score": (lambda p: seen((FACE, np.nan)), {}, NodeError),
    "infinite-score": (lambda p: seen((FACE, np.inf)), {}, NodeError),
    "negative-score": (lambda p: seen((FACE, -0.5)), {}, NodeError),
    "logits": (lambda p: seen((FACE, 4.0)), {}, NodeError),
    "nan-box": (lambda p: seen((FACE, 0.9), box=(np.nan, 60, 80, 40)), {}, NodeError),
    "other-model": (lambda p: np.zeros((1, 84, 8400), np.float32), {}, NodeError),
    "no-candidates": (lambda p: np.zeros((1, 22, 0), np.float32), {}, NodeError),
    "no-image": (None, {"image": None}, NodeError),
    "empty-batch": (None, {"image": pictures()[:0]}, NodeError),
    "bytes": (None, {"image": np.zeros((1, 8, 8, 3), np.uint8)}, NodeError),
    "nan-pixel-in-the-second": (None, {"image": broken(np.nan)}, NodeError),
    "infinite-pixel-in-the-second": (None, {"image": broken(np.inf)}, NodeError),
    "another-packs-model": (None, {"nudenet_model": {"session": object()}}, NodeError),
    "unknown-method": (None, {"censor_method": "none"}, NodeError),
    "unknown-scaling": (None, {"block_count_scaling": "none"}, NodeError),
    "no-blocks": (None, {"blocks": 0}, NodeError),
    "nan-blocks": (None, {"blocks": float("nan")}, NodeError),
    "too-many-blocks": (None, {"blocks": 101}, NodeError),
    "nan-min-score": (None, {"min_score": float("nan")}, NodeError),
    "min-score-beyond-reach": (None, {"min_score": 1.5}, NodeError),
    "no-labels": (None, {"filtered_labels": None}, NodeError),
    "labels-as-text": (None, {"filtered_labels": "FACE_FEMALE"}, NodeError),
    "unknown-label": (None, {"filtered_labels": [18]}, NodeError),
    "negative-label": (None, {"filtered_labels": [-17]}, NodeError),
    "label-by-name": (None, {"filtered_labels": ["FACE_FEMALE"]}, NodeError),
    "true-as-label": (None, {"filtered_labels": [True]}, NodeError),
    "no-overlay": (None, {"censor_method": "image", "alpha_mask": OPAQUE}, NodeError),
    "overlay-is-clear": (None, {"censor_method": "image", "overlay_image": OVERLAY, "alpha_mask": CLEAR}, NodeError),
    "nan-overlay": (None, {"censor_method": "image", "overlay_image": OVERLAY * np.nan}, NodeError),
    "nan-mask": (
        None,
        {"censor_method": "image", "overlay_image": OVERLAY, "alpha_mask": OPAQUE * np.nan},
        NodeError,
    ),
    "mask-is-an-image": (
        None,
        {"censor_method": "image", "overlay_image": OVERLAY, "alpha_mask": OVERLAY},
        NodeError,
    ),
    "nan-strength": (
        None,
        {"censor_method": "image", "overlay_image": OVERLAY, "overlay_strength": float("nan")},
        NodeError,
    ),
    "negative-strength": (
        None,
        {"censor_method": "image", "overlay_image": OVERLAY, "overlay_strength": -1},
        NodeError,
    ),
}


@pytest.mark.parametrize("case", CLOSED)
def test_fails_closed(case: str, face: Any) -> None:
    answer, inputs, error = CLOSED[case]
    face.answer = answer or face.answer
    given = {
        "nudenet_model": load(),
        "image": pictures(2),
        "censor_method": "pixelate",
        "filtered_labels": [],
        **inputs,
    }
    with pytest.raises(error):
        ApplyNudenet().apply_nudenet(**given)


def test_an_error_in_a_later_picture_is_an_error(nudenet: Any) -> None:
    calls = iter(range(3))
    nudenet.answer = lambda planes: fail(planes) if next(calls) == 2 else seen()
    with pytest.raises(RuntimeError):
        apply(pictures(3))


def test_a_censor_that_fails_is_an_error(face: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_pixelate(area: np.ndarray, blocks: int) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr("comfy_cpu_nodes.ops.censor.pixelate", broken_pixelate)
    with pytest.raises(MemoryError):
        apply(pictures())


def test_a_model_that_went_away_or_broke_since_it_was_loaded_is_an_error(
    face: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = load()

    def gone(path: Path, **options: object) -> None:
        raise ModelMissing(f"{path} does not exist")

    monkeypatch.setattr(sys.modules["comfy_cpu_nodes.runtimes"], "load_onnx", gone)
    with pytest.raises(ModelMissing):
        apply(pictures(), nudenet_model=file)
