"""The folder that goes into a ComfyUI's ``custom_nodes``, and that the Comfy Registry gets.

`build` makes its files out of what is installed: the static ones beside this module, a help page for every node class,
and the versions. ``python -m comfy_cpu_nodes.pack DIR`` writes it; ``comfy-cpu nodes install`` calls that.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from comfy_cpu_core.errors import BuildError
from comfy_cpu_nodes.comfyui import DISABLED_FILE
from comfy_cpu_nodes.pack.help_pages import help_page

__all__ = ["PACK_NAME", "build", "write"]

#: The folder's name, and the pack's in the Comfy Registry.
PACK_NAME = "comfy-cpu"

_DISTRIBUTION = "comfy-cpu-nodes"
_STATIC = Path(__file__).parent / "folder"

_PYPROJECT = """\
[project]
name = {name}
description = {description}
version = {version}
license = {{ text = "Apache-2.0" }}
requires-python = ">=3.11"
dependencies = [{requirement}]
classifiers = ["Operating System :: POSIX :: Linux"]

[tool.comfy]
PublisherId = "comfy-cpu"
DisplayName = "comfy-cpu"
Icon = ""
requires-comfyui = ">=0.3.44"
"""


def build(extras: Iterable[str]) -> dict[str, bytes]:
    """Every file of the folder, by its path inside it.

    Args:
        extras: of the distribution comfy-cpu-nodes, for ``requirements.txt``.
    """
    from comfy_cpu_nodes.nodes import NODES

    files = {
        path.relative_to(_STATIC).as_posix(): path.read_bytes()
        for path in sorted(_STATIC.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }
    described = metadata.metadata(_DISTRIBUTION)
    requirement = f"{_DISTRIBUTION}[{','.join(extras)}]=={described['Version']}".replace("[]", "")
    pyproject = _PYPROJECT.format(
        name=json.dumps(PACK_NAME),
        description=json.dumps(described["Summary"]),
        version=json.dumps(described["Version"]),
        requirement=json.dumps(requirement),
    )
    files["pyproject.toml"] = pyproject.encode()
    files["requirements.txt"] = f"{requirement}\n".encode()
    for node in NODES:
        files[f"web/docs/{node.class_type}.md"] = help_page(node).encode()
    return files


def write(files: Mapping[str, bytes], custom_nodes: Path) -> Path:
    """Put the folder into `custom_nodes`, in the place of an earlier one; the user's `DISABLED_FILE` stays.

    The files are written beside it first, then two renames follow: whoever looks sees the old folder or the new one
    (or, between the two renames, none), never half of one.

    Returns:
        The folder.

    Raises:
        BuildError: something else has its name, or it cannot be written.
    """
    folder = custom_nodes / PACK_NAME
    # ComfyUI loads whatever lies in custom_nodes, but for names that end so.
    new, old = (custom_nodes / f"{PACK_NAME}.{state}-{os.getpid()}.disabled" for state in ("new", "old"))
    try:
        kept = _kept(folder)
        for name, data in {**files, **kept}.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except OSError as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise BuildError(
            f"cannot write {folder}: {error}", remedy="check who owns custom_nodes, and the disk"
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return folder


def _kept(folder: Path) -> dict[str, bytes]:
    """What of an earlier folder is the user's."""
    if not folder.exists() and not folder.is_symlink():
        return {}
    if folder.is_symlink() or not (folder / "requirements.txt").is_file():
        raise BuildError(
            f"{folder} is there already, and comfy-cpu did not write it", remedy="move it away, then install again"
        )
    user = folder / DISABLED_FILE
    return {DISABLED_FILE: user.read_bytes()} if user.is_file() else {}
