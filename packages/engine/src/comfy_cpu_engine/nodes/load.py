"""LoadImage and LoadImageMask: from a file of the request to pixels."""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path
from typing import Any, ClassVar

from comfy_cpu_core.context import RunContext, current_run
from comfy_cpu_core.errors import InputError, UsageError
from comfy_cpu_engine.ops.decode import read_channel, read_image
from comfy_cpu_engine.paths import input_files, locate
from comfy_cpu_nodes.arrays import FloatArray

__all__ = ["LoadImage", "LoadImageMask"]


def _run() -> RunContext:
    run = current_run()
    if run is None:
        raise UsageError("LoadImage of comfy-cpu reads a run's input folder, and no run is under way")
    return run


def _find(name: object) -> Path:
    folders = _run().folders
    try:
        path = locate(name, folders)
    except ValueError as error:
        raise InputError(f"Invalid image file: {name!r} {error}") from None
    if not path.is_file():
        there = input_files(folders)
        shown = ", ".join(there[:10]) + (f" and {len(there) - 10} more" if len(there) > 10 else "")
        raise InputError(f"Invalid image file: {name!r} is not among the input files ({shown or 'there are none'})")
    return path


def _check(name: object) -> bool | str:
    if name is None:  # linked: there is no value before the run
        return True
    try:
        _find(name)
    except InputError as error:
        return str(error)
    return True


def _hash(name: object) -> str:
    return hashlib.sha256(_find(name).read_bytes()).hexdigest()


def _files(*, images_only: bool) -> list[str]:
    """The options of the input: the files at the top of the input folder; none where there is no run."""
    run = current_run()
    names = [name for name in input_files(run.folders) if "/" not in name] if run is not None else []
    if not images_only:
        return names
    return [name for name in names if (mimetypes.guess_type(name, strict=False)[0] or "").startswith("image/")]


class LoadImage:
    """Reads all frames of an image file; transparency becomes the mask."""

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "load_image"
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": (_files(images_only=True), {"image_upload": True})}}

    @classmethod
    def VALIDATE_INPUTS(cls, image: Any) -> bool | str:
        return _check(image)

    @classmethod
    def IS_CHANGED(cls, image: Any) -> str:
        return _hash(image)

    def load_image(self, image: str) -> tuple[FloatArray, FloatArray]:
        decoded = read_image(_find(image), image)
        if decoded.clipped:
            _run().warn(
                f"{image!r} is grey with 16 bits a pixel: as in ComfyUI, all that is brighter than 255 of 65535 becomes "
                "white; save it with 8 bits to see it as it is"
            )
        return decoded.image, decoded.mask


class LoadImageMask:
    """Reads one channel of an image file as a mask."""

    CHANNELS: ClassVar[list[str]] = ["alpha", "red", "green", "blue"]

    RETURN_TYPES = ("MASK",)
    FUNCTION = "load_image"
    CATEGORY = "mask"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": (_files(images_only=False), {"image_upload": True}),
                "channel": (cls.CHANNELS,),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, image: Any) -> bool | str:
        return _check(image)

    @classmethod
    def IS_CHANGED(cls, image: Any, channel: Any) -> str:
        return _hash(image)

    def load_image(self, image: str, channel: str) -> tuple[FloatArray]:
        return (read_channel(_find(image), image, channel),)
