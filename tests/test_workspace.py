"""What each environment may hold."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
ENVIRONMENTS: dict[str, Any] = tomllib.loads((ROOT / "hatch.toml").read_text())["envs"]


def test_the_demo_installs_neither_torch_nor_llama() -> None:
    default = ENVIRONMENTS["default"]
    asked = {feature for member in default["workspace"]["members"] for feature in member.get("features", ())}
    for path in (member["path"] for member in default["workspace"]["members"]):
        project = tomllib.loads((ROOT / path / "pyproject.toml").read_text())["project"]
        wanted = list(project["dependencies"])
        for feature, packages in project.get("optional-dependencies", {}).items():
            wanted += packages if feature in asked else []
        assert not [name for name in wanted if name.startswith(("torch", "llama", "transformers", "ray"))], path
    assert "dependencies" not in default


@pytest.mark.parametrize("name", ["full", "tests"])
def test_an_environment_with_torch_gets_the_build_for_cpus(name: str) -> None:
    environment = ENVIRONMENTS[name]
    assert [d for d in environment["dependencies"] if d.startswith("torch==")]
    assert environment["env-vars"]["PIP_EXTRA_INDEX_URL"].endswith("/cpu")
    assert "GGML_NATIVE=OFF" in environment["env-vars"]["CMAKE_ARGS"]


def test_the_tests_know_every_member() -> None:
    members = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("p*/*/pyproject.toml")}
    assert {member["path"] for member in ENVIRONMENTS["tests"]["workspace"]["members"]} == members
    assert {member["path"] for member in ENVIRONMENTS["checks"]["workspace"]["members"]} == members
    types = ENVIRONMENTS["checks"]["scripts"]["types"]
    assert all(f"{member}/src" in types for member in members)
