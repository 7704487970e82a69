from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from comfy_cpu_builder.context import write_context
from comfy_cpu_builder.lock import Lock, LockedPackage
from comfy_cpu_builder.packages import WheelCache
from comfy_cpu_builder.plan import Plan
from comfy_cpu_builder.render import render
from comfy_cpu_builder.sources import SourceCache
from comfy_cpu_core.errors import BuildError, ModelCorrupt, ModelMissing
from comfy_cpu_core.tree import ModelTree


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def real_lock(lock: Lock, tmp_path: Path) -> Lock:
    """The lock with hashes of files that are there: wheels in a cache, a model in a tree."""
    wheels = tmp_path / "cache" / "wheels"
    packages = []
    for package in (*lock.packages, lock.installer):
        data = package.name.encode()
        packages.append(LockedPackage(package.name, package.version, package.file, sha256(data)))
        (wheels / sha256(data)).mkdir(parents=True)
        (wheels / sha256(data) / package.file).write_bytes(data)
    (tmp_path / "models" / "small_onnx").mkdir(parents=True)
    (tmp_path / "models" / "small_onnx" / "model.onnx").write_bytes(b"onnx")
    (model,) = lock.models
    (file,) = model.files
    model = replace(model, files=(replace(file, sha256=sha256(b"onnx")),))
    return replace(lock, packages=tuple(packages[:-1]), installer=packages[-1], models=(model,))


def write(plan: Plan, lock: Lock, tmp_path: Path, name: str = "context") -> Path:
    cache = tmp_path / "cache"
    return write_context(
        render(plan, lock),
        tmp_path / name,
        tree=ModelTree(tmp_path / "models"),
        wheels=WheelCache(cache),
        sources=SourceCache(cache),
    )


def snapshot(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Mode, time and content of everything."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        content = sha256(path.read_bytes()) if path.is_file() else ""
        found[path.relative_to(folder).as_posix()] = (status.st_mode, status.st_mtime_ns, content)
    return found


def test_the_same_lock_gives_the_same_bytes(plan: Plan, real_lock: Lock, tmp_path: Path) -> None:
    first = snapshot(write(plan, real_lock, tmp_path, "first"))
    os.utime(tmp_path / "models" / "small_onnx" / "model.onnx", (1, 1))
    mask = os.umask(0o077)
    try:
        second = snapshot(write(plan, real_lock, tmp_path, "second"))
    finally:
        os.umask(mask)
    assert first == second
    assert first["image/start.sh"][0] & 0o777 == 0o755
    assert first["Dockerfile"][0] & 0o777 == 0o644


def test_a_model_is_one_archive_with_fixed_times(plan: Plan, real_lock: Lock, tmp_path: Path) -> None:
    context = write(plan, real_lock, tmp_path)
    with tarfile.open(context / "models" / "small-model.tar") as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == [
        "opt",
        "opt/comfy-cpu",
        "opt/comfy-cpu/models",
        "opt/comfy-cpu/models/small_onnx",
        "opt/comfy-cpu/models/small_onnx/model.onnx",
    ]
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(1577836800, 0, 0, "")}


def test_a_context_is_replaced_as_a_whole(plan: Plan, real_lock: Lock, tmp_path: Path) -> None:
    context = write(plan, real_lock, tmp_path)
    (context / "stale").touch()
    write(plan, real_lock, tmp_path)
    assert not (context / "stale").exists()
    assert [path.name for path in tmp_path.iterdir() if "context" in path.name] == ["context"]


def test_what_a_killed_process_left_is_swept(plan: Plan, real_lock: Lock, tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    names = [
        f".context.{ended.pid}.part",
        f".context.{ended.pid}.old",
        f".context.{os.getppid()}.part",
        ".context.x.part",
    ]
    for name in names:
        (tmp_path / name / "models").mkdir(parents=True)
    write(plan, real_lock, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if "context" in path.name) == sorted([*names[2:], "context"])


def test_a_directory_with_something_else_is_left_alone(plan: Plan, real_lock: Lock, tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "thesis.txt").write_text("years of work")
    with pytest.raises(BuildError, match="holds something else"):
        write(plan, real_lock, tmp_path)
    assert (tmp_path / "context" / "thesis.txt").exists()


def test_a_model_that_changed_is_not_taken(plan: Plan, real_lock: Lock, tmp_path: Path) -> None:
    context = write(plan, real_lock, tmp_path)
    before = snapshot(context)
    (tmp_path / "models" / "small_onnx" / "model.onnx").write_bytes(b"evil")
    with pytest.raises(ModelCorrupt, match="is not what the lock says"):
        write(plan, real_lock, tmp_path)
    (tmp_path / "models" / "small_onnx" / "model.onnx").unlink()
    with pytest.raises(ModelMissing, match=r"small_onnx/model\.onnx"):
        write(plan, real_lock, tmp_path)
    assert snapshot(context) == before
    assert [path.name for path in tmp_path.iterdir() if "context" in path.name] == ["context"]


def test_a_wheel_that_changed_is_not_taken(plan: Plan, real_lock: Lock, tmp_path: Path) -> None:
    package = real_lock.packages[0]
    wheel = tmp_path / "cache" / "wheels" / package.sha256 / package.file
    wheel.write_bytes(b"evil")
    with pytest.raises(BuildError, match="was damaged"):
        write(plan, real_lock, tmp_path)
    assert not wheel.exists()
    with pytest.raises(BuildError, match="is not in the cache"):
        write(plan, real_lock, tmp_path)
