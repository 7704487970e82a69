"""What answers mean, against values worked out by hand."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from comfy_cpu_nodes.ops.florence import (
    TASKS,
    Normalisation,
    caption,
    encode,
    hash_seed,
    parse_boxes,
    parse_grounding,
    parse_polygons,
    parse_quads,
    prompt,
    selected,
)

# One bin is one pixel: <loc_n> lies at n + 0.5.
EVEN = (1000, 1000)


def locations(*numbers: int) -> str:
    return "".join(f"<loc_{number}>" for number in numbers)


def test_the_tasks_and_what_the_model_is_asked() -> None:
    asked = {name: prompt(name, " a cat ") for name in TASKS}
    assert asked == {
        "region_caption": "Locate the objects with category name in the image.",
        "dense_region_caption": "Locate the objects in the image, with their descriptions.",
        "region_proposal": "Locate the region proposals in the image.",
        "caption": "What does the image describe?",
        "detailed_caption": "Describe in detail what is shown in the image.",
        "more_detailed_caption": "Describe with a paragraph what is shown in the image.",
        "caption_to_phrase_grounding": "Locate the phrases in the caption: a cat",
        "referring_expression_segmentation": "Locate a cat in the image with mask",
        "ocr": "What is the text in the image?",
        "ocr_with_region": "What is the text in the image, with regions?",
        "docvqa": "<DocVQA> a cat",
        "prompt_gen_tags": "<GENERATE_TAGS>",
        "prompt_gen_mixed_caption": "<MIXED_CAPTION>",
        "prompt_gen_analyze": "<ANALYZE>",
        "prompt_gen_mixed_caption_plus": "<MIXED_CAPTION_PLUS>",
    }
    assert [name for name, task in TASKS.items() if task.takes_text] == [
        "caption_to_phrase_grounding",
        "referring_expression_segmentation",
        "docvqa",
    ]


def test_the_users_text_is_no_format() -> None:
    assert prompt("docvqa", "{0} {} {x}") == "<DocVQA> {0} {} {x}"


@pytest.mark.parametrize("seed", [1, 25479647846595, 2**64 - 1])
def test_seeds_are_hashed(seed: int) -> None:
    expected = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[-4:], "big")
    assert hash_seed(seed) == expected


@pytest.mark.parametrize(
    ("task", "answer", "text"),
    [
        ("caption", "</s><s>a cat</s>", "a cat"),
        ("caption", "</s><s> a cat </s><pad><pad>", " a cat "),
        ("region_caption", "</s><s>car<loc_1><loc_2><loc_3><loc_4></s>", "car<loc_1><loc_2><loc_3><loc_4>"),
        ("ocr_with_region", "</s><s>ONE<loc_1><loc_2>TWO<loc_3></s>", "\nONE\nTWO\n"),
        ("ocr", "</s><s>ONE TWO</s>", "ONE TWO"),
    ],
)
def test_captions(task: str, answer: str, text: str) -> None:
    assert caption(task, answer) == text


def test_boxes() -> None:
    """The example of Florence-2's model card, to its last digit."""
    answer = f"</s><s>car{locations(52, 332, 932, 774)}door handle{locations(412, 516, 451, 532)}</s>"
    assert parse_boxes("region_caption", answer, (640, 480)) == [
        ("car", [33.599998474121094, 159.59999084472656, 596.7999877929688, 371.7599792480469]),
        ("door handle", [264.0, 247.9199981689453, 288.9599914550781, 255.59999084472656]),
    ]


@pytest.mark.parametrize(
    ("answer", "boxes"),
    [
        ("", []),
        ("a cat", []),
        (f"cat{locations(1, 2, 3)}", []),
        (f" cat {locations(1, 2, 3, 4)}", [("cat", [1.5, 2.5, 3.5, 4.5])]),
        (f"a > b{locations(1, 2, 3, 4)}", [("a > b", [1.5, 2.5, 3.5, 4.5])]),
        (
            f"cat{locations(1, 2, 3, 4, 5, 6, 7, 8, 9)}",
            [("cat", [1.5, 2.5, 3.5, 4.5]), ("cat", [5.5, 6.5, 7.5, 8.5])],
        ),
        (f"café{locations(9, 8, 1, 2)}", [("caf", [9.5, 8.5, 1.5, 2.5])]),
        (f"{locations(1, 2, 3, 4)}cat{locations(5, 6, 7, 8)}", [("cat", [5.5, 6.5, 7.5, 8.5])]),
    ],
)
def test_boxes_of_odd_answers(answer: str, boxes: list[tuple[str, list[float]]]) -> None:
    assert parse_boxes("dense_region_caption", f"</s><s>{answer}</s>", EVEN) == boxes


def test_proposals_have_no_labels() -> None:
    answer = f"</s><s>{locations(1, 2, 3, 4, 5, 6, 7, 8)}</s>"
    assert parse_boxes("region_proposal", answer, EVEN) == [("", [1.5, 2.5, 3.5, 4.5]), ("", [5.5, 6.5, 7.5, 8.5])]


def test_grounding_leaves_pronouns_out() -> None:
    answer = (
        f"</s><s>A cat{locations(1, 2, 3, 4, 5, 6, 7, 8)}it{locations(1, 2, 3, 4)}the image{locations(1, 2, 3, 4)}</s>"
    )
    assert parse_grounding(answer, EVEN) == [("A cat", [1.5, 2.5, 3.5, 4.5]), ("A cat", [5.5, 6.5, 7.5, 8.5])]


def test_quads() -> None:
    answer = f"</s><s>ONE{locations(*range(8))} two words{locations(*range(10, 18))}cut off{locations(1, 2)}</s>"
    assert parse_quads(answer, EVEN) == [
        ("ONE", [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]),
        ("two words", [10.5, 11.5, 12.5, 13.5, 14.5, 15.5, 16.5, 17.5]),
    ]


@pytest.mark.parametrize(
    ("answer", "objects"),
    [
        ("no places", []),
        (locations(1, 2), []),
        (locations(1, 2, 3, 4, 5, 6, 7), [[[1.5, 2.5, 3.5, 4.5, 5.5, 6.5]]]),
        (f"{locations(1, 2, 3, 4)}<sep>{locations(5, 6)}", [[[1.5, 2.5, 3.5, 4.5], [5.5, 6.5]]]),
        (
            f"<poly>{locations(1, 2, 3, 4)}<sep>{locations(5, 6)}</poly><poly>{locations(7, 8)}</poly>",
            [[[1.5, 2.5, 3.5, 4.5], [5.5, 6.5]], [[7.5, 8.5]]],
        ),
        (f"a{locations(1, 2, 3, 4)}b{locations(5, 6, 7, 8)}", [[[1.5, 2.5, 3.5, 4.5]], [[5.5, 6.5, 7.5, 8.5]]]),
    ],
)
def test_polygons(answer: str, objects: list[list[list[float]]]) -> None:
    assert parse_polygons(f"</s><s>{answer}</s>", EVEN) == objects


def test_width_and_height_are_not_mixed_up() -> None:
    answer = f"x{locations(100, 100, 200, 200)}"
    assert parse_boxes("region_caption", answer, (1000, 2000)) == [("x", [100.5, 201.0, 200.5, 401.0])]
    assert parse_polygons(locations(100, 100, 200, 200), (1000, 2000)) == [[[100.5, 201.0, 200.5, 401.0]]]


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [("", [1, 2, 3]), (" ", [1, 2, 3]), ("0", [1]), ("2, cat", [1, 3]), ("dog", [2]), ("7,bird", [])],
)
def test_selection(choice: str, chosen: list[int]) -> None:
    places = [("cat", [1.0] * 4), ("dog", [2.0] * 4), ("cat", [3.0] * 4)]
    assert [box[0] for box in selected(places, choice)] == chosen


def test_pictures_are_prepared() -> None:
    """Bicubic on 8-bit pixels, then from 0 to 1, then mean and deviation."""
    picture = np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8)
    planes = encode(picture, Normalisation(side=32))
    assert (planes.dtype, planes.shape, planes.flags.c_contiguous) == (np.float32, (1, 3, 32, 32), True)
    resized = np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BICUBIC), np.float64) / 255
    expected = (resized - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.allclose(planes[0], expected.transpose(2, 0, 1), atol=1e-6)


def test_pictures_are_768_wide_and_high() -> None:
    assert encode(np.zeros((5, 9, 3), np.uint8), Normalisation()).shape == (1, 3, 768, 768)
