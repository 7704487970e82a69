"""`Resources`, and how they follow from /proc, /sys, the affinity mask and the environment."""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from comfy_cpu_core.errors import InputError
from comfy_cpu_core.resources.cgroups import CgroupLimits, CgroupVersion, read_cgroup_limits
from comfy_cpu_core.resources.cpu import parse_cpuinfo, read_host_cpus, read_topology
from comfy_cpu_core.resources.files import read_text

__all__ = [
    "THREADS_VARIABLE",
    "ProcessFacts",
    "Resources",
    "detect",
    "get_resources",
    "parse_threads",
    "process_facts",
    "read_resources",
    "thread_environment",
]

#: The environment variable that sets the number of threads by hand.
THREADS_VARIABLE = "COMFY_CPU_THREADS"

#: More threads than any CPU machine of today has; a higher number is a mistake.
_MOST_THREADS = 1024

#: What the thread pools of the libraries read: OpenMP (torch, llama.cpp, onnxruntime), the BLAS libraries, numexpr, and
#: the tokenizers' rayon.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)

_MACHINES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
_BF16_SETS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})

ThreadsSource = Literal["COMFY_CPU_THREADS", "quota", "affinity", "host"]


@dataclass(frozen=True)
class Resources:
    """What this process may use.

    Attributes:
        cpus: min(affinity, cgroup quota rounded up), at least 1.
        cpu_quota: CPUs' worth of time that the cgroups allow, may be a fraction; None if unlimited.
        affinity: how many CPUs the scheduler may put the process on (``taskset``, cpusets).
        host_cpus: how many CPUs the host has.
        physical_cores: on how many physical cores the CPUs of the affinity lie.
        threads_per_core: hardware threads of such a core: 2 with SMT.
        memory_total_bytes: physical memory; None if the system does not say.
        memory_limit_bytes: the tightest cgroup limit, at most the physical memory; None if the system does not say.
        memory_available_bytes: what can be taken now without swapping or hitting a limit; None likewise.
        instruction_sets: those that decide how fast a model runs, in the kernel's spelling.
        arch: ``x86_64``, ``aarch64``, or what the system calls itself.
        cpu_model: its name, may be empty.
        cgroup_version: 1, 2, ``hybrid``, or None where there are no cgroups.
        threads: how many threads a runtime should use: `cpus` unless ``COMFY_CPU_THREADS`` says otherwise.
        threads_source: what decided that: the variable, the ``quota``, the ``affinity``, or the whole ``host``.
    """

    cpus: int
    cpu_quota: float | None
    affinity: int
    host_cpus: int
    physical_cores: int
    threads_per_core: int
    memory_total_bytes: int | None
    memory_limit_bytes: int | None
    memory_available_bytes: int | None
    instruction_sets: frozenset[str]
    arch: str
    cpu_model: str
    cgroup_version: CgroupVersion | None
    threads: int
    threads_source: ThreadsSource

    @property
    def has_bf16(self) -> bool:
        """Whether the CPU multiplies bfloat16 matrices in hardware."""
        return not _BF16_SETS.isdisjoint(self.instruction_sets)


@dataclass(frozen=True)
class ProcessFacts:
    """What system calls say, rather than files.

    Attributes:
        affinity: numbers of the CPUs in the affinity mask; None where the system has no such thing.
        cpu_count: CPUs of the host.
        machine: the architecture, as ``uname -m`` writes it.
        memory_total_bytes, memory_available_bytes: from sysconf; None where it does not know.
    """

    affinity: frozenset[int] | None
    cpu_count: int
    machine: str
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None


def read_resources(root: Path, facts: ProcessFacts, environ: Mapping[str, str]) -> Resources:
    """Work out the resources from the /proc and /sys below `root`.

    Args:
        root: ``/``, or a directory with a recorded tree.
        facts: what system calls say.
        environ: read for ``COMFY_CPU_THREADS``.

    Raises:
        InputError: ``COMFY_CPU_THREADS`` is not a number of threads. A missing or malformed file never raises.
    """
    cgroup = read_cgroup_limits(root)
    host_cpus = read_host_cpus(root) or facts.cpu_count
    allowed = _allowed_cpus(facts, cgroup, host_cpus)
    cpus = min(len(allowed), math.ceil(cgroup.cpu_quota)) if cgroup.cpu_quota else len(allowed)
    info = parse_cpuinfo(read_text(root / "proc/cpuinfo"), allowed)
    physical_cores, threads_per_core = read_topology(root, allowed, info)

    memory = _parse_meminfo(read_text(root / "proc/meminfo"))
    total = memory.get("MemTotal", facts.memory_total_bytes)
    available = memory.get("MemAvailable", memory.get("MemFree", facts.memory_available_bytes))
    limit = _least(total, cgroup.memory_bytes)

    override = parse_threads(environ.get(THREADS_VARIABLE))
    source: ThreadsSource = "host"
    if override is not None:
        source = "COMFY_CPU_THREADS"
    elif cpus < len(allowed):
        source = "quota"
    elif len(allowed) < host_cpus:
        source = "affinity"
    return Resources(
        cpus=cpus,
        cpu_quota=cgroup.cpu_quota,
        affinity=len(allowed),
        host_cpus=max(host_cpus, len(allowed)),
        physical_cores=physical_cores,
        threads_per_core=threads_per_core,
        memory_total_bytes=total,
        memory_limit_bytes=limit,
        memory_available_bytes=_least(available, cgroup.memory_headroom_bytes, limit),
        instruction_sets=info.instruction_sets,
        arch=_MACHINES.get(facts.machine.lower(), facts.machine),
        cpu_model=info.model,
        cgroup_version=cgroup.version,
        threads=override or cpus,
        threads_source=source,
    )


def process_facts() -> ProcessFacts:
    """Ask the system, now."""
    affinity: frozenset[int] | None = None
    if hasattr(os, "sched_getaffinity"):  # Linux; macOS and Windows have no such call
        try:
            affinity = frozenset(os.sched_getaffinity(0))
        except OSError:
            affinity = None
    page = _sysconf("SC_PAGE_SIZE")
    total, free = _sysconf("SC_PHYS_PAGES"), _sysconf("SC_AVPHYS_PAGES")
    return ProcessFacts(
        affinity=affinity,
        cpu_count=os.cpu_count() or 1,
        machine=platform.machine(),
        memory_total_bytes=total * page if total and page else None,
        memory_available_bytes=free * page if free and page else None,
    )


def detect(environ: Mapping[str, str] = os.environ) -> Resources:
    """What this process may use, read now.

    Raises:
        InputError: ``COMFY_CPU_THREADS`` is not a number of threads.
    """
    return read_resources(Path("/"), process_facts(), environ)


@lru_cache(maxsize=1)
def get_resources() -> Resources:
    """What this process may use, read at the first call.

    Raises:
        InputError: ``COMFY_CPU_THREADS`` is not a number of threads.
    """
    return detect()


def parse_threads(text: str | None) -> int | None:
    """The value of ``COMFY_CPU_THREADS``; None if it is unset or empty.

    Raises:
        InputError: it is not a whole number from 1 to 1024.
    """
    if text is None or not text.strip():
        return None
    number = int(text) if re.fullmatch(r"\s*[0-9]{1,6}\s*", text) else 0
    if not 1 <= number <= _MOST_THREADS:
        raise InputError(
            f"{THREADS_VARIABLE} is {text!r}, which is not a number of threads",
            remedy=f"set it to a whole number from 1 to {_MOST_THREADS}, or unset it to use every CPU that is allowed",
        )
    return number


def thread_environment(resources: Resources) -> dict[str, str]:
    """The environment that makes the libraries' thread pools as large as they should be.

    They read it when they are loaded: set it before a child process starts.
    """
    return dict.fromkeys(_THREAD_VARIABLES, str(resources.threads))


def _allowed_cpus(facts: ProcessFacts, cgroup: CgroupLimits, host_cpus: int) -> frozenset[int]:
    """The CPUs that the scheduler may use: the affinity mask, which a cpuset narrows where the mask does not show it."""
    allowed = facts.affinity or frozenset(range(host_cpus))
    if cgroup.cpuset and (both := allowed & cgroup.cpuset):
        return both
    return allowed  # a cpuset without any of our CPUs is not ours


def _parse_meminfo(text: str | None) -> dict[str, int]:
    """A /proc/meminfo as name → bytes."""
    values: dict[str, int] = {}
    for line in (text or "").splitlines():
        if match := re.fullmatch(r"(\w+):\s+([0-9]{1,15}) kB", line.strip()):
            values[match[1]] = int(match[2]) * 1024
    return values


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _sysconf(name: str) -> int | None:
    try:
        value = os.sysconf(name)
    except (AttributeError, OSError, ValueError):
        return None
    return value if value > 0 else None
