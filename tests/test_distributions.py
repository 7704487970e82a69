"""Every distribution as a user gets it: a wheel, in a clean virtual environment outside hatch."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from wheels import MEMBERS, ROOT, pip

IDS = [path.name for path in MEMBERS]


def project(member: Path) -> dict[str, object]:
    return tomllib.loads((member / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("member", MEMBERS, ids=IDS)
def test_a_wheel_installs_and_works_alone(member: Path, wheelhouse: Path, tmp_path: Path) -> None:
    described = project(member)
    name = str(described["name"])
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    # The outer pip installs into the venv: that saves installing pip itself eight times.
    pip("--python", str(python), "install", "--quiet", "--no-index", "--find-links", str(wheelhouse), name)

    package = next((member / "src").glob("comfy_cpu_*")).name
    points: dict[str, str] = described.get("entry-points", {}).get("comfy_cpu", {})  # type: ignore[attr-defined]
    program = f"""
import importlib, json, sys
from importlib import metadata
module = importlib.import_module({package!r})
found = {{p.name: p.value for p in metadata.entry_points(group="comfy_cpu") if p.dist.name == {name!r}}}
for point in metadata.entry_points(group="comfy_cpu"):
    point.load()
from comfy_cpu_core.plugins import load_plugins
broken = [vars(info) for info in load_plugins({{}}).infos() if info.state == "broken"]
print(json.dumps({{"file": module.__file__, "points": found, "broken": broken, "prefix": sys.prefix}}))
"""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COMFY_CPU_"))}
    done = subprocess.run([python, "-I", "-c", program], check=True, capture_output=True, text=True, env=clean)
    answer = json.loads(done.stdout)
    assert answer["file"].startswith(str(environment))
    assert answer["points"] == points
    assert answer["broken"] == []
    for script in described.get("scripts", {}):  # type: ignore[attr-defined]
        shown = subprocess.run([environment / "bin" / script, "--help"], check=True, capture_output=True, env=clean)
        assert b"Usage" in shown.stdout


@pytest.mark.parametrize("member", MEMBERS, ids=IDS)
def test_a_wheel_holds_licence_types_and_data(member: Path, wheelhouse: Path) -> None:
    name = str(project(member)["name"]).replace("-", "_")
    package = next((member / "src").glob("comfy_cpu_*"))
    (wheel,) = wheelhouse.glob(f"{name}-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert any(entry.endswith("licenses/LICENSE") for entry in names)
    sources = {p.relative_to(member / "src").as_posix() for p in package.rglob("*") if p.is_file()}
    assert {entry for entry in sources if "__pycache__" not in entry} <= names
    assert f"{package.name}/py.typed" in names
    assert not any("tests/" in entry for entry in names)


def test_packages_are_released_in_lockstep() -> None:
    versions = {str(project(member)["version"]) for member in MEMBERS if member.parent.name == "packages"}
    assert len(versions) == 1
    (version,) = versions
    for member in MEMBERS:
        if member.parent.name == "packages":
            ours = [d for d in project(member)["dependencies"] if d.startswith("comfy-cpu-")]  # type: ignore[attr-defined]
            assert all(d.endswith(f"=={version}") for d in ours), (member, ours)


def test_every_licence_is_the_same() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert all((member / "LICENSE").read_text() == text for member in MEMBERS)
