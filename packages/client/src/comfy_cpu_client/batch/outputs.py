"""Where the outputs of a batch go: a folder (or a prefix) for each input, written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from comfy_cpu_client.save import save_outputs
from comfy_cpu_core.errors import InputError
from comfy_cpu_core.files import place_file
from comfy_cpu_core.results import Output

__all__ = ["Layout", "OutputFolder"]

#: ``folders``: DIR/<input>/<file>; ``flat``: DIR/<input>_<file>.
Layout = Literal["folders", "flat"]

#: Where folders are until they are whole. No input's folder can be called so: those end in a hash.
_STAGING = ".unfinished"


class OutputFolder:
    """The outputs below a directory. May be used from several threads, each for another input.

    Args:
        directory: the batch's output directory; must be there.
        layout: see `Layout`.

    What an earlier process left unfinished is removed.
    """

    def __init__(self, directory: Path, layout: Layout = "folders") -> None:
        self._directory = directory
        self._layout = layout
        shutil.rmtree(directory / _STAGING, ignore_errors=True)

    def save(self, folder: str, outputs: Sequence[Output]) -> list[str]:
        """Write the outputs of one input, over those that an earlier try left; gives their paths below the directory.

        Raises:
            InputError: they cannot be written.
        """
        if not outputs:
            return []
        staging = self._directory / _STAGING / folder
        try:
            shutil.rmtree(staging, ignore_errors=True)
            paths = [saved.path.relative_to(staging) for saved in save_outputs(outputs, staging)]
            if self._layout == "flat":
                return self._spread(staging, folder, list(dict.fromkeys(paths)))
            for path in paths:
                _sync(staging / path)
            final = self._directory / folder
            shutil.rmtree(final, ignore_errors=True)
            staging.rename(final)
            _sync(self._directory)
        except OSError as error:
            raise InputError(
                f"cannot write to {error.filename or self._directory}: {error.strerror}",
                remedy="make room, or name another directory with --output",
            ) from None
        return [f"{folder}/{path.as_posix()}" for path in dict.fromkeys(paths)]

    def close(self) -> None:
        """Remove what is unfinished."""
        shutil.rmtree(self._directory / _STAGING, ignore_errors=True)

    def _spread(self, staging: Path, folder: str, paths: Sequence[Path]) -> list[str]:
        names = []
        for path in paths:
            name = f"{folder}_{'_'.join(path.parts)}"
            while name in names:  # a/b.png and a_b.png
                name = f"{Path(name).stem}_{Path(name).suffix}"
            place_file(staging / path, self._directory / name)
            names.append(name)
        shutil.rmtree(staging, ignore_errors=True)
        return names


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
