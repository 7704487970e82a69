"""A directory with the spec of an image, and the command line in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PHOTO", "TEST_BASE", "WORKFLOW", "Project", "write_spec"]

_ROOT = Path(__file__).parents[2]
WORKFLOW = _ROOT / "examples" / "workflows" / "background_removal.json"
PHOTO = _ROOT / "examples" / "astronaut.jpg"
TEST_BASE = "localhost/comfy-cpu-test-base:1"


@dataclass(frozen=True)
class Project:
    """A directory with a spec.

    Attributes:
        folder: the spec is its ``comfy-cpu.toml``.
        cache: where wheels, models and baked models are kept.
        environment: further variables of the command line.
    """

    folder: Path
    cache: Path
    environment: dict[str, str]

    @property
    def models(self) -> Path:
        """The model tree."""
        return self.cache / "models"

    def comfy_cpu(self, *arguments: str | Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command line; its exit code must be `code`."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("COMFY_CPU_", "HF_", "RUNPOD_", "DOCKER_"))}
        done = subprocess.run(
            [sys.executable, "-m", "comfy_cpu_core.cli", *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={
                **clean,
                "COMFY_CPU_MODELS": str(self.models),
                "HF_HUB_OFFLINE": "1",
                "XDG_CACHE_HOME": str(self.cache),
                **self.environment,
                **environment,
            },
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str | Path, code: int = 0, **environment: str) -> Any:
        """Run the command line with ``--json``; give what it answers."""
        return json.loads(self.comfy_cpu(*arguments, "--json", code=code, **environment).stdout)


def write_spec(folder: Path, source: Path, *, base: str = TEST_BASE, tag: str = "", extra: str = "") -> Path:
    """A spec for NudeNet and the stand-in of BEN2, which lies in the directory `source`."""
    tags = f'tags = ["{tag}"]' if tag else ""
    spec = folder / "comfy-cpu.toml"
    spec.write_text(f"""
base = "{base}"
{tags}
{extra}

[[workflows]]
path = "{WORKFLOW}"
name = "cutout"
inputs = {{ "1.image" = "{PHOTO}" }}

[[models]]
id = "ben2-base"
source = "file://{source}"
path = "BEN2_Base.onnx"
target = "ben2_onnx/BEN2_Base.onnx"
licence = "Apache-2.0"
""")
    return spec
