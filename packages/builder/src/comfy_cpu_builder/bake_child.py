"""One call of a bake step's function, in a process of its own: the request comes on stdin, the answer goes to stdout."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from comfy_cpu_core.image import BakeJob
from comfy_cpu_core.tree import ModelTree

__all__ = ["main"]


def main() -> int:
    """Call the function; print the targets of what it made, as JSON, in the last line."""
    request = json.load(sys.stdin)
    module, _, name = request["function"].partition(":")
    job = BakeJob(
        models=ModelTree(Path(request["models"])),
        output=Path(request["output"]),
        parameters=request["parameters"],
        threads=int(request["threads"]),
    )
    made = getattr(importlib.import_module(module), name)(job) or ()
    sys.stdout.write("\n" + json.dumps([file.target for file in made]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
