"""The limits that cgroups put on this process: versions 1 and 2, and both at once (hybrid).

A limit on any ancestor binds as much as one on the process's own group, so every level from the process's group up to
the root of the mount is read, and the tightest value counts. Ancestors above the mount (a container sees only its own
part of the tree) cannot be read; what they allow is unknown, except for memory in version 1, which tells.

Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/, proc(5) for mountinfo, cgroups(7).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

from comfy_cpu_core.resources.files import parse_cpu_list, parse_size, read_text

__all__ = [
    "CgroupLimits",
    "CgroupVersion",
    "Mount",
    "parse_cgroup_paths",
    "parse_cpu_max",
    "parse_mounts",
    "read_cgroup_limits",
    "read_oom_kills",
]

CgroupVersion = Literal[1, 2, "hybrid"]

#: The controllers that are read here. A version 1 mount without any of them (``name=systemd``) says nothing.
_CONTROLLERS = frozenset({"cpu", "cpuset", "memory"})

#: The name under which version 2 stands among the controllers; /proc/self/cgroup writes it ``0::``.
_UNIFIED = ""

#: Version 1 writes "no limit" as the highest multiple of the page size that fits (9223372036854771712 for 4 KiB).
_UNLIMITED = 1 << 60

_Number = TypeVar("_Number", int, float)

_DEFAULT_PERIOD = 100_000  # microseconds, the kernel's default of cpu.max and cpu.cfs_period_us
_NUMBER = re.compile(r"[0-9]{1,20}")
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """A mounted cgroup hierarchy.

    Attributes:
        root: the group that the mount shows as its top; not ``/`` in a container without a cgroup namespace.
        point: where it is mounted.
        controllers: of version 1; empty for version 2.
    """

    root: str
    point: str
    version: Literal[1, 2]
    controllers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class CgroupLimits:
    """What the cgroups allow; None where they set no limit.

    Attributes:
        version: which kind is mounted, None where there is none.
        cpu_quota: CPUs' worth of time, may be a fraction.
        cpuset: the CPUs by number.
        memory_bytes: the tightest memory limit.
        memory_headroom_bytes: what can still be taken before the first limit is hit; page cache that the kernel
            gives back by itself does not count as taken.
    """

    version: CgroupVersion | None = None
    cpu_quota: float | None = None
    cpuset: frozenset[int] | None = None
    memory_bytes: int | None = None
    memory_headroom_bytes: int | None = None


def parse_mounts(mountinfo: str | None) -> list[Mount]:
    """The cgroup mounts in a /proc/self/mountinfo; lines that do not parse are left out."""
    mounts: list[Mount] = []
    for line in (mountinfo or "").splitlines():
        before, separator, after = line.partition(" - ")
        fields, tail = before.split(" "), after.split(" ")
        if not separator or len(fields) < 6 or len(tail) < 3:
            continue
        root, point = _unescape(fields[3]), _unescape(fields[4])
        if tail[0] == "cgroup2":
            mounts.append(Mount(root, point, 2))
        elif tail[0] == "cgroup" and (controllers := _CONTROLLERS.intersection(tail[2].split(","))):
            mounts.append(Mount(root, point, 1, controllers))
    return mounts


def parse_cgroup_paths(text: str | None) -> dict[str, str]:
    """A /proc/self/cgroup as controller → the process's group; version 2 stands under the empty name."""
    paths: dict[str, str] = {}
    for line in (text or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[2].startswith("/"):
            paths.update((name, parts[2]) for name in parts[1].split(","))
    return paths


def parse_cpu_max(text: str | None) -> float | None:
    """A version 2 ``cpu.max`` (``QUOTA PERIOD`` in microseconds, or ``max PERIOD``) as CPUs; None if unlimited."""
    fields = (text or "").split()
    if not 1 <= len(fields) <= 2:
        return None
    quota = parse_size(fields[0])
    period = parse_size(fields[1]) if len(fields) == 2 else _DEFAULT_PERIOD
    return quota / period if quota and period else None


def read_cgroup_limits(root: Path) -> CgroupLimits:
    """Read the limits of the process whose /proc/self and /sys lie below `root`. Never raises."""
    proc = root / "proc" / "self"
    mounts = parse_mounts(read_text(proc / "mountinfo")) or _conventional_mounts(root)
    paths = parse_cgroup_paths(read_text(proc / "cgroup"))
    quotas: list[float | None] = []
    cpusets: list[frozenset[int] | None] = []
    limits: list[int | None] = []
    headrooms: list[int | None] = []

    for level in _levels(root, mounts, paths, _UNIFIED):
        quotas.append(parse_cpu_max(read_text(level / "cpu.max")))
        cpusets.append(parse_cpu_list(read_text(level / "cpuset.cpus.effective")))
        limit = parse_size(read_text(level / "memory.max"))
        limits.append(limit)
        headrooms.append(_headroom(level, limit, "memory.current", "inactive_file"))
    for level in _levels(root, mounts, paths, "cpu"):
        quota = parse_size(read_text(level / "cpu.cfs_quota_us"))
        period = parse_size(read_text(level / "cpu.cfs_period_us")) or _DEFAULT_PERIOD
        quotas.append(quota / period if quota else None)
    for level in _levels(root, mounts, paths, "cpuset"):
        effective = parse_cpu_list(read_text(level / "cpuset.effective_cpus"))
        cpusets.append(effective or parse_cpu_list(read_text(level / "cpuset.cpus")))
    for level in _levels(root, mounts, paths, "memory"):
        own = parse_size(read_text(level / "memory.limit_in_bytes"))
        inherited = _numbers(level / "memory.stat").get("hierarchical_memory_limit")
        limit = _least(value for value in (own, inherited) if value and value < _UNLIMITED)
        limits.append(limit)
        headrooms.append(_headroom(level, limit, "memory.usage_in_bytes", "total_inactive_file"))

    return CgroupLimits(
        version=_version(mounts),
        cpu_quota=_least(quotas),
        cpuset=_intersection(cpusets),
        memory_bytes=_least(limits),
        memory_headroom_bytes=_least(headrooms),
    )


def read_oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes of this process's group the kernel has killed so far because memory ran out.

    None where the kernel does not say: no memory cgroup, or a version 1 before Linux 4.13. Never raises.
    """
    proc = root / "proc" / "self"
    mounts = parse_mounts(read_text(proc / "mountinfo")) or _conventional_mounts(root)
    paths = parse_cgroup_paths(read_text(proc / "cgroup"))
    counts = [
        _numbers(level / file).get("oom_kill")
        for controller, file in ((_UNIFIED, "memory.events"), ("memory", "memory.oom_control"))
        for level in itertools.islice(_levels(root, mounts, paths, controller), 1)
    ]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _levels(root: Path, mounts: Iterable[Mount], paths: dict[str, str], controller: str) -> Iterator[Path]:
    """The directories of the process's group in one hierarchy and of its visible ancestors, innermost first."""
    candidates = [
        m for m in mounts if (controller in m.controllers if controller != _UNIFIED else m.version == 2)
    ]  # more than one where a hierarchy is mounted twice: take the one that shows our group
    located = [(mount, _inside(mount, paths.get(controller, "/"))) for mount in candidates]
    for mount, inside in located:
        if inside is not None and _below(root, mount.point).joinpath(*inside.parts).is_dir():
            break
    else:
        # The path is of another namespace (`/../..`, or the host's): the top of the mount is the closest we can see.
        if not candidates:
            return
        mount, inside = candidates[0], PurePosixPath()
    top = _below(root, mount.point)
    for depth in range(len(inside.parts), -1, -1):
        yield top.joinpath(*inside.parts[:depth])


def _inside(mount: Mount, path: str) -> PurePosixPath | None:
    """Where a group lies below a mount, or None if it does not."""
    group, top = PurePosixPath(path), PurePosixPath(mount.root)
    if ".." in group.parts or not group.is_relative_to(top):
        return None
    return group.relative_to(top)


def _below(root: Path, absolute: str) -> Path:
    return root / absolute.lstrip("/")


def _conventional_mounts(root: Path) -> list[Mount]:
    """Where distributions mount cgroups, for a sandbox that hides mountinfo."""
    base = root / "sys" / "fs" / "cgroup"
    if (base / "cgroup.controllers").is_file():
        return [Mount("/", "/sys/fs/cgroup", 2)]
    return [
        Mount("/", f"/sys/fs/cgroup/{name}", 1, frozenset({name}))
        for name in sorted(_CONTROLLERS)
        if (base / name).is_dir()
    ]


def _headroom(level: Path, limit: int | None, usage_file: str, cache_key: str) -> int | None:
    if limit is None:
        return None
    used = parse_size(read_text(level / usage_file)) or 0
    return max(0, limit - max(0, used - _numbers(level / "memory.stat").get(cache_key, 0)))


def _numbers(file: Path) -> dict[str, int]:
    """A file of lines ``key number``."""
    values: dict[str, int] = {}
    for line in (read_text(file) or "").splitlines():
        key, _, text = line.partition(" ")
        if _NUMBER.fullmatch(text):
            values[key] = int(text)
    return values


def _version(mounts: Iterable[Mount]) -> CgroupVersion | None:
    versions = {mount.version for mount in mounts}
    if len(versions) == 2:
        return "hybrid"
    return next(iter(versions), None)


def _least(values: Iterable[_Number | None]) -> _Number | None:
    return min((value for value in values if value is not None), default=None)


def _intersection(sets: Iterable[frozenset[int] | None]) -> frozenset[int] | None:
    known = [cpus for cpus in sets if cpus is not None]
    return frozenset.intersection(*known) if known else None


def _unescape(field: str) -> str:
    """mountinfo writes space, tab, newline and backslash as three octal digits."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)
