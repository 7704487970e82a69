"""BEN2's nodes, which take the background out of pictures."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from comfy_cpu_nodes import host
from comfy_cpu_nodes.arrays import like, to_numpy
from comfy_cpu_nodes.nodes import cutout
from comfy_cpu_nodes.ops.masks import resize_scores
from comfy_cpu_nodes.ops.pixels import FloatArray, Pixels, to_pixels, to_planes, to_rgb
from comfy_cpu_nodes.ops.resize import resize

if TYPE_CHECKING:
    from comfy_cpu_nodes.runtimes import OnnxModel

__all__ = ["BEN2_FILE", "Ben2RawMask", "Ben2RemoveBackground"]

#: Where the model tree keeps BEN2.
BEN2_FILE = "ben2_onnx/BEN2_Base.onnx"

_SIDE = 1024


class Ben2RemoveBackground:
    """BEN2 cuts the subject out."""

    CATEGORY = "image/preprocessing"
    DESCRIPTION = (
        "Removes the background with BEN2, on the CPU. The mask output leaves out blur and offset, only the picture's "
        "alpha has them. The mask is stretched to the full range: in a picture without a subject that makes noise "
        "visible (there is a warning then; BEN2 Raw Mask gives the scores as they are)."
    )
    FUNCTION = "remove_background"
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("image", "mask")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The pictures to cut out."}),
                "provider": cutout.provider_input(),
            },
            "optional": cutout.finishing_inputs(),
        }

    def remove_background(
        self,
        image: Any,
        provider: str = "CPU",
        *,
        background_color: str = "none",
        custom_hex_color: str = "#FFFFFF",
        sensitivity: float = 1.0,
        mask_blur: int = 0,
        mask_offset: int = 0,
    ) -> tuple[Any, Any]:
        """Give the pictures without background, [B,H,W,4] or on a colour [B,H,W,3], and the masks [B,H,W].

        Raises:
            ModelMissing, ModelCorrupt: BEN2 is not there or cannot be loaded.
            NodeError: the input is no image, or the model gave what is no mask.
        """
        to_numpy(image)  # before the model is loaded for nothing
        cutout.report_provider(provider, "BEN2")
        return cutout.cut_out_all(
            image,
            partial(_scores, _load_ben2()),
            name="BEN2",
            background_color=background_color,
            custom_hex_color=custom_hex_color,
            sensitivity=sensitivity,
            mask_blur=mask_blur,
            mask_offset=mask_offset,
        )


class Ben2RawMask:
    """BEN2's own scores."""

    CATEGORY = "mask"
    DESCRIPTION = "BEN2's scores as a mask, not stretched and not cut to 8 bits: an empty scene stays dark."
    FUNCTION = "raw_mask"
    RETURN_TYPES = ("MASK",)
    RETURN_NAMES = ("mask",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE", {"tooltip": "The pictures to look at."})}}

    def raw_mask(self, image: Any) -> tuple[Any]:
        """Give the scores [B,H,W], clipped to 0..1. Raises as `Ben2RemoveBackground.remove_background` does."""
        frames = to_numpy(image)
        model = _load_ben2()
        steps = host.progress(len(frames))
        found = np.empty(frames.shape[:3], np.float32)
        for frame, out in zip(frames, found, strict=True):
            np.clip(_scores(model, to_rgb(to_pixels(frame))), 0, 1, out=out)
            steps.step()
        return (like(found, image),)


def _load_ben2() -> OnnxModel:
    from comfy_cpu_nodes.runtimes import load_onnx

    path = host.models().require(BEN2_FILE, remedy=host.fetch_hint("ben2-base"))
    return load_onnx(path, name=BEN2_FILE)


def _scores(model: OnnxModel, picture: Pixels) -> FloatArray:
    """How surely each pixel of the picture [H,W,3] belongs to the subject: [H,W], usually 0..1."""
    source = model.inputs[0]
    planes = to_planes(resize(picture, cutout.input_size(model, _SIDE), "bilinear"))
    mask = cutout.one_mask(model.run({source.name: planes})[model.outputs[0].name], "BEN2")
    return resize_scores(mask, picture.shape[1], picture.shape[0])
