"""Nodes between images and masks. A mask ``[B,H,W]`` is 1 where something is to be done or left out."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from comfy_cpu_engine.ops import compose
from comfy_cpu_nodes.arrays import FloatArray, mask_to_numpy, to_numpy

__all__ = ["ImageToMask", "InvertMask", "JoinImageWithAlpha", "MaskToImage", "SplitImageWithAlpha"]


class MaskToImage:
    """Shows a mask as a grey image."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "mask_to_image"
    CATEGORY = "mask"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": ("MASK",)}}

    def mask_to_image(self, mask: Any) -> tuple[FloatArray]:
        return (np.repeat(mask_to_numpy(mask)[..., np.newaxis], 3, axis=-1),)


class ImageToMask:
    """Takes one channel of an image as a mask."""

    CHANNELS: ClassVar[list[str]] = ["red", "green", "blue", "alpha"]

    RETURN_TYPES = ("MASK",)
    FUNCTION = "image_to_mask"
    CATEGORY = "mask"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",), "channel": (cls.CHANNELS,)}}

    def image_to_mask(self, image: Any, channel: str) -> tuple[FloatArray]:
        pixels = to_numpy(image)
        index = self.CHANNELS.index(channel)
        if index >= pixels.shape[3]:
            raise ValueError(f"the image has no {channel} channel: it has {pixels.shape[3]} channels")
        return (pixels[..., index],)


class InvertMask:
    """Swaps inside and outside."""

    RETURN_TYPES = ("MASK",)
    FUNCTION = "invert"
    CATEGORY = "mask"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"mask": ("MASK",)}}

    def invert(self, mask: Any) -> tuple[FloatArray]:
        return (1 - mask_to_numpy(mask),)


class JoinImageWithAlpha:
    """Makes an image transparent where the mask is 1."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "join_image_with_alpha"
    CATEGORY = "mask/compositing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",), "alpha": ("MASK",)}}

    def join_image_with_alpha(self, image: Any, alpha: Any) -> tuple[FloatArray]:
        return (compose.join_alpha(to_numpy(image), mask_to_numpy(alpha, name="alpha")),)


class SplitImageWithAlpha:
    """Takes an image apart into colours and the mask of its transparency."""

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "split_image_with_alpha"
    CATEGORY = "mask/compositing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",)}}

    def split_image_with_alpha(self, image: Any) -> tuple[FloatArray, FloatArray]:
        return compose.split_alpha(to_numpy(image))
