"""What keeps the docs true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from comfy_cpu_core import hookspecs
from comfy_cpu_core.plugins import load_plugins

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "examples" / "README.md", ROOT / "CHANGELOG.md"])
HOOKS = [name for name in vars(hookspecs) if name.startswith("comfy_cpu_")]


def test_generated_parts_are_up_to_date() -> None:
    pages = [str(path) for path in PAGES if "[[[cog" in path.read_text()]
    assert pages
    done = subprocess.run(
        [sys.executable, "-m", "cogapp", "--check", "--diff", "-I", str(ROOT / "docs"), *pages],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert done.returncode == 0, f"run `hatch run tests:docs`\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_with_its_exact_signature(hook: str) -> None:
    source = (ROOT / "packages/core/src/comfy_cpu_core/hookspecs.py").read_text()
    (signature,) = re.findall(rf"^def ({hook}\(.*?\) -> .*?):", source, re.MULTILINE)
    page = (ROOT / "docs/hooks.md").read_text()
    assert f"\n## {hook}\n" in page
    assert f"`{signature}`" in page


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_user(hook: str) -> None:
    assert getattr(load_plugins({}).manager.hook, hook).get_hookimpls(), f"nobody implements {hook}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in ROOT.glob("docs/*.md"):
        assert f"docs/{page.name}" in readme


def test_the_two_commands_stand_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "pip install hatch && hatch run demo" in readme
    assert "hatch run test" in readme
    assert "hatch run test" in (ROOT / ".ci/run").read_text()


def test_every_environment_variable_is_documented() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    used = set()
    for path in [*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")]:
        used |= set(re.findall(r"\bCOMFY_CPU_[A-Z_]+\b", path.read_text()))
    assert used
    assert {name for name in used if f"`{name}`" not in page} == set()
