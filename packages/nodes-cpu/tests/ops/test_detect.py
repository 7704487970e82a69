"""Against OpenCV and the `nudenet` package, which are installed for the tests only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_cpu_nodes.ops import detect as ops

PHOTO = Path(__file__).parents[4] / "examples" / "astronaut.jpg"


@pytest.fixture(scope="module")
def nudenet() -> Any:
    from nudenet import nudenet

    return nudenet


@pytest.fixture(scope="module")
def detector() -> Any:
    from nudenet import NudeDetector

    return NudeDetector()


def bgr(picture: np.ndarray) -> np.ndarray:
    """What OpenCV reads from a file."""
    return np.ascontiguousarray(picture[..., ::-1])


def test_the_labels_are_the_packages(nudenet: Any) -> None:
    assert list(ops.LABELS) == nudenet.__labels


SIZES = [(1, 1), (1, 2), (3, 2), (1, 5000), (5000, 1), (159, 160), (320, 320), (321, 319), (640, 640), (640, 20)]
SIZES += [(1024, 1024), (1279, 961), (100, 1300)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_encode_gives_the_packages_bits(height: int, width: int, nudenet: Any) -> None:
    picture = np.random.default_rng(height + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = nudenet._read_image(bgr(picture), 320)[0]
    made = ops.encode(picture)
    assert made.dtype == expected.dtype
    assert made.flags.c_contiguous
    assert np.array_equal(made, expected)


@pytest.mark.parametrize("side", [32, 640])
def test_encode_at_another_side(side: int, nudenet: Any) -> None:
    picture = np.random.default_rng(side).integers(0, 256, (431, 277, 3), dtype=np.uint8)
    assert np.array_equal(ops.encode(picture, side), nudenet._read_image(bgr(picture), side)[0])


def test_suppress_keeps_what_opencv_keeps() -> None:
    import cv2

    generator = np.random.default_rng(7)
    for _ in range(150):
        count = int(generator.integers(1, 150))
        sides = generator.uniform(0, 150, (count, 2)) * (generator.random((count, 2)) > 0.05)
        boxes = np.hstack((generator.uniform(0, 300, (count, 2)), sides)).astype(np.float32)
        scores = generator.uniform(0.2, 1, count).round(2).astype(np.float32)  # rounded: many are equal
        expected = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), 0.25, 0.45)
        assert ops.suppress(boxes, scores) == [int(index) for index in expected]


def test_suppress_of_nothing() -> None:
    assert ops.suppress(np.empty((0, 4), np.float32), np.empty(0, np.float32)) == []


@pytest.mark.parametrize("crop", [slice(None), slice(0, 300), slice(100, 200)])
@pytest.mark.parametrize("turn", [0, 1])
def test_detections_on_a_photo_are_the_packages(crop: slice, turn: int, detector: Any) -> None:
    with Image.open(PHOTO) as file:
        picture = np.rot90(np.asarray(file.convert("RGB"))[crop], turn)
    answer = detector.onnx_session.run(None, {detector.input_name: ops.encode(picture)})[0]
    found = ops.decode(answer, (picture.shape[1], picture.shape[0]))
    expected = detector.detect(bgr(picture))
    assert [{"class": d.label, "score": d.score, "box": list(d.box)} for d in found] == expected
    assert turn or found, "a face is seen in the upright photo"


def answer(*candidates: tuple[tuple[float, float, float, float], int, float]) -> np.ndarray:
    table = np.zeros((1, 22, max(1, len(candidates))), np.float32)
    for column, (box, label, score) in enumerate(candidates):
        table[0, :4, column] = box
        table[0, 4 + label, column] = score
    return table


def test_decode_scales_boxes_and_keeps_them_inside_the_picture() -> None:
    # The picture's longer side, 640, is the network's 320: everything doubles.
    found = ops.decode(answer(((50, 20, 40, 20), 3, 0.9), ((310, 150, 80, 80), 1, 0.5)), (640, 320))
    assert found == [
        ops.Detection("FEMALE_BREAST_EXPOSED", pytest.approx(0.9), (60, 20, 80, 40)),  # type: ignore[arg-type]
        ops.Detection("FACE_FEMALE", pytest.approx(0.5), (540, 220, 100, 100)),  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize(("score", "count"), [(0.1, 0), (0.2, 0), (0.25, 0), (0.26, 1)])
def test_low_scores_are_dropped(score: float, count: int) -> None:
    assert len(ops.decode(answer(((50, 50, 20, 20), 3, score)), (320, 320))) == count


def test_the_best_of_two_that_overlap_stays() -> None:
    found = ops.decode(answer(((50, 50, 20, 20), 3, 0.6), ((51, 50, 20, 20), 4, 0.7)), (320, 320))
    assert [d.label for d in found] == ["FEMALE_GENITALIA_EXPOSED"]


BAD = {
    "no-batch": np.zeros((22, 10), np.float32),
    "two-pictures": np.zeros((2, 22, 10), np.float32),
    "too-few-labels": np.zeros((1, 21, 10), np.float32),
    "transposed": np.zeros((1, 2100, 22), np.float32),
    "no-candidates": np.zeros((1, 22, 0), np.float32),
    "nan-score": answer(((50, 50, 20, 20), 3, np.nan)),
    "infinite-score": answer(((50, 50, 20, 20), 3, np.inf)),
    "nan-box": answer(((np.nan, 50, 20, 20), 3, 0.9)),
    "logits": answer(((50, 50, 20, 20), 3, 4.2)),
    "negative-score": answer(((50, 50, 20, 20), 3, -0.1)),
}


@pytest.mark.parametrize("case", BAD)
def test_an_answer_that_makes_no_sense_is_an_error(case: str) -> None:
    with pytest.raises(ValueError, match="the model gives"):
        ops.decode(BAD[case], (320, 320))
