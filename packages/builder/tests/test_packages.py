"""Python packages, resolved by the real pip out of a directory of small wheels: no index is asked."""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import InvalidRequirement

from comfy_cpu_builder.lock import LockedPackage
from comfy_cpu_builder.packages import WheelCache, default_cache, find_cuda, gather, resolve
from comfy_cpu_core.errors import BuildError

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PLATFORM = "linux/amd64"


def wheel(folder: Path, name: str, version: str, *fields: str, tag: str = "py3-none-any") -> Path:
    """A wheel with nothing in it but what it says of itself."""
    folder.mkdir(exist_ok=True)
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    files = {
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *fields])
        + "\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    rows = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text)}\n")
    made = folder / f"{name.replace('-', '_')}-{version}-{tag}.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(rows) + f"{info}/RECORD,,\n")
    return made


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of wheels, the only place where pip looks."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    folder = tmp_path / "index"
    wheel(folder, "pip", "99.0")
    wheel(folder, "small-thing", "1.0", "Requires-Dist: small-need>=1", "License-Expression: MIT")
    wheel(folder, "small-need", "1.5", "Classifier: License :: OSI Approved :: BSD License")
    wheel(folder, "small-need", "2.0", tag="cp39-cp39-win_amd64")
    return folder


def solve(
    index: Path, *requirements: str, installed: dict[str, str] | None = None, python: str = PYTHON
) -> tuple[tuple[LockedPackage, ...], LockedPackage]:
    return resolve(
        requirements,
        python=python,
        platform=PLATFORM,
        cache=WheelCache(index.parent / "cache"),
        installed=installed or {},
        find_links=[str(index)],
    )


def test_packages_are_found_with_what_they_need_and_kept(index: Path) -> None:
    packages, installer = solve(index, "small-thing>=1")
    assert [(p.name, p.version, p.licence) for p in packages] == [
        ("small-need", "1.5", "BSD License"),
        ("small-thing", "1.0", "MIT"),
    ]
    assert installer.file == "pip-99.0-py3-none-any.whl"
    cache = WheelCache(index.parent / "cache")
    for package in (*packages, installer):
        assert hashlib.sha256(cache.require(package).read_bytes()).hexdigest() == package.sha256


def test_what_the_base_has_keeps_its_version_and_is_no_wheel(index: Path) -> None:
    wheel(index, "small-need", "1.7")
    packages, _ = solve(index, "small-thing", installed={"small-need": "1.5"})
    assert [p.name for p in packages] == ["small-thing"]


def test_what_does_not_fit_together_is_pips_to_say(index: Path) -> None:
    with pytest.raises(BuildError, match="pip download: ") as caught:
        solve(index, "small-thing", "small-need<1")
    assert "small-need" in str(caught.value)
    assert "index_urls" in str(caught.value.remedy)


def test_a_wheel_for_another_platform_is_not_taken(index: Path) -> None:
    with pytest.raises(BuildError, match="small-need"):
        solve(index, "small-need==2.0")


def test_packages_that_bring_cuda_are_refused(index: Path) -> None:
    wheel(index, "nvidia-cublas-cu12", "12.4")
    wheel(index, "heavy", "1.0", "Requires-Dist: nvidia-cublas-cu12")
    with pytest.raises(BuildError, match="the Python packages bring CUDA: nvidia-cublas-cu12") as caught:
        solve(index, "heavy")
    assert "+cpu" in str(caught.value.remedy)


@pytest.mark.parametrize("requirement", ["--index-url=http://evil.example", "$(reboot)"])
def test_what_is_no_requirement_reaches_no_pip(requirement: str, index: Path) -> None:
    with pytest.raises(InvalidRequirement):
        solve(index, requirement)


def test_another_python_is_refused(index: Path) -> None:
    with pytest.raises(BuildError, match=r"the image has Python 3\.99, this is Python"):
        solve(index, "small-thing", python="3.99")


def fetch(index: Path, *packages: LockedPackage) -> None:
    gather(
        packages,
        python=PYTHON,
        platform=PLATFORM,
        cache=WheelCache(index.parent / "other"),
        find_links=[str(index)],
    )


def test_a_lock_is_fetched_by_its_hashes_and_once(index: Path) -> None:
    packages, installer = solve(index, "small-thing")
    fetch(index, *packages, installer)
    for path in index.iterdir():
        path.unlink()
    fetch(index, *packages, installer)
    assert all(WheelCache(index.parent / "other").require(package) for package in packages)


def test_a_wheel_with_another_hash_is_not_taken(index: Path) -> None:
    packages, _ = solve(index, "small-thing")
    wheel(index, "small-thing", "1.0", "Summary: another one")
    with pytest.raises(BuildError, match="pip download: "):
        fetch(index, *packages)
    assert WheelCache(index.parent / "other").find(packages[1]) is None


def test_a_wheel_that_was_damaged_is_thrown_away(index: Path) -> None:
    (package, _), _ = solve(index, "small-thing")
    cache = WheelCache(index.parent / "cache")
    cache.require(package).write_bytes(b"evil")
    with pytest.raises(BuildError, match="was damaged, and is thrown away"):
        cache.require(package)
    with pytest.raises(BuildError, match="is not in the cache"):
        cache.require(package)


def test_what_has_cuda_inside() -> None:
    names = ["numpy", "nvidia-cublas-cu12", "NVIDIA_nccl", "triton", "cuda-bindings", "openvino"]
    assert find_cuda(names) == ["NVIDIA_nccl", "cuda-bindings", "nvidia-cublas-cu12", "triton"]


def test_where_the_cache_is(tmp_path: Path) -> None:
    assert default_cache({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "comfy-cpu"
    assert default_cache({}) == Path.home() / ".cache" / "comfy-cpu"
