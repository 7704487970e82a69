"""SaveImage and PreviewImage: from pixels to PNG files in a run's folders.

Metadata: ComfyUI writes the whole prompt into every PNG unless it is told not to. A prompt may hold secrets, and
pictures are passed on, so here it is written only where the run has EXTRA_PNGINFO, that is, where whoever started the
run asked for it (see `comfy_cpu_engine.Engine.run`).
"""

from __future__ import annotations

import random
import string
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from comfy_cpu_core.context import current_run
from comfy_cpu_core.errors import InputError, UsageError
from comfy_cpu_engine.ops.encode import write_png
from comfy_cpu_engine.paths import output_prefix
from comfy_cpu_nodes.arrays import to_numpy
from comfy_cpu_nodes.host import progress

__all__ = ["PreviewImage", "SaveImage"]


def _fill_in(prefix: str, width: int, height: int, now: time.struct_time) -> str:
    """Put size and time into a prefix: ``%width%``, ``%year%``, …; what else stands between % stays."""
    if "%" not in prefix:
        return prefix
    values = {
        "width": str(width),
        "height": str(height),
        "year": str(now.tm_year),
        **{name: f"{getattr(now, field):02}" for name, field in _TIMES.items()},
    }
    for name, value in values.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix


_TIMES = {"month": "tm_mon", "day": "tm_mday", "hour": "tm_hour", "minute": "tm_min", "second": "tm_sec"}


def _next_number(folder: Path, name: str) -> int:
    """One more than the highest number of a file ``{name}_{number}_…`` in the folder."""
    numbers = [0]
    for path in folder.iterdir():
        rest = path.name.removeprefix(f"{name}_")
        if rest != path.name and (digits := rest.partition("_")[0]).isdecimal():
            numbers.append(int(digits))
    return max(numbers) + 1


class SaveImage:
    """Writes images as ``{prefix}_{number:05}_.png`` into the output folder."""

    folder: ClassVar[str] = "output"
    compress_level: ClassVar[int] = 4

    RETURN_TYPES = ()
    FUNCTION = "save_images"
    OUTPUT_NODE = True
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The images to save."}),
                "filename_prefix": (
                    "STRING",
                    {"default": "ComfyUI", "tooltip": "How the files' names begin; sub/name saves into a subfolder."},
                ),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, filename_prefix: Any = None) -> bool | str:
        """Find a prefix that leads out of the output folder before the run, not at its end."""
        if filename_prefix is None:  # linked: there is no value before the run
            return True
        try:
            output_prefix(filename_prefix)
        except ValueError as error:
            return f"{filename_prefix!r} {error}"
        return True

    def save_images(
        self,
        images: Any,
        filename_prefix: str = "ComfyUI",
        prompt: Any = None,
        extra_pnginfo: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        batch = to_numpy(images, name="images")
        texts = None if extra_pnginfo is None else {"prompt": prompt, **extra_pnginfo}
        now = time.localtime()
        path = self._below(_fill_in(filename_prefix, batch.shape[2], batch.shape[1], now))
        folder = self._folder() / path.parent
        folder.mkdir(parents=True, exist_ok=True)
        subfolder = "" if path.parent == PurePosixPath() else path.parent.as_posix()
        first = _next_number(folder, path.name)
        saved = []
        steps = progress(len(batch))
        for index, image in enumerate(batch):
            name = f"{path.name.replace('%batch_num%', str(index))}_{first + index:05}_.png"
            write_png(image, folder / name, compress_level=self.compress_level, texts=texts)
            saved.append({"filename": name, "subfolder": subfolder, "type": self.folder})
            steps.step()
        return {"ui": {"images": saved}}

    def _below(self, prefix: str) -> PurePosixPath:
        try:
            return output_prefix(prefix)
        except ValueError as error:
            raise InputError(f"filename_prefix {prefix!r} {error}") from None

    def _folder(self) -> Path:
        run = current_run()
        if run is None:
            raise UsageError("SaveImage of comfy-cpu writes into a run's folders, and no run is under way")
        folder: Path = getattr(run.folders, self.folder)
        return folder


class PreviewImage(SaveImage):
    """Writes images as temporary files, compressed less, under a name that is new each time."""

    folder: ClassVar[str] = "temp"
    compress_level: ClassVar[int] = 1

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"images": ("IMAGE",)},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def save_images(
        self,
        images: Any,
        filename_prefix: str = "ComfyUI",
        prompt: Any = None,
        extra_pnginfo: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        unique = "".join(random.choices(string.ascii_lowercase, k=5))
        return super().save_images(images, f"{filename_prefix}_temp_{unique}", prompt, extra_pnginfo)
