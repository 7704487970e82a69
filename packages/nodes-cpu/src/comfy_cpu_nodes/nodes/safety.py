"""Nodes that look for what must not be shown. They fail closed: whatever goes wrong raises, and never reads as safe."""

from __future__ import annotations

import json
from typing import Any

from comfy_cpu_nodes import host
from comfy_cpu_nodes.arrays import to_numpy
from comfy_cpu_nodes.nodes.detector import SMALL_DETECTOR, find_detector, load_detector

__all__ = ["NudeNetSafetyChecker"]

#: The labels that make a picture unfit.
_NSFW = frozenset(
    {
        "FEMALE_BREAST_EXPOSED",
        "FEMALE_GENITALIA_EXPOSED",
        "MALE_GENITALIA_EXPOSED",
        "ANUS_EXPOSED",
        "BUTTOCKS_EXPOSED",
    }
)


class NudeNetSafetyChecker:
    """NudeNet looks for nudity."""

    CATEGORY = "LLM/Local/Safety"
    DESCRIPTION = (
        "Looks for exposed body parts with NudeNet, in every picture of the batch. Stops with an error if it cannot: "
        "it never calls a picture safe that it has not seen. Scores below 0.25 are never reported, whatever the "
        "threshold."
    )
    FUNCTION = "check_nudity"
    RETURN_TYPES = ("STRING", "BOOLEAN", "FLOAT")
    RETURN_NAMES = ("json", "is_nsfw", "max_score")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": ("IMAGE", {"tooltip": "The pictures to check."})},
            "optional": {
                "threshold": (
                    "FLOAT",
                    {
                        "default": 0.6,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.05,
                        "tooltip": "The score that counts as found.",
                    },
                )
            },
        }

    def check_nudity(self, image: Any, threshold: float = 0.6) -> tuple[str, bool, float]:
        """Give what was found as JSON, whether it is too much, and the highest score of what is too much.

        The pictures go to the detector pixel by pixel, not through a JPEG; alpha is left out, what lies under it is
        checked. In a batch of several, each detection says in ``image`` which one it is in.

        Raises:
            ModelMissing, ModelCorrupt: NudeNet is not there or cannot be loaded.
            NodeError: the input cannot be checked, or the model's answer makes no sense.
        """
        if not 0 <= threshold <= 1:  # nothing ever reaches a threshold that is not a number
            raise host.node_error(f"threshold: a number from 0 to 1 is needed, not {threshold}")
        frames = to_numpy(image)
        detector = load_detector(find_detector(SMALL_DETECTOR))
        steps = host.progress(len(frames))
        flagged: list[dict[str, Any]] = []
        count, highest = 0, 0.0
        for index, frame in enumerate(frames):
            detections = detector.detect(frame, index)
            count += len(detections)
            place = {"image": index} if len(frames) > 1 else {}
            for found in detections:
                if found.label in _NSFW and found.score >= threshold:
                    flagged.append({"label": found.label, "score": found.score, "box": list(found.box), **place})
                    highest = max(highest, found.score)
            steps.step()
        report = {
            "is_nsfw": bool(flagged),
            "max_score": highest,
            "threshold": threshold,
            "detections": flagged,
            "all_detections_count": count,
            "model": "NudeNet",
        }
        return json.dumps(report, indent=2, allow_nan=False), bool(flagged), highest
