"""``comfy-cpu verify``: look at a finished image, by machine, the way one should before it goes into production.

`gather` starts the image as it will be used, with the network off, a read-only root file system and no rights; asks it
about itself; and runs each of its workflows. `checks` then look at the facts. `inside` is the program that runs in the
container: it is sent there, and is no part of the image.
"""

from comfy_cpu_builder.verify.gather import VerifyOptions, gather_facts
from comfy_cpu_builder.verify.report import CheckResult, Verification, run_checks

__all__ = ["CheckResult", "Verification", "VerifyOptions", "gather_facts", "run_checks"]
