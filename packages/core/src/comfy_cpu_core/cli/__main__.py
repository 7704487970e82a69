"""``python -m comfy_cpu_core.cli``: the command line of this very Python."""

from comfy_cpu_core.cli.main import main

main()
