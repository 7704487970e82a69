"""Resources on recorded /proc and /sys trees: what containers of each kind show, and what follows from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from comfy_cpu_core.errors import InputError
from comfy_cpu_core.resources import (
    THREADS_VARIABLE,
    Resources,
    detect,
    get_resources,
    read_oom_kills,
    thread_environment,
)
from comfy_cpu_core.resources.detect import ProcessFacts, read_resources

GIB = 1 << 30
NO_LIMIT_V1 = "9223372036854771712"
V2_MOUNT = "31 24 0:27 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate"

Read = Callable[..., Resources]


def cpuinfo(count: int, flags: str = "fpu sse2 avx2 f16c fma", smt: int = 1) -> str:
    return "".join(
        f"processor\t: {n}\nvendor_id\t: GenuineIntel\nmodel name\t: Recorded CPU\nphysical id\t: 0\n"
        f"core id\t\t: {n // smt}\nflags\t\t: {flags}\npower management:\n\n"
        for n in range(count)
    )


def v1_mount(controllers: str, root: str = "/", place: str | None = None) -> str:
    return (
        f"40 30 0:35 {root} /sys/fs/cgroup/{place or controllers} ro,nosuid,nodev,noexec,relatime master:9 "
        f"- cgroup cgroup rw,{controllers}"
    )


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a tree of a host with that many CPUs and that much memory, add `files` to it, and read it."""

    def read(
        files: Mapping[str, str],
        *,
        host: int = 8,
        memory: int = 32 * GIB,
        affinity: frozenset[int] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Resources:
        write(
            tmp_path,
            {
                "proc/cpuinfo": cpuinfo(host),
                "proc/meminfo": f"MemTotal:       {memory // 1024} kB\nMemFree:  1024 kB\n"
                f"MemAvailable:   {memory // 2048} kB\nHugePages_Total:       0",
                "sys/devices/system/cpu/online": f"0-{host - 1}" if host > 1 else "0",
                **files,
            },
        )
        facts = ProcessFacts(affinity or frozenset(range(host)), host, "x86_64")
        return read_resources(tmp_path, facts, environ or {})

    return read


def test_docker_on_v2(read: Read) -> None:
    # docker run --cpus 2.5 --memory 4g, with the cgroup namespace that Docker makes on version 2
    found = read(
        {
            "proc/self/cgroup": "0::/",
            "proc/self/mountinfo": "28 24 0:25 / /sys ro - sysfs sysfs ro\n" + V2_MOUNT,
            "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids",
            "sys/fs/cgroup/cpu.max": "250000 100000",
            "sys/fs/cgroup/cpuset.cpus.effective": "0-7",
            "sys/fs/cgroup/memory.max": str(4 * GIB),
            "sys/fs/cgroup/memory.current": str(3 * GIB),
            "sys/fs/cgroup/memory.stat": f"anon {GIB}\nfile {2 * GIB}\ninactive_file {2 * GIB}\nactive_file 0",
        }
    )
    assert (found.cpus, found.cpu_quota, found.affinity, found.host_cpus) == (3, 2.5, 8, 8)
    assert (found.threads, found.threads_source) == (3, "quota")
    assert found.memory_limit_bytes == 4 * GIB
    assert found.memory_total_bytes == 32 * GIB
    # 3 GiB are charged, but 2 of them are page cache that the kernel gives back
    assert found.memory_available_bytes == 3 * GIB
    assert found.cgroup_version == 2
    assert found.cpu_model == "Recorded CPU"


def test_v2_limit_on_a_parent_slice(read: Read) -> None:
    # systemd: MemoryMax= and CPUQuota= on app.slice bind the scope below it; the scope's own memory.max is wider
    group = "sys/fs/cgroup/user.slice/user-1000.slice/app.slice"
    found = read(
        {
            "proc/self/cgroup": "0::/user.slice/user-1000.slice/app.slice/run-42.scope",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/user.slice/cpu.max": "600000 100000",
            f"{group}/cpu.max": "150000 50000",
            f"{group}/memory.max": str(2 * GIB),
            f"{group}/memory.current": str(2 * GIB - 4096),
            f"{group}/run-42.scope/cpu.max": "max 100000",
            f"{group}/run-42.scope/memory.max": str(8 * GIB),
            f"{group}/run-42.scope/memory.current": "4096",
        }
    )
    assert (found.cpus, found.cpu_quota) == (3, 3.0)
    assert found.memory_limit_bytes == 2 * GIB
    assert found.memory_available_bytes == 4096


@pytest.mark.parametrize("path", ["/../..", "/../../other.scope", "/system.slice/docker-abc.scope", "/"])
def test_v2_path_that_is_not_below_the_mount(read: Read, path: str) -> None:
    # /proc/self/cgroup may speak of another namespace: then the top of the mount is the closest thing to see
    found = read(
        {
            "proc/self/cgroup": f"0::{path}",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/cpu.max": "50000 100000",
            "sys/fs/cgroup/memory.max": str(GIB),
        }
    )
    assert (found.cpus, found.cpu_quota) == (1, 0.5)
    assert found.memory_limit_bytes == GIB


def test_dots_in_a_path_never_lead_out_of_the_mount(read: Read) -> None:
    found = read(
        {
            "proc/self/cgroup": "0::/../other",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/other/cpu.max": "100000 100000",
            "sys/fs/cpu.max": "200000 100000",
            "sys/fs/cgroup/cpu.max": "300000 100000",
        }
    )
    assert found.cpus == 3


def test_v2_mount_that_shows_only_a_part_of_the_tree(read: Read) -> None:
    # without a cgroup namespace the mount's root is the container's group as the host names it
    found = read(
        {
            "proc/self/cgroup": "0::/system.slice/docker-abc.scope/worker",
            "proc/self/mountinfo": V2_MOUNT.replace(" / ", " /system.slice/docker-abc.scope ", 1),
            "sys/fs/cgroup/cpu.max": "400000 100000",
            "sys/fs/cgroup/worker/cpu.max": "200000 100000",
        }
    )
    assert (found.cpus, found.cpu_quota) == (2, 2.0)


def test_v1_docker(read: Read) -> None:
    group = "/docker/0123abcd"
    found = read(
        {
            "proc/self/cgroup": f"11:memory:{group}\n4:cpu,cpuacct:{group}\n3:cpuset:{group}\n1:name=systemd:{group}",
            "proc/self/mountinfo": "\n".join(
                [
                    v1_mount("cpu,cpuacct", group),
                    v1_mount("memory", group),
                    v1_mount("cpuset", group),
                    v1_mount("xattr,name=systemd", group, "systemd"),
                ]
            ),
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "350000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(6 * GIB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(5 * GIB),
            "sys/fs/cgroup/memory/memory.stat": (
                f"inactive_file 1\nhierarchical_memory_limit {5 * GIB}\ntotal_inactive_file {GIB}"
            ),
            "sys/fs/cgroup/cpuset/cpuset.cpus": "0-7",
        }
    )
    assert (found.cpus, found.cpu_quota, found.threads_source) == (4, 3.5, "quota")
    # the host's tighter limit on a parent that the container cannot see
    assert found.memory_limit_bytes == 5 * GIB
    assert found.memory_available_bytes == GIB
    assert found.cgroup_version == 1


def test_v1_docker_in_the_hosts_namespace(read: Read) -> None:
    # docker run -v /sys/fs/cgroup:/sys/fs/cgroup: the whole tree, and a limit on the parent as well
    found = read(
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/burst/docker/abc",
            "proc/self/mountinfo": v1_mount("cpu,cpuacct"),
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu,cpuacct/burst/cpu.cfs_quota_us": "120000",
            "sys/fs/cgroup/cpu,cpuacct/burst/cpu.cfs_period_us": "60000",
            "sys/fs/cgroup/cpu,cpuacct/burst/docker/abc/cpu.cfs_quota_us": "500000",
            "sys/fs/cgroup/cpu,cpuacct/burst/docker/abc/cpu.cfs_period_us": "100000",
        }
    )
    assert (found.cpus, found.cpu_quota) == (2, 2.0)


def test_v1_without_limits(read: Read) -> None:
    found = read(
        {
            "proc/self/cgroup": "4:cpu:/\n5:memory:/",
            "proc/self/mountinfo": v1_mount("cpu") + "\n" + v1_mount("memory"),
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT_V1,
            "sys/fs/cgroup/memory/memory.stat": f"hierarchical_memory_limit {NO_LIMIT_V1}",
        }
    )
    assert (found.cpus, found.cpu_quota, found.threads_source) == (8, None, "host")
    assert found.memory_limit_bytes == 32 * GIB
    assert found.memory_available_bytes == 16 * GIB  # what /proc/meminfo says is available


def test_v1_no_limit_is_no_limit_where_the_physical_memory_is_unknown_too(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/",
            "proc/self/mountinfo": v1_mount("memory"),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT_V1,
        },
    )
    assert read_resources(tmp_path, ProcessFacts(None, 1, "x86_64"), {}).memory_limit_bytes is None


def test_hybrid(read: Read) -> None:
    # systemd's hybrid layout: memory in version 1, cpu moved to version 2
    found = read(
        {
            "proc/self/cgroup": "5:memory:/jobs\n1:name=systemd:/jobs\n0::/jobs",
            "proc/self/mountinfo": "\n".join(
                [
                    "31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755",
                    "41 31 0:38 / /sys/fs/cgroup/unified rw shared:8 - cgroup2 cgroup2 rw",
                    v1_mount("memory"),
                ]
            ),
            "sys/fs/cgroup/unified/jobs/cpu.max": "300000 100000",
            "sys/fs/cgroup/memory/jobs/memory.limit_in_bytes": str(3 * GIB),
        }
    )
    assert (found.cpus, found.memory_limit_bytes, found.cgroup_version) == (3, 3 * GIB, "hybrid")


def test_kubernetes_on_v2(read: Read) -> None:
    # limits: cpu 1500m, memory 3Gi; containerd gives the pod a cgroup namespace
    found = read(
        {
            "proc/self/cgroup": "0::/",
            "proc/self/mountinfo": "1577 1571 0:29 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime "
            "- cgroup2 cgroup rw",
            "sys/fs/cgroup/cpu.max": "150000 100000",
            "sys/fs/cgroup/memory.max": str(3 * GIB),
            "sys/fs/cgroup/cpuset.cpus.effective": "0-7",
        }
    )
    assert (found.cpus, found.memory_limit_bytes) == (2, 3 * GIB)


def test_kubernetes_on_v1(read: Read) -> None:
    # a pod without limits of its own in a burstable slice: the container sees only its own group
    group = "/kubepods/burstable/pod0a1b/c2d3"
    found = read(
        {
            "proc/self/cgroup": f"9:cpu,cpuacct:{group}\n8:memory:{group}\n7:cpuset:{group}",
            "proc/self/mountinfo": "\n".join(v1_mount(c, group) for c in ("cpu,cpuacct", "memory", "cpuset")),
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpuset/cpuset.cpus": "2-3",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT_V1,
        }
    )
    # the CPU manager's static policy pins the pod with a cpuset
    assert (found.cpus, found.affinity, found.threads_source) == (2, 2, "affinity")


def test_runpod_container_on_a_large_host(read: Read) -> None:
    found = read(
        {
            "proc/self/cgroup": "0::/",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/cpu.max": "400000 100000",
            "sys/fs/cgroup/memory.max": str(8 * GIB),
            "sys/fs/cgroup/cpuset.cpus.effective": "0-63",
            **{f"sys/devices/system/cpu/cpu{n}/topology/core_cpus_list": f"{n % 32},{n % 32 + 32}" for n in range(64)},
        },
        host=64,
        memory=512 * GIB,
    )
    assert (found.cpus, found.affinity, found.host_cpus, found.threads) == (4, 64, 64, 4)
    assert (found.physical_cores, found.threads_per_core) == (32, 2)
    assert found.memory_limit_bytes == 8 * GIB


def test_no_cgroups(read: Read) -> None:
    found = read({})
    assert (found.cpus, found.cpu_quota, found.cgroup_version) == (8, None, None)
    assert found.memory_limit_bytes == 32 * GIB
    assert found.memory_available_bytes == 16 * GIB


def test_hidden_mountinfo_falls_back_to_where_cgroups_usually_are(read: Read) -> None:
    found = read({"sys/fs/cgroup/cgroup.controllers": "cpu memory", "sys/fs/cgroup/cpu.max": "200000 100000"})
    assert (found.cpus, found.cgroup_version) == (2, 2)


def test_hidden_mountinfo_with_v1(read: Read) -> None:
    found = read({"proc/self/cgroup": "3:memory:/nowhere", "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 * GIB)})
    assert (found.memory_limit_bytes, found.cgroup_version) == (2 * GIB, 1)


def test_affinity_smaller_than_the_quota(read: Read) -> None:
    found = read(
        {"proc/self/mountinfo": V2_MOUNT, "sys/fs/cgroup/cpu.max": "400000 100000"}, affinity=frozenset({1, 5})
    )
    assert (found.cpus, found.affinity, found.threads_source) == (2, 2, "affinity")


def test_quota_smaller_than_the_affinity(read: Read) -> None:
    found = read(
        {"proc/self/mountinfo": V2_MOUNT, "sys/fs/cgroup/cpu.max": "200000 100000"}, affinity=frozenset({0, 1, 2, 3})
    )
    assert (found.cpus, found.affinity, found.threads_source) == (2, 4, "quota")


def test_cpuset_of_other_cpus_is_not_ours(read: Read) -> None:
    found = read(
        {"proc/self/mountinfo": V2_MOUNT, "sys/fs/cgroup/cpuset.cpus.effective": "4-7"}, affinity=frozenset({0, 1})
    )
    assert found.cpus == 2


def test_the_mount_that_shows_our_group_wins(read: Read) -> None:
    # a monitoring container has the host's tree mounted as well, of which /proc/self/cgroup says nothing
    found = read(
        {
            "proc/self/cgroup": "0::/ours",
            "proc/self/mountinfo": "50 1 0:26 /../../.. /host/sys/fs/cgroup rw - cgroup2 cgroup2 rw\n" + V2_MOUNT,
            "host/sys/fs/cgroup/cpu.max": "800000 100000",
            "sys/fs/cgroup/ours/cpu.max": "100000 100000",
        }
    )
    assert found.cpus == 1


def test_mount_point_with_a_space(read: Read) -> None:
    found = read(
        {
            "proc/self/mountinfo": V2_MOUNT.replace("/sys/fs/cgroup", r"/my\040cgroup"),
            "my cgroup/cpu.max": "100000 100000",
        }
    )
    assert found.cpus == 1


@pytest.mark.parametrize("content", ["", "nonsense", "max", "-1", "0 0", "100000 0", "1 2 3", "1e9 100000", "²", "\0"])
def test_malformed_contents_are_no_limit(read: Read, content: str) -> None:
    found = read(
        {
            "proc/self/cgroup": "0::/\n4:cpu:/\n5:memory:/\n" + content,
            "proc/self/mountinfo": "\n".join([V2_MOUNT, v1_mount("cpu"), v1_mount("memory"), content]),
            "sys/fs/cgroup/cpu.max": content,
            "sys/fs/cgroup/cpuset.cpus.effective": content,
            "sys/fs/cgroup/memory.max": content,
            "sys/fs/cgroup/memory.stat": content,
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": content,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": content,
            "sys/devices/system/cpu/cpu0/topology/core_cpus_list": content,
        }
    )
    assert (found.cpus, found.cpu_quota, found.physical_cores) == (8, None, 8)
    assert found.memory_limit_bytes == 32 * GIB


def test_a_malformed_proc_falls_back_to_system_calls(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": "\0\n\n:::", "proc/meminfo": "MemTotal: lots"})
    facts = ProcessFacts(None, 6, "arm64", memory_total_bytes=4 * GIB, memory_available_bytes=GIB)
    found = read_resources(tmp_path, facts, {})
    assert (found.cpus, found.host_cpus, found.arch, found.cpu_model) == (6, 6, "aarch64", "")
    assert (found.memory_total_bytes, found.memory_limit_bytes, found.memory_available_bytes) == (
        4 * GIB,
        4 * GIB,
        GIB,
    )
    assert found.instruction_sets == frozenset()


def test_a_directory_where_a_file_should_be(read: Read, tmp_path: Path) -> None:
    (tmp_path / "sys/fs/cgroup/cpu.max").mkdir(parents=True)
    assert read({"proc/self/mountinfo": V2_MOUNT}).cpus == 8


def test_nothing_at_all(tmp_path: Path) -> None:
    found = read_resources(tmp_path, ProcessFacts(None, 1, "riscv64"), {})
    assert (found.cpus, found.threads, found.physical_cores) == (1, 1, 1)
    assert found.memory_total_bytes is found.memory_limit_bytes is found.memory_available_bytes is None
    assert found.arch == "riscv64"


def test_smt_from_cpuinfo_where_sys_says_nothing(read: Read) -> None:
    found = read({"proc/cpuinfo": cpuinfo(8, smt=2)}, affinity=frozenset({0, 1, 2}))
    # CPUs 0 and 1 share a core; only the allowed CPUs are looked at
    assert (found.physical_cores, found.threads_per_core) == (2, 2)


@pytest.mark.parametrize(
    ("flags", "has_bf16"),
    [
        ("avx2 avx512f avx512_vnni avx512_bf16", True),
        ("avx2 amx_bf16 amx_tile", True),
        ("avx2 avx512f avx512_vnni", False),
        ("avx2 avx_vnni", False),
    ],
)
def test_instruction_sets_of_x86(read: Read, flags: str, has_bf16: bool) -> None:
    found = read({"proc/cpuinfo": cpuinfo(8, "fpu sse2 " + flags)})
    assert found.instruction_sets == frozenset(flags.split()) - {"amx_tile"}
    assert found.has_bf16 is has_bf16


def test_instruction_sets_of_arm_are_those_of_every_allowed_core(read: Read) -> None:
    little = "processor\t: 0\nFeatures\t: fp asimd i8mm\nCPU implementer\t: 0x41\nCPU part\t: 0xd05\n\n"
    big = "processor\t: {}\nFeatures\t: fp asimd i8mm bf16 sve\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n\n"
    files = {"proc/cpuinfo": little + big.format(1) + big.format(2)}
    everywhere = read(files, host=3)
    assert everywhere.instruction_sets == {"asimd", "i8mm"}
    assert not everywhere.has_bf16
    on_big = read(files, host=3, affinity=frozenset({1, 2}))
    assert on_big.instruction_sets == {"asimd", "i8mm", "bf16", "sve"}
    assert on_big.has_bf16
    assert on_big.cpu_model == "Arm implementer 0x41, part 0xd40"


def test_threads_override(read: Read) -> None:
    found = read({}, environ={THREADS_VARIABLE: " 3 "})
    assert (found.cpus, found.threads, found.threads_source) == (8, 3, "COMFY_CPU_THREADS")
    assert read({}, environ={THREADS_VARIABLE: ""}).threads == 8


@pytest.mark.parametrize("value", ["0", "-2", "two", "1.5", "1025", "9" * 5000, "٣", "2\n3"])
def test_bad_threads_override(read: Read, value: str) -> None:
    with pytest.raises(InputError, match=THREADS_VARIABLE) as caught:
        read({}, environ={THREADS_VARIABLE: value})
    assert "from 1 to 1024" in (caught.value.remedy or "")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_thread_environment(read: Read) -> None:
    environment = thread_environment(read({}, environ={THREADS_VARIABLE: "5"}))
    assert {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"} <= environment.keys()
    assert set(environment.values()) == {"5"}


def test_get_resources_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    get_resources.cache_clear()
    monkeypatch.setenv(THREADS_VARIABLE, "2")
    try:
        assert get_resources().threads == 2
        monkeypatch.setenv(THREADS_VARIABLE, "3")
        assert get_resources().threads == 2
        assert detect().threads == 3
    finally:
        get_resources.cache_clear()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_a_process_pinned_to_one_cpu_has_one() -> None:
    code = (
        "import json, os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from comfy_cpu_core.resources import detect\n"
        "found = detect({}); print(json.dumps([found.cpus, found.affinity, found.threads, found.physical_cores]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [1, 1, 1, 1]


def test_this_machine_makes_sense() -> None:
    found = detect({})
    assert 1 <= found.cpus <= found.affinity <= found.host_cpus
    assert found.threads == found.cpus
    assert found.memory_limit_bytes is not None
    assert found.memory_total_bytes is not None
    assert 0 < found.memory_limit_bytes <= found.memory_total_bytes


def test_processes_that_the_kernel_killed_for_memory_on_v2(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/worker",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/pod/memory.events": "low 0\noom 9\noom_kill 9",
            "sys/fs/cgroup/pod/worker/memory.events": "low 0\nhigh 0\nmax 31\noom 2\noom_kill 2\noom_group_kill 0",
        },
    )
    assert read_oom_kills(tmp_path) == 2


def test_processes_that_the_kernel_killed_for_memory_on_v1(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/1",
            "proc/self/mountinfo": v1_mount("memory", "/docker/1"),
            "sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0",
        },
    )
    assert read_oom_kills(tmp_path) == 0


def test_a_kernel_that_counts_no_kills(tmp_path: Path) -> None:
    assert read_oom_kills(tmp_path) is None
    write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/",
            "proc/self/mountinfo": v1_mount("memory"),
            "sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0",
        },
    )
    assert read_oom_kills(tmp_path) is None
