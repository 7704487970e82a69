"""Nodes from images to images."""

from __future__ import annotations

from typing import Any, ClassVar

from comfy_cpu_engine.ops import compose
from comfy_cpu_engine.ops.resize import METHODS, scale
from comfy_cpu_nodes.arrays import FloatArray, mask_to_numpy, to_numpy

__all__ = [
    "EmptyImage",
    "ImageBatch",
    "ImageCompositeMasked",
    "ImageCrop",
    "ImageInvert",
    "ImagePadForOutpaint",
    "ImageScale",
]

#: ComfyUI's largest side of an image.
MAX_RESOLUTION = 16384


def _int(default: int, low: int, high: int = MAX_RESOLUTION, step: int = 1) -> tuple[str, dict[str, Any]]:
    return "INT", {"default": default, "min": low, "max": high, "step": step}


class ImageScale:
    """Brings an image to a size; 0 for one side keeps the aspect, 0 for both keeps the image."""

    upscale_methods: ClassVar[list[str]] = list(METHODS)
    crop_methods: ClassVar[list[str]] = ["disabled", "center"]

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"
    CATEGORY = "image/upscaling"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "upscale_method": (cls.upscale_methods,),
                "width": _int(512, 0),
                "height": _int(512, 0),
                "crop": (cls.crop_methods,),
            }
        }

    def upscale(self, image: Any, upscale_method: str, width: int, height: int, crop: str) -> tuple[FloatArray]:
        pixels = to_numpy(image)
        if width == 0 and height == 0:
            return (pixels,)
        width = width or max(1, round(pixels.shape[2] * height / pixels.shape[1]))
        height = height or max(1, round(pixels.shape[1] * width / pixels.shape[2]))
        return (scale(pixels, width, height, upscale_method, crop),)


class ImageInvert:
    """Makes a negative, of alpha too."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "invert"
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",)}}

    def invert(self, image: Any) -> tuple[FloatArray]:
        return (1 - to_numpy(image),)


class ImageBatch:
    """Puts two images into one batch; the second gets the size of the first."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "batch"
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image1": ("IMAGE",), "image2": ("IMAGE",)}}

    def batch(self, image1: Any, image2: Any) -> tuple[FloatArray]:
        return (compose.batch(to_numpy(image1, name="image1"), to_numpy(image2, name="image2")),)


class EmptyImage:
    """Images of one colour, ``0xRRGGBB``."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "generate"
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "width": _int(512, 1),
                "height": _int(512, 1),
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 4096}),
                "color": ("INT", {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}),
            }
        }

    def generate(self, width: int, height: int, batch_size: int = 1, color: int = 0) -> tuple[FloatArray]:
        return (compose.solid(width, height, batch_size, color),)


class ImageCrop:
    """Cuts out a rectangle, as far as it lies inside the image."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "crop"
    CATEGORY = "image/transform"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "width": _int(512, 1),
                "height": _int(512, 1),
                "x": _int(0, 0),
                "y": _int(0, 0),
            }
        }

    def crop(self, image: Any, width: int, height: int, x: int, y: int) -> tuple[FloatArray]:
        return (compose.crop(to_numpy(image), width=width, height=height, x=x, y=y),)


class ImagePadForOutpaint:
    """Puts a grey border around an image, and gives the mask of what is to be filled."""

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "expand_image"
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        sides = {side: _int(0, 0, step=8) for side in ("left", "top", "right", "bottom")}
        return {"required": {"image": ("IMAGE",), **sides, "feathering": _int(40, 0)}}

    def expand_image(
        self, *, image: Any, left: int, top: int, right: int, bottom: int, feathering: int
    ) -> tuple[FloatArray, FloatArray]:
        return compose.pad_for_outpaint(
            to_numpy(image), left=left, top=top, right=right, bottom=bottom, feathering=feathering
        )


class ImageCompositeMasked:
    """Puts an image onto another."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "composite"
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "destination": ("IMAGE",),
                "source": ("IMAGE",),
                "x": _int(0, 0),
                "y": _int(0, 0),
                "resize_source": ("BOOLEAN", {"default": False}),
            },
            "optional": {"mask": ("MASK",)},
        }

    def composite(
        self, *, destination: Any, source: Any, x: int, y: int, resize_source: bool, mask: Any = None
    ) -> tuple[FloatArray]:
        return (
            compose.composite(
                to_numpy(destination, name="destination"),
                to_numpy(source, name="source"),
                x=x,
                y=y,
                mask=None if mask is None else mask_to_numpy(mask),
                resize_source=resize_source,
            ),
        )
