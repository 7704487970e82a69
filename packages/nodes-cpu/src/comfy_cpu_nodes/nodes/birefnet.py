"""BiRefNet's nodes, which take the background out of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_cpu_core.errors import ModelMissing
from comfy_cpu_nodes import host
from comfy_cpu_nodes.arrays import to_numpy
from comfy_cpu_nodes.nodes import cutout
from comfy_cpu_nodes.ops import birefnet as ops
from comfy_cpu_nodes.ops.masks import resize_scores
from comfy_cpu_nodes.ops.pixels import FloatArray, Pixels
from comfy_cpu_nodes.ops.resize import resize

__all__ = ["BiRefNetHrRemoveBackground", "BiRefNetRemoveBackground", "hr_file", "variant_file"]

_VARIANTS = ("general", "portrait", "general-lite", "matting")
_FETCHED = ("general", "portrait", "general-lite")
_HR_VARIANTS = ("BiRefNet_HR", "BiRefNet_HR-matting")


def variant_file(variant: str) -> str:
    """Where the model tree keeps a variant."""
    return f"birefnet_onnx/BiRefNet-{variant}.onnx"


def hr_file(variant: str) -> str:
    """Where the user puts the ONNX export of a high-resolution variant."""
    return f"birefnet_hr/{variant}.onnx"


class BiRefNetRemoveBackground:
    """``BiRefNet_ONNX_RemoveBg``: BiRefNet cuts the subject out."""

    CATEGORY = "image/preprocessing"
    DESCRIPTION = (
        "Removes the background with BiRefNet, on the CPU. The mask output leaves out blur and offset, only the "
        "picture's alpha has them. The mask is stretched to the full range: in a picture without a subject that makes "
        "noise visible (there is a warning then)."
    )
    FUNCTION = "remove_background"
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("image", "mask")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The pictures to cut out."}),
                "model_variant": (
                    list(_VARIANTS),
                    {"default": "general", "tooltip": "The model: portrait for people, general-lite is the quickest."},
                ),
                "provider": cutout.provider_input(),
            },
            "optional": {
                **cutout.finishing_inputs(),
                "process_resolution": _resolution(1024, low=512, high=2048, step=64),
            },
        }

    def remove_background(
        self,
        image: Any,
        model_variant: str = "general",
        provider: str = "CPU",
        *,
        background_color: str = "none",
        custom_hex_color: str = "#FFFFFF",
        sensitivity: float = 1.0,
        mask_blur: int = 0,
        mask_offset: int = 0,
        process_resolution: int = 1024,
    ) -> tuple[Any, Any]:
        """Give the pictures without background, [B,H,W,4] or on a colour [B,H,W,3], and the masks [B,H,W].

        Raises:
            ModelMissing, ModelCorrupt: the variant is not there or cannot be loaded.
            NodeError: the input is no image, there is no such variant, or the model gave what is no mask.
        """
        to_numpy(image)  # before the model is loaded for nothing
        cutout.report_provider(provider, "BiRefNet")
        _check_variant(model_variant, _VARIANTS)
        file = variant_file(model_variant)
        if model_variant in _FETCHED:
            remedy = host.fetch_hint(f"birefnet-{model_variant}")
        else:
            remedy = "put an ONNX export there, or choose another model_variant: no source is known for this one"
        model = _Model(host.models().require(file, remedy=remedy), file, process_resolution)
        return cutout.cut_out_all(
            image,
            model.scores,
            name="BiRefNet",
            background_color=background_color,
            custom_hex_color=custom_hex_color,
            sensitivity=sensitivity,
            mask_blur=mask_blur,
            mask_offset=mask_offset,
        )


class BiRefNetHrRemoveBackground:
    """``BiRefNet_HR_RemoveBg``: BiRefNet cuts the subject out, at a high resolution."""

    CATEGORY = "image/preprocessing"
    DESCRIPTION = (
        "Removes the background with BiRefNet_HR, on the CPU, from an ONNX export that you put into the model tree as "
        "birefnet_hr/BiRefNet_HR.onnx or birefnet_hr/BiRefNet_HR-matting.onnx: the original comes with Python code of "
        "its own, and code out of a model is never run here. Mask and picture are as BiRefNet ONNX Remove Background "
        "makes them."
    )
    FUNCTION = "remove_background"
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("image", "mask")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The pictures to cut out."}),
                "model_variant": (list(_HR_VARIANTS), {"default": "BiRefNet_HR", "tooltip": "The model."}),
            },
            "optional": {
                **cutout.finishing_inputs(),
                "process_resolution": _resolution(2048, low=1024, high=2560, step=256),
                "use_fp16": (
                    "BOOLEAN",
                    {"default": True, "tooltip": "Not used: what a CPU computes in is chosen for it."},
                ),
            },
        }

    def remove_background(
        self,
        image: Any,
        model_variant: str = "BiRefNet_HR",
        *,
        background_color: str = "none",
        custom_hex_color: str = "#FFFFFF",
        sensitivity: float = 1.0,
        mask_blur: int = 0,
        mask_offset: int = 0,
        process_resolution: int = 2048,
        use_fp16: bool = True,
    ) -> tuple[Any, Any]:
        """Give the pictures without background, [B,H,W,4] or on a colour [B,H,W,3], and the masks [B,H,W].

        Raises:
            ModelMissing, ModelCorrupt: there is no ONNX export of the variant, or it cannot be loaded.
            NodeError: the input is no image, there is no such variant, or the model gave what is no mask.
        """
        to_numpy(image)  # before the model is loaded for nothing
        if use_fp16:
            host.warn("use_fp16 was not used: BiRefNet_HR ran in the precision that suits the CPU")
        _check_variant(model_variant, _HR_VARIANTS)
        file = hr_file(model_variant)
        tree = host.models()
        if not tree.has(file):
            raise ModelMissing(
                f"model file {file} is not in the model tree {tree.root}",
                remedy=f"export {model_variant} to ONNX and put it there; its PyTorch files need Python code that "
                "comes with them, and code out of a model is never run",
            )
        model = _Model(tree.path(file), file, process_resolution)
        return cutout.cut_out_all(
            image,
            model.scores,
            name="BiRefNet_HR",
            background_color=background_color,
            custom_hex_color=custom_hex_color,
            sensitivity=sensitivity,
            mask_blur=mask_blur,
            mask_offset=mask_offset,
        )


class _Model:
    """A BiRefNet at the resolution that it works with: the file's own where the file fixes it, else the user's."""

    def __init__(self, path: Path, file: str, resolution: int) -> None:
        from comfy_cpu_nodes.runtimes import load_onnx

        self._model = load_onnx(path, name=file)
        self._size = cutout.input_size(self._model, resolution)
        if self._size != (resolution, resolution):
            width, height = self._size
            host.warn(f"process_resolution {resolution} was not used: {file} takes {width}×{height} only")

    def scores(self, picture: Pixels) -> FloatArray:
        """How surely each pixel of the picture [H,W,3] belongs to the subject: [H,W], 0..1."""
        source = self._model.inputs[0]
        planes = ops.encode(resize(picture, self._size, "bilinear"))
        answers = self._model.run({source.name: planes.astype(source.dtype, copy=False)})
        # The exports that give more than one mask refine it from one to the next.
        mask = cutout.one_mask(answers[self._model.outputs[-1].name], "BiRefNet")
        return resize_scores(ops.probabilities(mask), picture.shape[1], picture.shape[0])


def _resolution(default: int, *, low: int, high: int, step: int) -> tuple[str, dict[str, Any]]:
    tooltip = "The side of the square that the model works on, in pixels; models with a fixed size keep to theirs."
    return "INT", {"default": default, "min": low, "max": high, "step": step, "tooltip": tooltip}


def _check_variant(variant: str, known: tuple[str, ...]) -> None:
    if variant not in known:
        raise host.node_error(f"model_variant {variant!r} is none of {', '.join(known)}")
