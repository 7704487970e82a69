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
        elsewhere: top-level folders that are looked for in other places than below `root`: (name, directories), the
            first directory goes before the others. A ComfyUI's ``extra_model_paths.yaml`` says so.
    """

    root: Path
    elsewhere: tuple[tuple[str, tuple[Path, ...]], ...] = ()

    def places(self, folder: str) -> tuple[Path, ...]:
        """The directories that hold the files of a top-level folder (``ben2_onnx``), in order; need not exist."""
        return dict(self.elsewhere).get(folder) or (self.root / folder,)

    def path(self, target: str) -> Path:
        """Where the file or directory with that path in the tree (``ben2_onnx/BEN2_Base.onnx``) is or would be."""
        folder, *rest = PurePosixPath(target).parts
        candidates = [place.joinpath(*rest) for place in self.places(folder)]
        return next((path for path in candidates if path.exists()), candidates[0])

    def target_of(self, path: Path) -> str:
        """The path in the tree of a file that `path` or `find_by_name` gave; the inverse of `path`.

        Raises:
            ValueError: it is not in the tree.
        """
        for folder, places in self.elsewhere:
            for place in places:
                if path.is_relative_to(place):
                    return (PurePosixPath(folder) / path.relative_to(place).as_posix()).as_posix()
        return path.relative_to(self.root).as_posix()

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
        top, *rest = PurePosixPath(folder).parts
        wanted = {suffix.lower() for suffix in suffixes}
        found = set()
        for base in (place.joinpath(*rest) for place in self.places(top)):
            if base.is_dir():
                paths = (p for p in base.rglob("*") if p.suffix.lower() in wanted and p.is_file())
                found |= {p.relative_to(base).as_posix() for p in paths}
        return sorted(found)

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
                    return self.path(f"{folder}/{relative}")
        return None
