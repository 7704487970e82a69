"""Pictures that are in memory as files: what people have in hand when they call the client from Python."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from comfy_cpu_core.errors import InputError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ArrayLike", "Picture", "PictureLike", "encode_picture"]

#: PNG's number for the kind of picture, by its channels.
_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}

#: What PNG can hold of Pillow's modes; others are turned into RGB.
_MODES = frozenset({"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"})


@runtime_checkable
class Picture(Protocol):
    """A picture of Pillow."""

    mode: str

    def save(self, fp: Any, format: str, **options: Any) -> None:  # noqa: A002  # Pillow's name
        """Write it."""


@runtime_checkable
class ArrayLike(Protocol):
    """What numpy can make an array of: its own arrays, torch's tensors."""

    def __array__(self) -> Any:
        """The array."""


PictureLike = Picture | ArrayLike


def encode_picture(what: str, value: PictureLike) -> bytes:
    """A picture as the bytes of a PNG.

    Args:
        what: what to call it in messages.
        value: a picture of Pillow; or an array ``[H,W]``, ``[H,W,C]`` or ``[1,H,W,C]`` with 1 to 4 channels: uint8, bool,
            or float 0..1 as ComfyUI's IMAGE.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(value, Picture):
        return _encode_pillow(what, value)
    return _encode_array(what, value)


def _encode_pillow(what: str, picture: Any) -> bytes:
    if picture.mode not in _MODES:
        picture = picture.convert("RGB")
    buffer = io.BytesIO()
    try:
        picture.save(buffer, format="PNG", exif=picture.getexif())  # it may say which side is up
    except (OSError, ValueError) as error:
        raise InputError(f"{what}: the picture cannot be written as PNG: {error}") from None
    return buffer.getvalue()


def _encode_array(what: str, value: ArrayLike) -> bytes:
    import numpy as np

    array = np.asarray(value)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in _COLOR_TYPES or 0 in array.shape:
        raise InputError(
            f"{what}: an array of shape {list(np.shape(value))} is no picture",
            remedy="give [H,W], [H,W,C] or [1,H,W,C] with 1 to 4 channels",
        )
    return _png(_as_bytes(what, array))


def _as_bytes(what: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype.kind != "f":
        raise InputError(
            f"{what}: an array of {array.dtype} is no picture", remedy="give uint8 0..255, or float 0..1 as an IMAGE"
        )
    if not np.isfinite(array).all() or array.min() < -0.01 or array.max() > 1.01:
        raise InputError(
            f"{what}: the array's values are not all within 0..1", remedy="divide by 255, or give it as uint8"
        )
    scaled: np.ndarray[Any, Any] = np.clip(array, 0.0, 1.0) * 255.0 + 0.5
    return scaled.astype(np.uint8)


def _png(array: np.ndarray[Any, Any]) -> bytes:
    """A PNG of ``[H,W,C]`` uint8, without filters: it travels once."""
    height, width, channels = array.shape
    lines = array.reshape(height, width * channels)
    rows = b"".join(b"\0" + line.tobytes() for line in lines)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
