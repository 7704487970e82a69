"""Checks of the machine: CPUs, memory, instruction sets, threads."""

from __future__ import annotations

from comfy_cpu_core.doctor.check import Check, format_bytes
from comfy_cpu_core.resources import THREADS_VARIABLE, Resources

__all__ = ["check_cpus", "check_instruction_sets", "check_memory", "check_threads"]

#: The shipped background-removal workflow peaked at about 1.7 GB in bf16 and 2.3 GB in float32; rounded up.
_ENOUGH_MEMORY = 3 << 30


def check_cpus(resources: Resources) -> Check:
    """How many CPUs there are for us, and what makes it so."""
    reasons = []
    if resources.cpu_quota is not None:
        reasons.append(f"cgroup quota of {resources.cpu_quota:g}")
    if resources.affinity < resources.host_cpus:
        reasons.append(f"affinity to {resources.affinity}")
    why = f" ({', '.join(reasons)})" if reasons else ""
    cores = ""
    if resources.threads_per_core > 1:
        cores = f"; {resources.threads_per_core} hardware threads share a core"
    model = f", {resources.cpu_model}" if resources.cpu_model else ""
    return Check(
        "CPUs", "ok", f"{resources.cpus} of the host's {resources.host_cpus}{why}; {resources.arch}{model}{cores}"
    )


def check_memory(resources: Resources) -> Check:
    """The memory limit, and what is left of it."""
    limit, total, available = (
        resources.memory_limit_bytes,
        resources.memory_total_bytes,
        resources.memory_available_bytes,
    )
    if limit is None:
        return Check("memory", "note", "this system does not say how much there is")
    limited = total is None or limit < total
    detail = f"{format_bytes(limit)}" + (" by cgroup limit" if limited else "")
    if limited and total is not None:
        detail += f" (the host has {format_bytes(total)})"
    if available is None:
        return Check("memory", "ok", detail)
    detail += f", {format_bytes(available)} available"
    if available < _ENOUGH_MEMORY:
        return Check(
            "memory",
            "note",
            f"{detail}: background removal wants {format_bytes(_ENOUGH_MEMORY)}",
            "raise the container's memory limit" if limited else "close other programs, or use a larger machine",
        )
    return Check("memory", "ok", detail)


def check_instruction_sets(resources: Resources) -> Check:
    """Whether the CPU computes in bf16 and int8, and what that means."""
    found = sorted(resources.instruction_sets)
    if not found:
        return Check("instruction sets", "note", "this system does not say which ones the CPU has")
    names = ", ".join(found)
    if resources.has_bf16:
        return Check("instruction sets", "ok", f"{names}: bf16 in hardware, models run about twice as fast as in f32")
    if resources.arch == "x86_64" and "avx2" not in found:
        return Check(
            "instruction sets",
            "note",
            f"{names}: no AVX2, models will run very slowly",
            "use a machine with a CPU of the last ten years, or let the virtual machine see its CPU's features",
        )
    int8 = {"avx512_vnni", "avx_vnni", "amx_int8", "i8mm"}.intersection(found)
    has_int8 = "int8 in hardware, but " if int8 else ""
    return Check(
        "instruction sets",
        "note",
        f"{names}: {has_int8}no bf16, models run in f32, about half as fast as with bf16",
        "for speed, choose a machine with bf16: AMD Zen 4 or Intel Sapphire Rapids and later, AWS Graviton 3 and later",
    )


def check_threads(resources: Resources) -> Check:
    """How many threads the runtimes will use."""
    count, source = resources.threads, resources.threads_source
    if source != THREADS_VARIABLE:
        return Check("threads", "ok", f"{count}, one for each CPU")
    if count > resources.cpus:
        return Check(
            "threads",
            "note",
            f"{count}, set by {THREADS_VARIABLE}, on {resources.cpus} CPUs: they will wait for each other",
            f"unset {THREADS_VARIABLE}, or set it to {resources.cpus}",
        )
    return Check("threads", "ok", f"{count}, set by {THREADS_VARIABLE}")
