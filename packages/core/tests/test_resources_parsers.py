"""The parsers of /proc and /sys, on whatever they may be given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_core.resources.cgroups import parse_cgroup_paths, parse_cpu_max, parse_mounts
from comfy_cpu_core.resources.cpu import ARM_SETS, X86_SETS, parse_cpuinfo
from comfy_cpu_core.resources.files import parse_cpu_list, parse_size

cpu_sets = st.frozensets(st.integers(0, 300), min_size=1)
anything = st.one_of(st.none(), st.text(), st.text("0123456789-, :/.max\n\\"))


def as_kernel_list(cpus: frozenset[int]) -> str:
    spans: list[list[int]] = []
    for cpu in sorted(cpus):
        if spans and spans[-1][1] == cpu - 1:
            spans[-1][1] = cpu
        else:
            spans.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


@given(cpu_sets)
def test_cpu_list_round_trip(cpus: frozenset[int]) -> None:
    assert parse_cpu_list(as_kernel_list(cpus)) == cpus


@pytest.mark.parametrize("text", ["", "a", "3-1", "0-", "-1", "1,,2", "0-999999", "1;2"])
def test_malformed_cpu_list(text: str) -> None:
    assert parse_cpu_list(text) is None


@given(anything)
def test_cpu_list_never_raises(text: str | None) -> None:
    cpus = parse_cpu_list(text)
    assert cpus is None or (cpus and min(cpus) >= 0)


@given(st.integers(1, 10**9), st.integers(1_000, 1_000_000))
def test_cpu_max(quota: int, period: int) -> None:
    assert parse_cpu_max(f"{quota} {period}") == quota / period
    assert parse_cpu_max(f"max {period}") is None
    assert parse_cpu_max(str(quota)) == quota / 100_000


@given(anything)
def test_cpu_max_is_positive_or_none(text: str | None) -> None:
    quota = parse_cpu_max(text)
    assert quota is None or quota > 0


@given(st.integers(-10, 2**63))
def test_size(number: int) -> None:
    assert parse_size(str(number)) == (number if number > 0 else None)


@given(anything)
def test_size_is_positive_or_none(text: str | None) -> None:
    size = parse_size(text)
    assert size is None or size > 0


@given(anything)
def test_mounts_and_paths_never_raise(text: str | None) -> None:
    assert all(path.startswith("/") for path in parse_cgroup_paths(text).values())
    assert all(mount.version in (1, 2) for mount in parse_mounts(text))


@given(st.text("abc/ \\\t\n", min_size=1))
def test_mount_point_with_escapes(name: str) -> None:
    escaped = "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in name)
    (mount,) = parse_mounts(f"31 24 0:27 / /{escaped} rw shared:1 master:2 - cgroup2 cgroup rw")
    assert mount.point == "/" + name


def test_a_colon_in_a_group_name() -> None:
    assert parse_cgroup_paths("0::/a:b") == {"": "/a:b"}
    assert parse_cgroup_paths("4:cpu,cpuacct:/x\n0::/y") == {"cpu": "/x", "cpuacct": "/x", "": "/y"}


def test_mounts_without_a_controller_of_interest_are_left_out() -> None:
    assert parse_mounts("36 31 0:33 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids") == []


@given(anything, st.frozensets(st.integers(0, 9)))
def test_cpuinfo_never_raises(text: str | None, allowed: frozenset[int]) -> None:
    assert parse_cpuinfo(text, allowed).instruction_sets <= X86_SETS | ARM_SETS
