"""The model tree: a directory with exactly the layout of a ComfyUI's ``models/``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from comfy_cpu_core.errors import ModelMissing

__all__ = ["MODELS_VARIABLE", "ModelTree", "default_models_dir"]

#: The environment variable that names the model tree.
MODELS_VARIABLE = "COMFY_CPU_MODELS"


def default_models_dir(environ: Mapping[str, str]) -> Path:
    """Where the model tree is if nobody says otherwise.

    ``COMFY_CPU_MODELS``, else ``comfy-cpu/models`` below ``XDG_DATA_HOME`` (``~/.local/share``).
    """
    if named := environ.get(MODELS_VARIABLE):
        return Path(named)
    data = environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "comfy-cpu" / "models"


@dataclass(frozen=True)
class ModelTree:
    """A model tree, read-only.

    Attributes:
        root: its directory; need not exist.
    """

    root: Path

    def path(self, target: str) -> Path:
        """Where the file with that path in the tree (``ben2_onnx/BEN2_Base.onnx``) is or would be."""
        return self.root.joinpath(*PurePosixPath(target).parts)

    def has(self, target: str) -> bool:
        """Whether that file is there."""
        return self.path(target).is_file()

    def require(self, target: str, *, remedy: str | None = None) -> Path:
        """The path of a file that must be there.

        Raises:
            ModelMissing: it is not; the error names the file, the tree and what to do.
        """
        path = self.path(target)
        if not path.is_file():
            raise ModelMissing(
                f"model file {target} is not in the model tree {self.root}",
                remedy=remedy or "fetch it with `comfy-cpu models fetch`, or name another tree with --models DIR",
            )
        return path

    def files(self, folder: str, suffixes: Iterable[str]) -> list[str]:
        """The files below a folder of the tree, with one of the suffixes, as sorted paths relative to the folder."""
        base = self.path(folder)
        wanted = {suffix.lower() for suffix in suffixes}
        if not base.is_dir():
            return []
        found = (p for p in base.rglob("*") if p.suffix.lower() in wanted and p.is_file())
        return sorted(p.relative_to(base).as_posix() for p in found)

    def find_by_name(self, named: str, folders: Iterable[str]) -> Path | None:
        """Find a file by the last part of a path that may come from another machine, Windows included.

        Workflows carry paths like ``C:/Users/…/models/llm/model.gguf``; what counts is the file's name.
        """
        name = PureWindowsPath(named).name
        if not name:
            return None
        for folder in folders:
            for relative in self.files(folder, {PurePosixPath(name).suffix}):
                if PurePosixPath(relative).name == name:
                    return self.path(folder) / relative
        return None
