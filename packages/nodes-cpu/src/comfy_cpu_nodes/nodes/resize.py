"""Nodes that resize pictures.

A picture that has the wanted size already is passed on untouched. All else goes through 8 bits, as in the nodes that
existing workflows know.
"""

from __future__ import annotations

from typing import Any

from comfy_cpu_nodes.host import node_error
from comfy_cpu_nodes.nodes.frames import image_size, map_frames
from comfy_cpu_nodes.ops import resize as ops
from comfy_cpu_nodes.ops.resize import Size

__all__ = [
    "ImageResizeForProcessing",
    "ImageResizeToReference",
    "ImageScaleByFactor",
    "RestoreOriginalSize",
    "SmartResizeForModel",
]

_INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")
_SMOOTH_INTERPOLATIONS = ("lanczos", "bicubic", "bilinear")
_AREAS = {"1024 (BEN2/BiRefNet)": 1024 * 1024, "2048 (BiRefNet_HR)": 2048 * 2048}
_RESOLUTIONS = ("512", "768", "1024", "1280", "1536", "2048", "custom")
_FACTORS = ("0.25x", "0.5x", "0.75x", "1x", "1.25x", "1.5x", "2x", "3x", "4x")

_INTERPOLATION_TIP = "How pixels are computed: lanczos is the sharpest, bilinear the quickest."


def _interpolation(choices: tuple[str, ...], default: str) -> tuple[list[str], dict[str, Any]]:
    return list(choices), {"default": default, "tooltip": _INTERPOLATION_TIP}


def _pixels(tooltip: str, *, low: int = 64, high: int = 8192, step: int = 64) -> tuple[str, dict[str, Any]]:
    return "INT", {"default": 1024, "min": low, "max": high, "step": step, "tooltip": tooltip}


def _resize(image: Any, size: Size, interpolation: str) -> Any:
    if min(size) < 1:
        raise node_error(f"a picture cannot be {size[0]}×{size[1]} pixels")
    if image_size(image) == size:
        return image
    return map_frames(image, lambda frame: ops.resize(frame, size, interpolation))


class SmartResizeForModel:
    """Brings pictures to the area that a model was trained on."""

    CATEGORY = "image/transform"
    DESCRIPTION = (
        "Resizes to the number of pixels that a background-removal model works with, keeping the aspect, and gives "
        "the original size for Restore Original Size."
    )
    FUNCTION = "smart_resize"
    RETURN_TYPES = ("IMAGE", "INT", "INT")
    RETURN_NAMES = ("image", "original_width", "original_height")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The pictures; the first decides the size of all."}),
                "target_model": (
                    list(_AREAS),
                    {"default": "2048 (BiRefNet_HR)", "tooltip": "The model's working size: 1024² or 2048² pixels."},
                ),
                "resize_mode": (
                    ["smart", "always_resize", "only_if_needed"],
                    {"default": "smart", "tooltip": "smart leaves areas within 5 % alone, only_if_needed within 10 %."},
                ),
            },
            "optional": {"interpolation": _interpolation(_SMOOTH_INTERPOLATIONS, "lanczos")},
        }

    def smart_resize(
        self,
        image: Any,
        target_model: str = "2048 (BiRefNet_HR)",
        resize_mode: str = "smart",
        interpolation: str = "lanczos",
    ) -> tuple[Any, int, int]:
        """Give the picture, resized where need be, and the size that it came in."""
        size, area = image_size(image), _AREAS[target_model]
        if ops.needs_resize(size, area, resize_mode):
            image = _resize(image, ops.smart_size(size, area), interpolation)
        return image, *size


class RestoreOriginalSize:
    """Undoes SmartResizeForModel."""

    CATEGORY = "image/transform"
    DESCRIPTION = "Resizes to a given width and height, usually those that Smart Resize remembered."
    FUNCTION = "restore_size"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The pictures to bring back to their size."}),
                "original_width": _pixels("Width in pixels.", low=1, high=16384, step=1),
                "original_height": _pixels("Height in pixels.", low=1, high=16384, step=1),
            },
            "optional": {"interpolation": _interpolation(_SMOOTH_INTERPOLATIONS, "lanczos")},
        }

    def restore_size(
        self, image: Any, original_width: int, original_height: int, interpolation: str = "lanczos"
    ) -> tuple[Any]:
        """Give the picture at exactly that size."""
        return (_resize(image, (original_width, original_height), interpolation),)


class ImageResizeForProcessing:
    """Brings pictures to one of the usual square sizes, or to a size of one's own."""

    CATEGORY = "image/transform"
    DESCRIPTION = "Resizes to a common resolution: stretched, fitted inside (never enlarged) or filled and cropped."
    FUNCTION = "resize_image"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The pictures to resize."}),
                "target_resolution": (
                    list(_RESOLUTIONS),
                    {"default": "1024", "tooltip": "Side of the square; custom takes width and height from below."},
                ),
            },
            "optional": {
                "custom_width": _pixels("Width in pixels, for custom."),
                "custom_height": _pixels("Height in pixels, for custom."),
                "resize_mode": (
                    ["stretch", "fit", "fill"],
                    {
                        "default": "fit",
                        "tooltip": "stretch ignores the aspect, fit stays inside, fill covers all and crops the rest.",
                    },
                ),
                "interpolation": _interpolation(_INTERPOLATIONS, "bilinear"),
            },
        }

    def resize_image(
        self,
        image: Any,
        target_resolution: str = "1024",
        *,
        custom_width: int = 1024,
        custom_height: int = 1024,
        resize_mode: str = "fit",
        interpolation: str = "bilinear",
    ) -> tuple[Any]:
        """Give the picture, resized in the way that `resize_mode` says."""
        side = None if target_resolution == "custom" else int(target_resolution)
        size = (side or custom_width, side or custom_height)
        width, height = image_size(image)
        if resize_mode == "stretch":
            return (_resize(image, size, interpolation),)
        if resize_mode == "fit":
            if width <= size[0] and height <= size[1]:
                return (image,)
            return (map_frames(image, lambda frame: ops.fit(frame, size, interpolation)),)
        if resize_mode == "fill":
            if (width, height) == size:
                return (image,)
            return (map_frames(image, lambda frame: ops.fill(frame, size, interpolation)),)
        raise node_error(f"resize_mode {resize_mode!r} is none of stretch, fit, fill")


class ImageResizeToReference:
    """Brings pictures to the size of another, to given dimensions, or scales them."""

    CATEGORY = "image/transform"
    DESCRIPTION = "Resizes to the size of a reference picture, by a factor, or to given dimensions."
    FUNCTION = "resize_to_reference"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The pictures to resize."}),
                "scale_mode": (
                    ["reference", "scale_factor", "dimensions"],
                    {"default": "reference", "tooltip": "Where the new size comes from."},
                ),
            },
            "optional": {
                "reference_image": ("IMAGE", {"tooltip": "For reference; without it the size stays as it is."}),
                "scale_factor": (
                    "FLOAT",
                    {"default": 1.0, "min": 0.1, "max": 8.0, "step": 0.1, "tooltip": "For scale_factor."},
                ),
                "target_width": _pixels("Width in pixels, for dimensions."),
                "target_height": _pixels("Height in pixels, for dimensions."),
                "interpolation": _interpolation(_INTERPOLATIONS, "lanczos"),
            },
        }

    def resize_to_reference(
        self,
        image: Any,
        scale_mode: str = "reference",
        *,
        reference_image: Any = None,
        scale_factor: float = 1.0,
        target_width: int = 1024,
        target_height: int = 1024,
        interpolation: str = "lanczos",
    ) -> tuple[Any]:
        """Give the picture at the size that `scale_mode` names."""
        if scale_mode == "dimensions":
            size = (target_width, target_height)
        elif scale_mode == "scale_factor":
            size = ops.scaled_size(image_size(image), scale_factor)
        elif scale_mode == "reference":
            # All frames of a batch have one size, so it does not matter which of the reference's counts.
            named = ("image", image) if reference_image is None else ("reference_image", reference_image)
            size = image_size(named[1], name=named[0])
        else:
            raise node_error(f"scale_mode {scale_mode!r} is none of reference, scale_factor, dimensions")
        return (_resize(image, size, interpolation),)


class ImageScaleByFactor:
    """Scales pictures by one of the usual factors."""

    CATEGORY = "image/transform"
    DESCRIPTION = "Scales by a common factor, from a quarter to four times."
    FUNCTION = "scale_image"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The pictures to scale."}),
                "scale_factor": (
                    list(_FACTORS),
                    {"default": "1x", "tooltip": "What width and height are multiplied with."},
                ),
                "interpolation": _interpolation(_INTERPOLATIONS, "lanczos"),
            }
        }

    def scale_image(self, image: Any, scale_factor: str = "1x", interpolation: str = "lanczos") -> tuple[Any]:
        """Give the picture, its sides times the factor, truncated to whole pixels."""
        size = ops.scaled_size(image_size(image), float(scale_factor.removesuffix("x")))
        return (_resize(image, size, interpolation),)
