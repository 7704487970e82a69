"""Pictures in another format, to make them smaller. Takes a CPU for some time: belongs into a thread."""

from __future__ import annotations

import io
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from comfy_cpu_core.results import Output
from comfy_cpu_worker.job import PictureFormat

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["reencode"]

_READABLE = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_SUFFIX = {"jpeg": ".jpg", "webp": ".webp", "png": ".png"}

#: Pillow's modes with 8 bits a channel at most. Others would lose what their nodes meant to keep.
_EIGHT_BITS = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})


def reencode(output: Output, picture_format: PictureFormat, quality: int) -> Output | None:
    """A picture in another format; None where it stays as it is.

    It stays if it has that format already, moves, has more than 8 bits a channel, or cannot be read. Where it is
    transparent anywhere, WebP takes the place of JPEG.

    Args:
        quality: 1 to 100, for JPEG and WebP.
    """
    from PIL import Image

    if output.kind not in {"image", "mask"}:
        return None
    try:
        with Image.open(io.BytesIO(output.data), formats=_READABLE) as picture:
            if getattr(picture, "n_frames", 1) > 1 or picture.mode not in _EIGHT_BITS:
                return None
            pixels, transparent = _plain(picture)
            if picture_format == "jpeg" and transparent:
                picture_format = "webp"
            if (picture.format or "").lower() == picture_format:
                return None
            data = _encode(pixels, picture_format, quality, picture.info.get("icc_profile"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises at what it cannot do
        return None
    return Output(
        output.node_id,
        output.class_type,
        output.kind,
        f"{PurePosixPath(output.filename).stem}{_SUFFIX[picture_format]}",
        f"image/{picture_format}",
        data,
        subfolder=output.subfolder,
        folder=output.folder,
    )


def _plain(picture: Image) -> tuple[Image, bool]:
    """The pixels as L, RGB or RGBA, and whether any of them is transparent."""
    if picture.mode in {"LA", "PA", "RGBA"} or "transparency" in picture.info:
        pixels = picture.convert("RGBA")
        lowest, _ = pixels.getchannel("A").getextrema()
        return (pixels, True) if lowest < 255 else (pixels.convert("RGB"), False)  # type: ignore[operator]
    return picture.convert("L" if picture.mode in {"1", "L"} else "RGB"), False


def _encode(pixels: Image, picture_format: PictureFormat, quality: int, profile: bytes | None) -> bytes:
    options: dict[str, Any] = {} if picture_format == "png" else {"quality": quality}
    if profile:
        options["icc_profile"] = profile
    buffer = io.BytesIO()
    pixels.save(buffer, picture_format.upper(), **options)
    return buffer.getvalue()
