"""Installing our nodes into a ComfyUI: the packages into its Python, a small folder into its ``custom_nodes``.

What is installed there already stays as it is, to the version: a ComfyUI whose torch, numpy or transformers changed may
no longer start. pip is told so with a constraint for each, and refuses rather than breaks one. The folder is written by
the package that was just installed (``python -m comfy_cpu_nodes.pack``), so that both are of one version.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.version import InvalidVersion, Version

from comfy_cpu_core.comfyui.checkout import ComfyUI
from comfy_cpu_core.comfyui.interpreter import Interpreter, inspect_python, pip_command, run_lines
from comfy_cpu_core.comfyui.sources import OURS, requirements
from comfy_cpu_core.errors import BuildError, UsageError

__all__ = ["DEFAULT_EXTRAS", "Installation", "Installed", "install", "plan"]

#: What is installed with the nodes unless somebody says otherwise: the fastest runtime for ONNX models.
DEFAULT_EXTRAS = ("openvino",)

#: What is always installed with them: which models there are, for ``comfy-cpu models``.
_ALWAYS = ("models",)

#: pip's words for a requirement that only our constraints stand against.
_CONSTRAINED = re.compile(r"The user requested \(constraint\) (\S+)")


@dataclass(frozen=True)
class Installation:
    """What is to be done.

    Attributes:
        requirements: for pip: names with versions, or directories of a checkout.
        extras: of comfy-cpu-nodes.
        constraints: one ``name==version`` for each distribution that must stay as it is.
        pip: the command that pip is called with.
    """

    comfyui: ComfyUI
    python: Interpreter
    requirements: tuple[str, ...]
    extras: tuple[str, ...]
    constraints: tuple[str, ...] = field(repr=False)
    pip: tuple[str, ...] = ()


@dataclass(frozen=True)
class Installed:
    """What was done, or would be.

    Attributes:
        packages: (name, version) of all that pip installed, or would install.
        folder: the pack's; None in a dry run.
        classes: the node classes that ComfyUI will have.
        disabled: those that the user switched off.
        missing: those whose library is not there → why, and how to get it.
    """

    packages: tuple[tuple[str, str], ...]
    folder: Path | None = None
    classes: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


def plan(comfyui: ComfyUI, python: Path, *, extras: Sequence[str] = DEFAULT_EXTRAS) -> Installation:
    """Look at the Python and work out what to do; changes nothing.

    Raises:
        UsageError: that is no Python that runs a ComfyUI, or it has no pip.
    """
    found = inspect_python(python)
    if "torch" not in found.distributions:
        raise UsageError(
            f"{python} does not run that ComfyUI: it has no torch", remedy="name the Python that does: --python PATH"
        )
    wanted = tuple(dict.fromkeys((*extras, *_ALWAYS)))
    return Installation(
        comfyui=comfyui,
        python=found,
        requirements=tuple(requirements(wanted)),
        extras=wanted,
        constraints=tuple(_constraints(found.distributions)),
        pip=tuple(pip_command(found)),
    )


def install(
    installation: Installation,
    *,
    find_links: Sequence[str] = (),
    dry_run: bool = False,
    on_line: Callable[[str], None] = lambda line: None,
) -> Installed:
    """Do it. Doing it again changes nothing, or brings what has changed here.

    Args:
        find_links: directories or pages where pip looks for packages, too.
        dry_run: only ask pip what it would install.
        on_line: told every line that pip writes.

    Raises:
        BuildError: pip failed, something that is there would have to change, or the folder cannot be written.
    """
    packages = _pip_install(installation, find_links, dry_run=dry_run, on_line=on_line)
    if dry_run:
        return Installed(packages)
    command = [str(installation.python.path), "-m", "comfy_cpu_nodes.pack", str(installation.comfyui.custom_nodes)]
    for extra in installation.extras:
        command += ["--extra", extra]
    code, lines = run_lines(command, lambda line: None)
    try:
        answer = json.loads(lines[-1]) if code == 0 and lines else None
    except ValueError:
        answer = None
    if answer is None:
        message, *more = lines or [f"{command[0]} ended with exit code {code}"]
        told = code == BuildError.exit_code
        raise BuildError(
            message if told else f"the packages are installed, but do not work: {lines[-1] if lines else message}",
            remedy=" ".join(more) if told else f"see the whole error: {' '.join(command)}",
        )
    return Installed(
        packages=packages,
        folder=Path(answer["folder"]),
        classes=tuple(answer["classes"]),
        disabled=tuple(answer["disabled"]),
        missing=dict(answer["missing"]),
    )


def _pip_install(
    installation: Installation, find_links: Sequence[str], *, dry_run: bool, on_line: Callable[[str], None]
) -> tuple[tuple[str, str], ...]:
    with tempfile.TemporaryDirectory() as folder:
        constraints, report = Path(folder, "constraints.txt"), Path(folder, "report.json")
        constraints.write_text("".join(f"{line}\n" for line in installation.constraints), encoding="utf-8")
        command = [*installation.pip, "--disable-pip-version-check", "install", "--progress-bar", "off"]
        command += ["--constraint", str(constraints), "--report", str(report)]
        command += ["--dry-run"] if dry_run else []
        for place in find_links:
            command += ["--find-links", place]
        code, lines = run_lines([*command, *installation.requirements], on_line)
        if code != 0:
            raise _pip_error(installation, lines, code)
        described = json.loads(report.read_text(encoding="utf-8"))
    return tuple((item["metadata"]["name"], item["metadata"]["version"]) for item in described["install"])


def _pip_error(installation: Installation, lines: Sequence[str], code: int) -> BuildError:
    """Say what went wrong: pip's own reason, and which package stood against it if one did."""
    python = installation.python.path
    text = "\n".join(lines)
    if kept := _CONSTRAINED.findall(text):
        wants = [line.strip() for line in lines if " depends on " in line]
        return BuildError(
            f"{kept[0]} in {python} would have to change ({'; '.join(wants[:2]) or 'no version of ours works with it'}); "
            "nothing was installed",
            remedy="change it yourself if ComfyUI works with another version, or install into a ComfyUI of its own",
        )
    reasons = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    last = (reasons or list(lines[-1:]) or [f"exit code {code}"])[-1]
    return BuildError(
        f"pip could not install comfy-cpu into {python}: {last}",
        remedy="the lines above say more; --find-links DIR takes packages from a directory",
    )


def _constraints(distributions: Mapping[str, str]) -> list[str]:
    """One for each distribution that is there, but for ours. pip takes no versions that are none."""
    kept = []
    for name, version in sorted(distributions.items()):
        try:
            Version(version)
        except InvalidVersion:
            continue
        if not name.startswith(OURS):
            kept.append(f"{name}=={version}")
    return kept
