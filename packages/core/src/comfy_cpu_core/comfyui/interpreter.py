"""Another Python on this machine: what it is, what is installed in it, and its pip."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from comfy_cpu_core.errors import UsageError

__all__ = ["Interpreter", "inspect_python", "pip_command", "run_lines"]

_OLDEST_PYTHON = (3, 11)

#: The first pip that can say what it installed (--report) and be run for another Python (--python).
_OLDEST_PIP = Version("22.3")

_NAME_IT = "name ComfyUI's Python: --python PATH"

_LOOK = """
import json, sys
from importlib import metadata
found = {}
for distribution in metadata.distributions():
    name = distribution.metadata["Name"]
    if name:
        found.setdefault(name, distribution.version)
print(json.dumps({"version": list(sys.version_info[:3]), "distributions": found}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python.

    Attributes:
        path: its executable.
        version: major, minor and micro.
        distributions: the version of every distribution that it finds, by normalised name.
    """

    path: Path
    version: tuple[int, int, int]
    distributions: Mapping[str, str]


def inspect_python(path: Path) -> Interpreter:
    """Run a Python and see what it is.

    Raises:
        UsageError: it cannot be run, or is older than we support.
    """
    path = path.absolute()  # it is run from other directories than this one
    answer = _ask(path)
    version = tuple(answer["version"])
    if version < _OLDEST_PYTHON:
        raise UsageError(
            f"{path} is Python {'.'.join(map(str, version))}; comfy-cpu needs {'.'.join(map(str, _OLDEST_PYTHON))}",
            remedy="make that ComfyUI a newer environment",
        )
    found: dict[str, str] = {canonicalize_name(name): str(version) for name, version in answer["distributions"].items()}
    return Interpreter(path, version, found)


def _ask(path: Path) -> Any:
    try:
        # In an empty directory: Python looks for modules where it is started.
        with tempfile.TemporaryDirectory() as empty:
            done = subprocess.run(
                [path, "-c", _LOOK], check=False, capture_output=True, text=True, cwd=empty, timeout=120
            )
        return json.loads(done.stdout)
    except OSError as error:
        raise UsageError(f"{path} cannot be run: {error.strerror}", remedy=_NAME_IT) from error
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"{path} does not answer", remedy=_NAME_IT) from error
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UsageError(f"{path} does not answer as a Python does: {last}", remedy=_NAME_IT) from None


def pip_command(python: Interpreter) -> list[str]:
    """How to call pip for that Python: its own, or else ours.

    Raises:
        UsageError: there is no pip, or none that is new enough.
    """
    own = python.distributions.get("pip")
    if own is not None and _new_enough(own):
        return [str(python.path), "-m", "pip"]
    try:
        ours = metadata.version("pip")
    except metadata.PackageNotFoundError:
        ours = None
    if ours is not None and _new_enough(ours):
        return [sys.executable, "-m", "pip", "--python", str(python.path)]
    found = f"an old pip ({own})" if own else "no pip"
    raise UsageError(
        f"{python.path} has {found}, and comfy-cpu needs {_OLDEST_PIP}",
        remedy=f"{python.path} -m ensurepip --upgrade, then {python.path} -m pip install --upgrade pip",
    )


def _new_enough(version: str) -> bool:
    try:
        return Version(version) >= _OLDEST_PIP
    except InvalidVersion:
        return False


def run_lines(command: Sequence[str], on_line: Callable[[str], None]) -> tuple[int, list[str]]:
    """Run a program, tell every line that it writes as it comes, and give its exit code and all lines.

    Raises:
        UsageError: it cannot be started.
    """
    lines: list[str] = []
    try:
        with (
            tempfile.TemporaryDirectory() as empty,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=empty
            ) as process,
        ):
            for line in _stripped(process):
                lines.append(line)
                on_line(line)
    except OSError as error:
        raise UsageError(f"{command[0]} cannot be run: {error.strerror}") from error
    return process.returncode, lines


def _stripped(process: subprocess.Popen[str]) -> Iterator[str]:
    for line in process.stdout or ():
        if text := line.rstrip():
            yield text
