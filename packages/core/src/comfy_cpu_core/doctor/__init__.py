"""What this machine has for running workflows, and what is missing: the checks of ``comfy-cpu doctor``.

Each check is a small function that takes what it judges and gives a `Check`; `diagnose` gathers the facts and calls
them all. Runtimes are looked up, never imported.
"""

from comfy_cpu_core.doctor.check import Check, State
from comfy_cpu_core.doctor.diagnosis import Diagnosis, diagnose

__all__ = ["Check", "Diagnosis", "State", "diagnose"]
