"""Writing PNG files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from comfy_cpu_engine.ops.pixels import to_uint8
from comfy_cpu_nodes.arrays import FloatArray

__all__ = ["write_png"]


def write_png(image: FloatArray, path: Path, *, compress_level: int, texts: Mapping[str, Any] | None = None) -> None:
    """Write one image ``[H,W,C]`` (1, 3 or 4 channels) as PNG.

    Args:
        texts: key → value that is stored as JSON in a text chunk; None for a file without metadata.

    Raises:
        ValueError: the image has another number of channels, or no pixels.
    """
    if image.shape[2] not in (1, 3, 4) or not image.size:
        raise ValueError(f"cannot save an image of shape {tuple(image.shape)} as PNG: it takes 1, 3 or 4 channels")
    pixels = to_uint8(image)
    chunks = None
    if texts is not None:
        chunks = PngInfo()
        for key, value in texts.items():
            chunks.add_text(key, json.dumps(value))
    picture = Image.fromarray(pixels[..., 0] if image.shape[2] == 1 else pixels)
    picture.save(path, "PNG", pnginfo=chunks, compress_level=compress_level)
