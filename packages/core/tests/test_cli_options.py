"""The options that commands share."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from comfy_cpu_core.cli.options import models_option


@click.command()
@models_option
def show(models: Path) -> None:
    click.echo(repr(models))


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["--models", "a/b"], {"COMFY_CPU_MODELS": "/c"}, Path("a/b")),
        ([], {"COMFY_CPU_MODELS": "/c"}, Path("/c")),
        (["--models", "~/m"], {"HOME": "/home/me"}, Path("/home/me/m")),
        ([], {"COMFY_CPU_MODELS": "", "XDG_DATA_HOME": "/data"}, Path("/data/comfy-cpu/models")),
        ([], {"HOME": "/home/me", "XDG_DATA_HOME": ""}, Path("/home/me/.local/share/comfy-cpu/models")),
    ],
)
def test_models(
    arguments: list[str], environment: dict[str, str], expected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COMFY_CPU_MODELS", raising=False)
    assert CliRunner().invoke(show, arguments, env=environment).output == f"{expected!r}\n"


def test_a_file_is_no_tree(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert CliRunner().invoke(show, ["--models", str(tmp_path / "file")]).exit_code == 2
