"""``python -m comfy_cpu_nodes.pack DIR``: write the folder into DIR and say as JSON which classes it brings."""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib import metadata
from pathlib import Path

from comfy_cpu_core.errors import ComfyCpuError
from comfy_cpu_nodes.comfyui import choose, disabled_patterns
from comfy_cpu_nodes.nodes import NODES
from comfy_cpu_nodes.pack import build, write


def main() -> int:
    """Write, and answer on stdout; an error is one line on stderr, and its remedy a second."""
    parser = argparse.ArgumentParser(prog="python -m comfy_cpu_nodes.pack", description=__doc__)
    parser.add_argument("directory", type=Path, help="a ComfyUI's custom_nodes, or where to publish from")
    parser.add_argument("--extra", action="append", default=[], help="an extra for requirements.txt")
    arguments = parser.parse_args()
    try:
        folder = write(build(arguments.extra), arguments.directory)
    except ComfyCpuError as error:
        sys.stderr.write("".join(f"{line}\n" for line in (str(error), error.remedy) if line))
        return error.exit_code
    choice = choose(NODES, disabled_patterns(os.environ, folder))
    answer = {
        "folder": str(folder),
        "version": metadata.version("comfy-cpu-nodes"),
        "classes": [node.class_type for node in choice.on],
        "disabled": list(choice.disabled),
        "missing": dict(choice.missing),
    }
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
