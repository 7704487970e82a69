"""An image's Python packages: resolved by pip for the image's Python, kept as wheels in a cache by their hash.

pip looks where it looks on this machine (its configuration, proxies, certificates); the lock then knows a wheel by its
hash alone. Distributions that are installed here from a directory, ours in a checkout, are built from there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.parser import Parser
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit
from urllib.request import url2pathname

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from comfy_cpu_builder.layout import SOURCE_DATE_EPOCH
from comfy_cpu_builder.lock import LockedPackage
from comfy_cpu_core.errors import BuildError
from comfy_cpu_core.files import copy_file, place_file, sha256_file

__all__ = ["WheelCache", "default_cache", "find_cuda", "gather", "resolve"]

Note = Callable[[str], None]

#: What packages with CUDA inside are called.
_CUDA = ("nvidia-", "cuda-", "triton")

_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}

#: The C library of Debian 12, which the bases have at least: wheels may ask for this version or an older one.
_GLIBC = 36
_OLDEST_GLIBC = 17


def default_cache(environ: Mapping[str, str]) -> Path:
    """Where wheels and sources are kept: ``comfy-cpu`` below ``XDG_CACHE_HOME`` (``~/.cache``)."""
    cache = environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "comfy-cpu"


@dataclass(frozen=True)
class WheelCache:
    """Wheels by their hash, below a directory that need not exist."""

    root: Path

    def find(self, package: LockedPackage) -> Path | None:
        """The wheel, if it is there."""
        path = self._path(package.sha256, package.file)
        return path if path.is_file() else None

    def require(self, package: LockedPackage) -> Path:
        """The wheel, checked.

        Raises:
            BuildError: it is not there, or not what it should be.
        """
        path = self._path(package.sha256, package.file)
        if not path.is_file():
            raise BuildError(f"{package.file} is not in the cache {self.root}", remedy="run `comfy-cpu fetch` first")
        if sha256_file(path) != package.sha256:
            path.unlink()
            raise BuildError(f"{path} was damaged, and is thrown away", remedy="try again: it is fetched anew")
        return path

    def put(self, wheel: Path) -> LockedPackage:
        """Keep a wheel; give what the lock says of it."""
        package = _describe(wheel)
        target = self._path(package.sha256, package.file)
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(f".{os.getpid()}-{target.name}")
            try:
                copy_file(wheel, beside)
                place_file(beside, target)
            finally:
                beside.unlink(missing_ok=True)
        return package

    def _path(self, sha256: str, file: str) -> Path:
        return self.root / "wheels" / sha256 / file


def resolve(
    requirements: Sequence[str],
    *,
    python: str,
    platform: str,
    cache: WheelCache,
    installed: Mapping[str, str] = MappingProxyType({}),
    index_urls: Sequence[str] = (),
    find_links: Sequence[str] = (),
    note: Note = lambda _: None,
) -> tuple[tuple[LockedPackage, ...], LockedPackage]:
    """Find out which wheels meet the requirements, and keep them; give them by name, and pip's own.

    Args:
        installed: what the image's Python has already (name → version): it keeps those versions, and they are not
            among the wheels.

    Raises:
        BuildError: pip finds none that fit together, or what it finds brings CUDA; the message has pip's reason.
    """
    _require_same_python(python)
    with tempfile.TemporaryDirectory(prefix="comfy-cpu-wheels-") as scratch:
        folder = Path(scratch)
        ours = folder / "ours"
        ours.mkdir()
        built = _build_local(requirements, ours, note)
        arguments = [*_where(index_urls, (str(ours), *find_links)), *_for_target(python, platform)]
        wanted = [_as_wheel(text, built) for text in requirements]
        if installed:
            constraints = folder / "constraints.txt"
            constraints.write_text("".join(f"{name}=={version}\n" for name, version in sorted(installed.items())))
            wanted += ["--constraint", str(constraints)]
        found = folder / "found"
        _pip(["download", "--dest", str(found), *arguments, *wanted], note)
        tool = folder / "tool"
        _pip(["download", "--dest", str(tool), "--no-deps", *arguments, "pip"], note)
        kept = (cache.put(path) for path in found.glob("*.whl"))
        packages = sorted((p for p in kept if installed.get(p.name) != p.version), key=lambda p: p.name)
        (installer,) = (cache.put(path) for path in tool.glob("*.whl"))
    if cuda := find_cuda(package.name for package in packages):
        raise BuildError(
            f"the Python packages bring CUDA: {', '.join(cuda)}",
            remedy="torch's builds for CPUs are in an index of their own: name it in index_urls, or pin torch to a +cpu version",
        )
    return tuple(packages), installer


def gather(
    packages: Iterable[LockedPackage],
    *,
    python: str,
    platform: str,
    cache: WheelCache,
    index_urls: Sequence[str] = (),
    find_links: Sequence[str] = (),
    note: Note = lambda _: None,
) -> None:
    """Make sure that the cache has every wheel of a lock. What is there is not asked for.

    Raises:
        BuildError: a wheel is not to be had with its hash.
    """
    missing = [package for package in packages if cache.find(package) is None]
    if not missing:
        return
    with tempfile.TemporaryDirectory(prefix="comfy-cpu-wheels-") as scratch:
        folder = Path(scratch)
        ours = folder / "ours"
        ours.mkdir()
        for name, wheel in _build_local([package.name for package in missing], ours, note, deep=False).items():
            built = cache.put(wheel)
            locked = next(package for package in missing if package.name == name)
            if built.sha256 != locked.sha256:
                raise BuildError(
                    f"{name} has changed since the lock was made",
                    remedy="make the lock anew with `comfy-cpu lock`",
                )
        missing = [package for package in missing if cache.find(package) is None]
        if not missing:
            return
        listed = folder / "requirements.txt"
        listed.write_text("".join(f"{p.name}=={p.version} --hash=sha256:{p.sha256}\n" for p in missing))
        arguments = [*_where(index_urls, find_links), *_for_target(python, platform), "--no-deps", "--require-hashes"]
        found = folder / "found"
        _pip(["download", "--dest", str(found), *arguments, "-r", str(listed)], note)
        for path in found.glob("*.whl"):
            cache.put(path)
    for package in missing:
        cache.require(package)


def find_cuda(names: Iterable[str]) -> list[str]:
    """The packages among these that have CUDA inside."""
    return sorted(name for name in names if canonicalize_name(name).startswith(_CUDA))


def _require_same_python(python: str) -> None:
    # pip reads a package's conditions (python_version < "3.12") with the values of the Python that runs it.
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python != here:
        raise BuildError(
            f"the image has Python {python}, this is Python {here}: pip would resolve for the wrong one",
            remedy=f"make the lock with comfy-cpu under Python {python}, or set python = {here!r} in the spec",
        )


def _for_target(python: str, platform: str) -> list[str]:
    machine = _MACHINES[platform]
    tags = [f"manylinux_2_{n}_{machine}" for n in range(_GLIBC, _OLDEST_GLIBC - 1, -1)]
    legacy = [
        f"manylinux2014_{machine}",
        *(["manylinux2010_x86_64", "manylinux1_x86_64"] if machine == "x86_64" else []),
    ]
    arguments = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    for tag in (*tags, *legacy, f"linux_{machine}"):
        arguments += ["--platform", tag]
    digits = python.replace(".", "")
    return [*arguments, "--abi", f"cp{digits}", "--abi", "abi3", "--abi", "none"]


def _where(index_urls: Sequence[str], find_links: Sequence[str]) -> list[str]:
    return [
        *(text for url in index_urls for text in ("--extra-index-url", url)),
        *(text for place in find_links for text in ("--find-links", place)),
    ]


def _as_wheel(text: str, built: Mapping[str, Path]) -> str:
    """A requirement; if it is of a distribution that was built here, that wheel."""
    requirement = Requirement(text)
    wheel = built.get(canonicalize_name(requirement.name))
    if wheel is None:
        return text
    return f"{wheel}[{','.join(sorted(requirement.extras))}]" if requirement.extras else str(wheel)


def _build_local(requirements: Iterable[str], folder: Path, note: Note, *, deep: bool = True) -> dict[str, Path]:
    """Build the wheels of all distributions in the requirements' closure that are installed here from a directory."""
    sources = dict(_local_sources(requirements, deep=deep))
    built: dict[str, Path] = {}
    for name, source in sorted(sources.items()):
        note(f"building {name} from {source}")
        target = folder / name
        # The environment that runs this has built them once: nothing is to be looked up.
        arguments = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(target), str(source)]
        _pip(arguments, note, offline=True)
        (wheel,) = target.glob("*.whl")
        built[name] = folder / wheel.name
        shutil.move(wheel, built[name])
    return built


def _local_sources(requirements: Iterable[str], *, deep: bool) -> Iterator[tuple[str, Path]]:
    queue = [Requirement(text) for text in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        source = _directory(distribution)
        if source is None:
            continue  # what an index brings requires nothing that lies in a directory here
        yield name, source
        for text in (distribution.requires or ()) if deep else ():
            needed = Requirement(text)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                queue.append(needed)


def _directory(distribution: metadata.Distribution) -> Path | None:
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if "dir_info" not in origin:
        return None
    path = Path(url2pathname(urlsplit(origin["url"]).path))
    return path if path.is_dir() else None


def _pip(arguments: Sequence[str], note: Note, *, offline: bool = False) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH), "PYTHONWARNINGS": "ignore"}
    if offline:
        command.append("--no-index")
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as process:
        if process.stdout is None:
            raise AssertionError("a pipe was asked for")
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith(("Collecting ", "Downloading ")):
                note(line.strip())
    if process.returncode:
        reasons = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-3:]
        raise BuildError(
            f"pip {arguments[0]}: {'; '.join(reasons[-3:]) or f'exit code {process.returncode}'}",
            remedy="look at the requirements in `comfy-cpu plan`; further indexes go into index_urls of the spec",
        )


def _describe(wheel: Path) -> LockedPackage:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.count("/") == 1 and n.endswith(".dist-info/METADATA"))
        fields = Parser().parsestr(archive.read(name).decode("utf-8", errors="replace"))
    return LockedPackage(
        name=canonicalize_name(str(fields["Name"])),
        version=str(fields["Version"]),
        file=wheel.name,
        sha256=sha256_file(wheel),
        licence=_licence(fields.get("License-Expression"), fields.get("License"), fields.get_all("Classifier") or ()),
    )


def _licence(expression: str | None, text: str | None, classifiers: Iterable[str]) -> str:
    """What a package's metadata say of its licence, in one line; empty if they say nothing."""
    if expression:
        return str(expression)
    named = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License :: ")]
    short = str(text or "").strip()
    if short and "\n" not in short and len(short) < 100:
        return short
    return ", ".join(named)
