"""``python -m comfy_cpu_core.resources``: what this process may use, for scripts.

``--shell`` prints the thread pools' variables as ``export`` lines, for a start script to evaluate. It imports next to
nothing: a container waits for it.
"""

from __future__ import annotations

import shlex
import sys

from comfy_cpu_core.errors import ComfyCpuError
from comfy_cpu_core.resources.detect import get_resources, thread_environment


def main(arguments: list[str]) -> int:
    """Print what was asked for; gives the exit code."""
    if arguments not in ([], ["--shell"]):
        sys.stderr.write("usage: python -m comfy_cpu_core.resources [--shell]\n")
        return 2
    try:
        variables = thread_environment(get_resources())
    except ComfyCpuError as error:
        sys.stderr.write(f"error: {error}\n" + (f"hint: {error.remedy}\n" if error.remedy else ""))
        return error.exit_code
    prefix = "export " if arguments else ""
    for name, value in variables.items():
        sys.stdout.write(f"{prefix}{name}={shlex.quote(value)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
