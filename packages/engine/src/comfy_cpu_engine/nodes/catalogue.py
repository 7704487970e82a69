"""All of the engine's node classes, as the hook ``comfy_cpu_node_classes`` gives them."""

from __future__ import annotations

from comfy_cpu_core.nodes import NodeClass
from comfy_cpu_engine.nodes import image, load, mask, save

__all__ = ["NODE_CLASSES"]

#: In the order of ComfyUI's menus: files, images, masks.
NODE_CLASSES: tuple[NodeClass, ...] = (
    NodeClass("LoadImage", load.LoadImage, "Load Image", "read an image file of the request"),
    NodeClass("LoadImageMask", load.LoadImageMask, "Load Image (as Mask)", "read one channel of an image file"),
    NodeClass("SaveImage", save.SaveImage, "Save Image", "write images as PNG files"),
    NodeClass("PreviewImage", save.PreviewImage, "Preview Image", "write images as temporary PNG files"),
    NodeClass("ImageScale", image.ImageScale, "Upscale Image", "resize to a width and height"),
    NodeClass("ImageInvert", image.ImageInvert, "Invert Image", "make a negative"),
    NodeClass("ImageBatch", image.ImageBatch, "Batch Images", "put two images into one batch"),
    NodeClass("EmptyImage", image.EmptyImage, "EmptyImage", "images of one colour"),
    NodeClass("ImageCrop", image.ImageCrop, "Image Crop", "cut out a rectangle"),
    NodeClass("ImagePadForOutpaint", image.ImagePadForOutpaint, "Pad Image for Outpainting", "add a border to fill"),
    NodeClass("ImageCompositeMasked", image.ImageCompositeMasked, "ImageCompositeMasked", "put an image onto another"),
    NodeClass("JoinImageWithAlpha", mask.JoinImageWithAlpha, "Join Image with Alpha", "a mask becomes transparency"),
    NodeClass("SplitImageWithAlpha", mask.SplitImageWithAlpha, "Split Image with Alpha", "transparency becomes a mask"),
    NodeClass("MaskToImage", mask.MaskToImage, "Convert Mask to Image", "a mask as a grey image"),
    NodeClass("ImageToMask", mask.ImageToMask, "Convert Image to Mask", "one channel as a mask"),
    NodeClass("InvertMask", mask.InvertMask, "InvertMask", "swap inside and outside"),
)
