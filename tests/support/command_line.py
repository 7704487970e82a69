"""The real ``comfy-cpu`` in a process of its own, with a plugin that knows the models that a test gives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["CommandLine"]

_PLUGIN = """
import json
from pathlib import Path

from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.models import ModelFile, ModelSpec


@hookimpl
def comfy_cpu_models():
    for model in json.loads(Path(__file__).with_name("known_models.json").read_text()):
        yield ModelSpec(**{**model, "files": tuple(ModelFile(**file) for file in model["files"])})
"""


class CommandLine:
    """The installed command, with a home, a model tree and an environment of its own.

    Args:
        folder: an empty directory; everything is kept below it.
        environment: variables beside those that are kept of this process; those of Hub and comfy-cpu never are.

    Attributes:
        environment: all that the command sees.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        plugin = folder / "plugin"
        installed = plugin / "model_test_plugin-1.0.dist-info"
        installed.mkdir(parents=True)
        (plugin / "model_test_plugin.py").write_text(_PLUGIN)
        (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: model-test-plugin\nVersion: 1.0\n")
        (installed / "entry_points.txt").write_text("[comfy_cpu]\nmodel-test = model_test_plugin\n")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("COMFY_CPU_", "HF_", "HUGGING"))}
        self.environment = {
            **kept,
            "PYTHONPATH": str(plugin),
            "HOME": str(folder / "home"),
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "COMFY_CPU_MODELS": str(self.tree),
            # Whatever is installed here: only the test's own plugin counts.
            "COMFY_CPU_DISABLED_PLUGINS": ",".join(metadata.entry_points(group="comfy_cpu").names),
            **environment,
        }
        self.knows()

    @property
    def tree(self) -> Path:
        """The model tree."""
        return self.folder / "models"

    def knows(self, *models: Mapping[str, Any]) -> None:
        """Give the plugin models: the arguments of ModelSpec, with `files` as a list of those of ModelFile."""
        (self.folder / "plugin" / "known_models.json").write_text(json.dumps(models))

    def command(self, *arguments: str) -> list[str]:
        """The command's full path and its arguments."""
        return [str(Path(sys.executable).with_name("comfy-cpu")), *arguments]

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start the command and do not wait for it."""
        return subprocess.Popen(
            self.command(*arguments),
            env={**self.environment, **environment},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end. There is never a traceback."""
        with self.start(*arguments, **environment) as process:
            out, err = process.communicate(timeout=60)
        assert "Traceback" not in out + err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)
