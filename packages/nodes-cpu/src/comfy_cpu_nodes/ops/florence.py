"""What Florence-2 is asked, and what its answers mean: text with tags like ``car<loc_52><loc_332><loc_932><loc_774>``.

A location is one of 1000 bins along a side of the picture; it stands for the middle of its bin, in pixels.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from comfy_cpu_nodes.ops.pixels import FloatArray, Pixels

__all__ = [
    "TASKS",
    "Box",
    "Normalisation",
    "Polygons",
    "Size",
    "Task",
    "caption",
    "encode",
    "hash_seed",
    "parse_boxes",
    "parse_grounding",
    "parse_polygons",
    "parse_quads",
    "prompt",
    "selected",
]

#: x0, y0, x1, y1 in pixels, as the model said them: not necessarily in order.
Box = list[float]

#: Width and height of the picture in pixels.
Size = tuple[int, int]

Kind = Literal["text", "boxes", "proposals", "grounding", "polygons", "quads"]

_BINS = 1000

_LOCATION = re.compile(r"<loc_(\d+)>")
# A label begins where a tag ends, not inside it.
_LABELLED_LOCATIONS = re.compile(r"(?:^|(?<=>))([^<]+)((?:<loc_\d+>){4,})")
_BARE_LOCATIONS = re.compile(r"()((?:<loc_\d+>){4,})")
_QUAD = re.compile(r"(.+?)" + r"<loc_(\d+)>" * 8)
_OUTLINES = re.compile(r"(?:<loc_\d+>|<sep>|<poly>|</poly>){4,}")
_INSTANCE = re.compile(r"<poly>(.*?)</poly>")
_OUTLINE = re.compile(r"((?:<loc_\d+>)+)(?:<sep>|$)")
_ANY_TAG = re.compile(r"<[^>]*>")
_TEXT_MARKS = re.compile(r"</?s>|<pad>")

# Phrases of a caption that are not worth a box: pronouns, quantities, and "the image" itself.
_PRONOUNS_AND_THE_LIKE = (
    "it,I,me,mine,you,your,yours,he,him,his,she,her,hers,they,them,their,theirs,one,oneself,we,us,our,ours,its,myself,"
    "yourself,himself,herself,itself,ourselves,yourselves,themselves,each other,one another,this,that,these,those,who,"
    "whom,whose,which,what,all,another,any,anybody,anyone,anything,each,everybody,everyone,everything,few,many,nobody,"
    "none,several,some,somebody,someone,something,the image,image,images,the,a,an,a group,other objects,lots,a set"
)
_NOT_GROUNDED = frozenset(_PRONOUNS_AND_THE_LIKE.split(","))


@dataclass(frozen=True)
class Task:
    """One thing that the model can be asked.

    Attributes:
        question: what the model is asked; ``{}`` is where the user's text goes.
        kind: what its answer holds.
    """

    question: str
    kind: Kind = "text"

    @property
    def takes_text(self) -> bool:
        """Whether the user's text is part of the question."""
        return "{}" in self.question


#: The tasks by the name that the node gives them, in the order in which it lists them. The model knows the questions of
#: the first ten by heart; the task's token (``<OD>``, ``<CAPTION>``, …) is only how programs call them. The others are
#: tokens that fine-tuned models learned.
TASKS: dict[str, Task] = {
    "region_caption": Task("Locate the objects with category name in the image.", "boxes"),
    "dense_region_caption": Task("Locate the objects in the image, with their descriptions.", "boxes"),
    "region_proposal": Task("Locate the region proposals in the image.", "proposals"),
    "caption": Task("What does the image describe?"),
    "detailed_caption": Task("Describe in detail what is shown in the image."),
    "more_detailed_caption": Task("Describe with a paragraph what is shown in the image."),
    "caption_to_phrase_grounding": Task("Locate the phrases in the caption: {}", "grounding"),
    "referring_expression_segmentation": Task("Locate {} in the image with mask", "polygons"),
    "ocr": Task("What is the text in the image?"),
    "ocr_with_region": Task("What is the text in the image, with regions?", "quads"),
    "docvqa": Task("<DocVQA> {}"),
    "prompt_gen_tags": Task("<GENERATE_TAGS>"),
    "prompt_gen_mixed_caption": Task("<MIXED_CAPTION>"),
    "prompt_gen_analyze": Task("<ANALYZE>"),
    "prompt_gen_mixed_caption_plus": Task("<MIXED_CAPTION_PLUS>"),
}


@dataclass(frozen=True)
class Normalisation:
    """How a picture becomes numbers for the model.

    Attributes:
        side: width and height in pixels.
        mean, deviation: of each channel, for values from 0 to 1.
    """

    side: int = 768
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    deviation: tuple[float, float, float] = (0.229, 0.224, 0.225)


#: The outlines of one object, each as x, y, x, y, … in pixels.
Polygons = list[list[float]]


def prompt(task: str, text: str) -> str:
    """The question for a task, with the user's text where it takes one."""
    return TASKS[task].question.format(text.strip()) if TASKS[task].takes_text else TASKS[task].question


def hash_seed(seed: int) -> int:
    """The seed of the random numbers, 0 to 2³²-1, for the seed that the user gave."""
    return int(hashlib.sha256(str(seed).encode()).hexdigest(), 16) % 2**32


def encode(picture: Pixels, how: Normalisation) -> FloatArray:
    """A picture, uint8 [H,W,3], as the model takes it: float32 [1,3,side,side], stretched with a bicubic filter."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    resized = image.resize((how.side, how.side), Image.Resampling.BICUBIC)
    values: FloatArray = np.asarray(resized, np.float32) / np.float32(255)
    values -= np.array(how.mean, np.float32)
    values /= np.array(how.deviation, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[np.newaxis])


def caption(task: str, answer: str) -> str:
    """The answer as text: without ``<s>`` and ``</s>``; of regions with text, each text on a line of its own."""
    if TASKS[task].kind == "quads":
        return re.sub(r"\n+", "\n", _ANY_TAG.sub("\n", answer))
    return _TEXT_MARKS.sub("", answer)


def parse_boxes(task: str, answer: str, size: Size) -> list[tuple[str, Box]]:
    """Label and box of every object, in the answer's order. Proposals have empty labels.

    Args:
        size: width and height of the picture.
    """
    pattern = _BARE_LOCATIONS if TASKS[task].kind == "proposals" else _LABELLED_LOCATIONS
    return [(_ascii(label), box) for label, box in _labelled_boxes(pattern, answer, size)]


def parse_grounding(answer: str, size: Size) -> list[tuple[str, Box]]:
    """Phrase and box of every place where a phrase of the caption was found; pronouns and the like are left out."""
    found = _labelled_boxes(_LABELLED_LOCATIONS, answer, size)
    return [(_ascii(phrase), box) for phrase, box in found if phrase not in _NOT_GROUNDED]


def parse_quads(answer: str, size: Size) -> list[tuple[str, list[float]]]:
    """Text and quadrilateral (x and y of four corners) of every line of text."""
    return [
        (match[1].strip(), _pixels(match.groups()[1:], size)) for match in _QUAD.finditer(_TEXT_MARKS.sub("", answer))
    ]


def parse_polygons(answer: str, size: Size) -> list[Polygons]:
    """The outlines of every object; one object may have several."""
    objects = []
    for outlines in _OUTLINES.findall(_TEXT_MARKS.sub("", answer)):
        instances = _INSTANCE.findall(outlines) if "<poly>" in outlines and "</poly>" in outlines else [outlines]
        for instance in instances:
            bins = [_LOCATION.findall(outline) for outline in _OUTLINE.findall(instance)]
            if bins:
                # A number without a partner is no point.
                objects.append([_pixels(outline[: len(outline) // 2 * 2], size) for outline in bins])
    return objects


def selected(places: Iterable[tuple[str, Box]], choice: str) -> Iterator[Box]:
    """The boxes that a mask is made of.

    Args:
        choice: indices and labels, separated by commas; all boxes if it is empty.
    """
    names = {name.strip() for name in choice.split(",")} if choice.strip() else None
    for index, (label, box) in enumerate(places):
        if names is None or str(index) in names or label in names:
            yield box


def _labelled_boxes(pattern: re.Pattern[str], answer: str, size: Size) -> Iterator[tuple[str, Box]]:
    """Four numbers make a box; what is left over of a run of them is dropped."""
    for label, tags in pattern.findall(_TEXT_MARKS.sub("", answer)):
        bins = _LOCATION.findall(tags)
        for start in range(0, len(bins) - 3, 4):
            yield label.strip(), _pixels(bins[start : start + 4], size)


def _ascii(label: str) -> str:
    # As the model's own post-processing has it: workflows compare and select by these labels.
    return label.encode("ascii", "ignore").decode("ascii")


def _pixels(bins: Iterable[str], size: Size) -> list[float]:
    """Bins x, y, x, y, … to the middles of the bins in pixels, in the float32 arithmetic that the results are known by."""
    width, height = (np.float32(side / _BINS) for side in size)
    values = np.array([int(number) for number in bins], np.float32) + np.float32(0.5)
    values[0::2] *= width
    values[1::2] *= height
    return [float(value) for value in values]
