"""What the CPUs are: model, instruction sets, and how many of them are hardware threads of one core."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from comfy_cpu_core.resources.files import parse_cpu_list, read_text

__all__ = ["ARM_SETS", "X86_SETS", "CpuInfo", "parse_cpuinfo", "read_host_cpus", "read_topology"]

#: The instruction sets that decide how fast a model runs, by the kernel's name for them, which we keep.
X86_SETS = frozenset(
    {"amx_bf16", "amx_int8", "avx2", "avx512_bf16", "avx512_vnni", "avx512f", "avx_vnni", "f16c", "fma"}
)
ARM_SETS = frozenset({"asimd", "bf16", "i8mm", "sve"})


@dataclass(frozen=True)
class CpuInfo:
    """What /proc/cpuinfo says of the allowed CPUs.

    Attributes:
        model: its name, or empty. Arm kernels give no name, only the numbers of implementer and part.
        instruction_sets: those of `X86_SETS` and `ARM_SETS` that every allowed CPU has.
        cores: per CPU number the (package, core) that it belongs to, where the file says so.
        count: how many CPUs the file lists.
    """

    model: str
    instruction_sets: frozenset[str]
    cores: dict[int, tuple[str, str]]
    count: int


def parse_cpuinfo(text: str | None, allowed: Set[int] | None = None) -> CpuInfo:
    """Read a /proc/cpuinfo of x86-64 or aarch64; what it does not say is empty.

    Args:
        text: the file.
        allowed: numbers of the CPUs that count (big and little cores differ); None or an empty set for all.
    """
    model, cores, count = "", {}, 0
    sets: frozenset[str] | None = None
    for block in (text or "").split("\n\n"):
        fields = {}
        for line in block.splitlines():
            key, colon, value = line.partition(":")
            if colon:
                fields[key.strip()] = value.strip()
        number = fields.get("processor", "")
        if not (number.isascii() and number.isdecimal() and len(number) <= 6):
            continue
        count += 1
        if allowed and int(number) not in allowed:
            continue
        model = model or fields.get("model name", "") or _arm_model(fields)
        if "core id" in fields:
            cores[int(number)] = (fields.get("physical id", "0"), fields["core id"])
        flags = frozenset(fields.get("flags", "").split()) & X86_SETS
        features = frozenset(fields.get("Features", "").split()) & ARM_SETS
        found = flags | features
        sets = found if sets is None else sets & found
    return CpuInfo(model, sets or frozenset(), cores, count)


def read_host_cpus(root: Path) -> int | None:
    """How many CPUs the host has online, or None if it does not say."""
    online = parse_cpu_list(read_text(root / "sys/devices/system/cpu/online"))
    return len(online) if online else None


def read_topology(root: Path, allowed: Set[int], info: CpuInfo) -> tuple[int, int]:
    """How the allowed CPUs share physical cores.

    Returns:
        (how many physical cores they lie on, how many hardware threads such a core has). A CPU of which nothing is
        known counts as a core of its own with one thread.
    """
    cores: set[object] = set()
    threads = 1
    for cpu in allowed:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        # The kernel renamed thread_siblings_list to core_cpus_list in 5.1 and keeps both.
        siblings = parse_cpu_list(
            read_text(topology / "core_cpus_list") or read_text(topology / "thread_siblings_list")
        )
        if siblings and cpu in siblings:
            cores.add(siblings)
            threads = max(threads, len(siblings))
        elif cpu in info.cores:
            core = info.cores[cpu]
            cores.add(core)
            threads = max(threads, sum(other == core for other in info.cores.values()))
        else:
            cores.add(cpu)
    return max(1, len(cores)), threads


def _arm_model(fields: dict[str, str]) -> str:
    implementer, part = fields.get("CPU implementer"), fields.get("CPU part")
    return f"Arm implementer {implementer}, part {part}" if implementer and part else ""
