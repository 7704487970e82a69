"""The directories of a ComfyUI that runs jobs: its own, so that what jobs leave can go, and baked files stay."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ComfyUIFiles"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComfyUIFiles:
    """Where a ComfyUI's process reads and writes.

    Attributes:
        input: has links to what lies in the input folder of the ComfyUI itself, and the files of jobs.
        output: for results.
        temp: for previews. ComfyUI makes it, as ``temp`` below the directory that it is told.
        models: a file that tells ComfyUI of another model tree than its own; None if there is none.
        baked: the names of those links.
    """

    input: Path
    output: Path
    temp: Path
    models: Path | None
    baked: frozenset[str]

    @classmethod
    def make(cls, base: Path, comfyui: Path, models: Path | None) -> ComfyUIFiles:
        """Make the directories.

        Args:
            base: an empty directory.
            comfyui: the directory that has main.py.
            models: a model tree to use besides the one that ComfyUI has.

        Raises:
            OSError: they cannot be made.
        """
        input_, output, temp = base / "input", base / "output", base / "temp"
        for folder in (input_, output, temp):
            folder.mkdir()
        baked = comfyui / "input"
        names = []
        for path in baked.iterdir() if baked.is_dir() else ():
            (input_ / path.name).symlink_to(path.absolute())
            names.append(path.name)
        config = None
        if models is not None and models.is_dir() and models.resolve() != (comfyui / "models").resolve():
            config = base / "models.yaml"
            config.write_text(_model_paths(models), encoding="utf-8")
        return cls(input_, output, temp, config, frozenset(names))

    def clean(self) -> None:
        """Remove what jobs left, as far as that is possible."""
        for folder, kept in ((self.input, self.baked), (self.output, frozenset()), (self.temp / "temp", frozenset())):
            with contextlib.suppress(FileNotFoundError):
                for path in list(folder.iterdir()):
                    if path.name not in kept:
                        _remove(path)


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        log.warning("what a job left cannot be removed: %s", error)


def _model_paths(models: Path) -> str:
    """What ComfyUI reads as extra_model_paths.yaml: every folder of the tree under its own name. JSON is YAML."""
    folders = {path.name: path.name for path in sorted(models.iterdir()) if path.is_dir()}
    return json.dumps({"comfy_cpu": {"base_path": str(models.absolute()), **folders}}, indent=2)
