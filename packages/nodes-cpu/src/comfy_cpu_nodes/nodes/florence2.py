"""The node that asks Florence-2 about pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from comfy_cpu_core.errors import NodeError
from comfy_cpu_nodes import host
from comfy_cpu_nodes.arrays import like, to_numpy
from comfy_cpu_nodes.ops import florence as ops
from comfy_cpu_nodes.ops import florence_draw as drawing
from comfy_cpu_nodes.ops.pixels import Pixels, stack, to_pixels, to_rgb

if TYPE_CHECKING:
    from comfy_cpu_nodes.runtimes.florence import FlorenceModel, Sampling

__all__ = ["Florence2Run", "TextInputError"]

_TEXT_TASKS = tuple(name for name, task in ops.TASKS.items() if task.takes_text)


class TextInputError(NodeError, ValueError):
    """``text_input`` and ``task`` do not go together. A ValueError too, as workflows' front ends know it."""


@dataclass
class _Outputs:
    """What the run node gives, picture by picture."""

    texts: list[str] = field(default_factory=list)
    images: list[Pixels] = field(default_factory=list)
    masks: list[Pixels] = field(default_factory=list)
    data: list[Any] = field(default_factory=list)


class Florence2Run:
    """Asks Florence-2 about pictures."""

    CATEGORY = "Florence2"
    DESCRIPTION = (
        "Describes pictures, finds things in them, reads their text. The same seed gives the same answer. Several "
        "questions about one picture look at it once. Only caption_to_phrase_grounding, "
        "referring_expression_segmentation and docvqa take text_input."
    )
    FUNCTION = "encode"
    RETURN_TYPES = ("IMAGE", "MASK", "STRING", "JSON")
    RETURN_NAMES = ("image", "mask", "caption", "data")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The pictures to ask about."}),
                "florence2_model": ("FL2MODEL", {"tooltip": "From one of the Florence-2 loaders."}),
                "text_input": (
                    "STRING",
                    {"default": "", "multiline": True, "tooltip": f"Only for {', '.join(_TEXT_TASKS)}."},
                ),
                "task": (
                    list(ops.TASKS),
                    {
                        "default": "region_caption",
                        "tooltip": "What to ask. The prompt_gen tasks need a PromptGen model.",
                    },
                ),
                "fill_mask": (
                    "BOOLEAN",
                    {"default": True, "tooltip": "Fill what is drawn; give a mask of the boxes."},
                ),
            },
            "optional": {
                "keep_model_loaded": (
                    "BOOLEAN",
                    {"default": False, "tooltip": "Not used: models stay in memory while there is room."},
                ),
                "max_new_tokens": (
                    "INT",
                    {"default": 1024, "min": 1, "max": 4096, "tooltip": "The answer ends there at the latest."},
                ),
                "num_beams": (
                    "INT",
                    {"default": 3, "min": 1, "max": 64, "tooltip": "How many beginnings are followed at once."},
                ),
                "do_sample": ("BOOLEAN", {"default": True, "tooltip": "Let chance, by the seed, have a say."}),
                "output_mask_select": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "Which boxes make the mask: indices or labels, with commas; all if empty.",
                    },
                ),
                "seed": (
                    "INT",
                    {"default": 1, "min": 1, "max": 2**64 - 1, "tooltip": "The same seed, the same answer."},
                ),
            },
        }

    def encode(
        self,
        image: Any,
        florence2_model: Any,
        text_input: str = "",
        task: str = "region_caption",
        fill_mask: bool = True,
        keep_model_loaded: bool = False,
        max_new_tokens: int = 1024,
        num_beams: int = 3,
        do_sample: bool = True,
        output_mask_select: str = "",
        seed: int = 1,
    ) -> tuple[Any, Any, str | list[str], list[Any]]:
        """Give annotated pictures, masks, the answers as text, and what they hold.

        Where a task gives no pictures or no masks, they are 64×64 zeros. The answer is a text for one picture, a list
        for several. `data` is a list of boxes for each picture; for grounding ``{bboxes, labels}`` for each; for
        ocr_with_region ``{label, box}`` for each line of text, `box` being eight numbers from 0 to 1; otherwise empty.

        Raises:
            TextInputError: the task takes no text, or needs some.
            ModelError: the model fails, or there is not enough memory.
            NodeError: an input makes no sense.
        """
        from comfy_cpu_nodes.runtimes.florence import Florence, Sampling, lease_florence

        if not isinstance(florence2_model, Florence):
            raise host.node_error(
                f"florence2_model: a {type(florence2_model).__name__} is no Florence-2 that this node can ask",
                remedy="connect a Florence-2 loader of comfy-cpu",
            )
        _check_text(task, text_input)
        frames = to_numpy(image)
        question = ops.prompt(task, text_input)
        found = _Outputs()
        with lease_florence(florence2_model) as model:
            # The same for each picture: in a batch it gets the answer that it would get alone.
            chance = Sampling(min(max_new_tokens, model.longest_answer), num_beams, do_sample, ops.hash_seed(seed))
            steps = host.progress(chance.max_new_tokens * len(frames))
            for frame in frames:
                picture = to_rgb(to_pixels(frame))
                answer, written = _ask(model, picture, question, chance, steps)
                _add(found, task, answer, picture, fill=fill_mask, select=output_mask_select)
                if written < chance.max_new_tokens:
                    steps.step(chance.max_new_tokens - written)
        images = stack(found.images) if found.images else np.zeros((1, 64, 64, 3), np.float32)
        masks = stack(found.masks) if found.masks else np.zeros((1, 64, 64), np.float32)
        captions: str | list[str] = found.texts[0] if len(found.texts) == 1 else found.texts
        return like(images, image), like(masks, image), captions, found.data


def _ask(model: FlorenceModel, picture: Pixels, question: str, chance: Sampling, steps: host.Steps) -> tuple[str, int]:
    """The answer, and how many tokens it has."""
    written = 0

    def on_token() -> None:
        nonlocal written
        written += 1
        steps.step()

    return model.answer(picture, question, chance, on_token), written


def _check_text(task: str, text: str) -> None:
    if task not in ops.TASKS:
        raise host.node_error(f"task {task!r} is none that Florence-2 knows")
    wrong = None
    if text and not ops.TASKS[task].takes_text:
        wrong = f"text_input is only for {', '.join(_TEXT_TASKS)}, not for {task}"
    elif task == "docvqa" and not text.strip():
        wrong = "text_input is empty, but docvqa needs a question"
    if wrong:
        error = host.node_error(wrong)
        raise TextInputError(wrong, node_id=error.node_id, class_type=error.class_type)


def _add(found: _Outputs, task: str, answer: str, picture: Pixels, *, fill: bool, select: str) -> None:
    """Put what an answer holds to the outputs.

    Args:
        picture: what was asked about, uint8 [H,W,3].
        fill, select: as the node's inputs fill_mask and output_mask_select.
    """
    found.texts.append(ops.caption(task, answer))
    height, width = picture.shape[:2]
    match ops.TASKS[task].kind:
        case "boxes" | "proposals" | "grounding" as kind:
            grounding = kind == "grounding"
            places = (
                ops.parse_grounding(answer, (width, height))
                if grounding
                else ops.parse_boxes(task, answer, (width, height))
            )
            boxes, labels = [box for _, box in places], [label for label, _ in places]
            found.data.append({"bboxes": boxes, "labels": labels} if grounding else boxes)
            found.images.append(drawing.draw_boxes(picture, places))
            if fill:
                found.masks.append(drawing.box_mask(picture, ops.selected(places, select)))
        case "polygons":
            objects = ops.parse_polygons(answer, (width, height))
            found.images.append(drawing.draw_polygons(picture, objects, fill=fill))
            found.masks.append(drawing.outline_mask(picture, [outline for outlines in objects for outline in outlines]))
        case "quads":
            lines = ops.parse_quads(answer, (width, height))
            sides = (width, height) * 4
            for label, quad in lines:
                box = [value / side for value, side in zip(quad, sides, strict=True)]
                found.data.append({"label": label, "box": box})
            found.images.append(drawing.draw_quads(picture, lines, fill=fill))
            found.masks.append(drawing.outline_mask(picture, [quad for _, quad in lines]))
