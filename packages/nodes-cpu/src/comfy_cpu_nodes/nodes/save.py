"""A node that saves pictures and nothing else."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from comfy_cpu_core.errors import NodeError
from comfy_cpu_nodes import host
from comfy_cpu_nodes.arrays import to_numpy
from comfy_cpu_nodes.ops.pixels import to_pil, to_pixels

__all__ = ["SaveImageNoMetadata"]

# As ComfyUI's SaveImage: quick, and a tenth larger than the smallest.
_COMPRESSION = 4


class SaveImageNoMetadata:
    """Saves PNG files without the workflow in them."""

    CATEGORY = "image"
    DESCRIPTION = "Saves pictures as PNG without any metadata: no workflow, no prompt. Never overwrites a file."
    FUNCTION = "save_images"
    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures to save; alpha is kept."}),
                "filename_prefix": (
                    "STRING",
                    {
                        "default": "Untitled image",
                        "tooltip": "What file names start with; a/b goes to the subfolder a. %width%, %height%, %year%, "
                        "%month%, %day%, %hour%, %minute% and %second% are filled in.",
                    },
                ),
            }
        }

    def save_images(self, images: Any, filename_prefix: str = "Untitled image") -> dict[str, Any]:
        """Save as ``{prefix}_{YYYYmmddHHMMSS}.png``, the further ones of a batch with ``_1``, ``_2``, ….

        A name that is taken already, in the same second, is passed over.

        Raises:
            NodeError: the prefix leads out of the output directory, or the file cannot be written.
        """
        frames = to_numpy(images, name="images")
        now = datetime.now()
        height, width = frames.shape[1:3]
        subfolder, stem = _split(_fill_in(filename_prefix, now, width, height))
        folder = _folder(subfolder, filename_prefix)
        numbers = count()
        saved = []
        for frame in frames:
            buffer = io.BytesIO()
            to_pil(to_pixels(frame)).save(buffer, "PNG", compress_level=_COMPRESSION)
            name = _write_new(folder, f"{stem}_{now:%Y%m%d%H%M%S}", numbers, buffer.getvalue())
            saved.append({"filename": name, "subfolder": subfolder, "type": "output"})
            host.check_interrupt()
        return {"ui": {"images": saved}}


def _fill_in(prefix: str, now: datetime, width: int, height: int) -> str:
    """Replace the tokens that ComfyUI's SaveImage knows."""
    values = {
        "width": str(width),
        "height": str(height),
        "year": f"{now:%Y}",
        "month": f"{now:%m}",
        "day": f"{now:%d}",
        "hour": f"{now:%H}",
        "minute": f"{now:%M}",
        "second": f"{now:%S}",
    }
    for token, value in values.items():
        prefix = prefix.replace(f"%{token}%", value)
    return prefix


def _split(prefix: str) -> tuple[str, str]:
    """Subfolder (with ``/``, may be empty) and the start of the file's name."""
    # Workflows from Windows write a\b.
    path = posixpath.normpath(prefix.replace("\\", "/")) if prefix else ""
    if path.startswith("/") or path.partition("/")[0] == "..":
        raise _outside(prefix)
    subfolder, _, stem = ("" if path == "." else path).rpartition("/")
    return subfolder, stem


def _folder(subfolder: str, prefix: str) -> Path:
    """The directory to save in, which is made if need be."""
    try:
        root = host.output_directory().resolve()
        folder = (root / subfolder).resolve()
        if not folder.is_relative_to(root):  # a symbolic link
            raise _outside(prefix)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise host.node_error(f"filename_prefix {prefix!r}: cannot make the folder {subfolder!r}: {error}") from error
    return folder


def _outside(prefix: str) -> NodeError:
    return host.node_error(
        f"filename_prefix {prefix!r} leads out of the output directory", remedy="use a relative path without .."
    )


def _write_new(folder: Path, stem: str, numbers: Iterator[int], data: bytes) -> str:
    """Write to the first name that is free; two processes that try at once get two names."""
    while True:
        number = next(numbers)
        name = f"{stem}_{number}.png" if number else f"{stem}.png"
        try:
            file = (folder / name).open("xb")
        except FileExistsError:
            continue
        except (OSError, ValueError) as error:
            raise host.node_error(f"cannot save {name!r}: {error}") from error
        try:
            with file:
                file.write(data)
        except OSError as error:
            (folder / name).unlink(missing_ok=True)
            raise host.node_error(f"cannot save {name!r}: {error}") from error
        return name
