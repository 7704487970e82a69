"""Reading image files, as ComfyUI's LoadImage does, but refusing what it would repair in silence.

ComfyUI fills up a truncated file with grey; here it is an error, because a picture with its lower half missing is not
the picture that was meant. Everything that can be wrong with a file is an `InputError` that names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from comfy_cpu_core.errors import InputError
from comfy_cpu_nodes.arrays import FloatArray

__all__ = ["MAX_PIXELS", "Decoded", "read_channel", "read_image"]

#: The most pixels that an image file may have, over all its frames: where Pillow begins to warn of a decompression
#: bomb (89,478,485 pixels, about 1 GB as float32 RGB).
MAX_PIXELS = 89_478_485

# Pictures only: Pillow would also hand EPS to Ghostscript and read scientific formats.
_FORMATS = (
    "AVIF", "BMP", "DDS", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "PSD", "QOI",
    "SGI", "TGA", "TIFF", "WEBP",
)  # fmt: skip

# What ComfyUI gives for the mask of a picture that has no alpha channel.
_NO_MASK = (64, 64)


@dataclass(frozen=True)
class Decoded:
    """An image file.

    Attributes:
        image: ``[B,H,W,3]`` float32 0..1, one per frame; turned as its EXIF data say.
        mask: ``[B,H,W]`` float32, 1 minus alpha; ``[1,64,64]`` zeros where the file has no alpha.
        clipped: whether it holds grey values of 16 bits, of which all above 255 became white (as in ComfyUI).
    """

    image: FloatArray
    mask: FloatArray
    clipped: bool = False


def read_image(path: Path, name: str) -> Decoded:
    """Read all frames of an image file; of an MPO (two pictures of a stereo camera) the first.

    Frames of another size than the first are left out, as ComfyUI does it.

    Raises:
        InputError: it is no image, is truncated or broken, or has more than `MAX_PIXELS`.
    """
    images: list[FloatArray] = []
    masks: list[FloatArray | None] = []
    clipped = False
    with _opened(path, name) as file:
        for frame in _frames(file, name):
            pixels = np.asarray(_eight_bits(frame).convert("RGB")).astype(np.float32) / np.float32(255.0)
            if images and pixels.shape != images[0].shape:
                continue
            images.append(pixels)
            masks.append(_mask(frame))
            clipped |= frame.mode.startswith("I;16")
            if file.format == "MPO":
                break
    return Decoded(np.stack(images), _stack_masks(masks, images[0].shape[:2]), clipped)


def read_channel(path: Path, name: str, channel: str) -> FloatArray:
    """Read one channel (``red``, ``green``, ``blue`` or ``alpha``) of an image's first frame as a mask ``[1,H,W]``.

    Alpha is inverted: 1 where the picture is transparent.

    Raises:
        InputError: as `read_image`.
    """
    with _opened(path, name) as file:
        frame = next(_frames(file, name))
        band = _eight_bits(frame).convert("RGBA").getchannel(channel[0].upper())
        values = np.asarray(band).astype(np.float32)[np.newaxis] / np.float32(255.0)
    return 1 - values if channel == "alpha" else values


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Image.Image]:
    """Open an image file; whatever goes wrong in the block is an `InputError` that names it."""
    Image.init()
    try:
        with Image.open(path, formats=[kind for kind in _FORMATS if kind in Image.OPEN]) as file:
            yield file
    except (InputError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(name) from None
    except UnidentifiedImageError:
        raise InputError(
            f"{name!r} is not an image file that can be read here",
            remedy="give a PNG, JPEG, WebP, GIF, TIFF, BMP or AVIF file",
        ) from None
    except Exception as error:  # Pillow raises nearly anything on broken data
        raise InputError(
            f"{name!r} is truncated or broken: {' '.join(str(error).split()) or type(error).__name__}",
            remedy="get the file again; if other programs open it, save it from one of them",
        ) from None


def _frames(file: Image.Image, name: str) -> Iterator[Image.Image]:
    """Every frame, decoded, and turned as its EXIF data say."""
    pixels = 0
    for frame in ImageSequence.Iterator(file):
        pixels += frame.width * frame.height
        if pixels > MAX_PIXELS:
            raise _too_large(name)
        frame.load()
        yield ImageOps.exif_transpose(frame)


def _too_large(name: str) -> InputError:
    return InputError(
        f"{name!r} has more than {MAX_PIXELS:,} pixels over all its frames: it may be a decompression bomb",
        remedy="make the picture smaller",
    )


def _eight_bits(frame: Image.Image) -> Image.Image:
    """What Pillow can convert to RGB or RGBA as ComfyUI has it."""
    if frame.mode == "I":  # grey of 32 bits, scaled; of mode I;16 Pillow cuts off what is above 255
        return frame.point(lambda value: value * (1 / 255))
    if frame.mode == "P" and isinstance(frame.info.get("transparency"), bytes):
        return frame.convert("RGBA")  # the same colours, without Pillow's warning
    return frame


def _mask(frame: Image.Image) -> FloatArray | None:
    if "A" in frame.getbands():
        alpha = frame.getchannel("A")
    elif frame.mode == "P" and "transparency" in frame.info:
        alpha = frame.convert("RGBA").getchannel("A")
    else:
        return None
    return 1 - np.asarray(alpha).astype(np.float32) / np.float32(255.0)


def _stack_masks(masks: list[FloatArray | None], size: tuple[int, ...]) -> FloatArray:
    # In an animation some frames may have alpha and others none: then all masks have the picture's size.
    empty = np.zeros(_NO_MASK if all(mask is None for mask in masks) else size, np.float32)
    return np.stack([empty if mask is None else mask for mask in masks])
