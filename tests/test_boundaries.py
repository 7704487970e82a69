"""Who may import whom, and that packages meet through public names only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What each import package may import of the others. Plugins may import core alone.
MAY_IMPORT = {
    "comfy_cpu_core": set(),
    "comfy_cpu_nodes": {"comfy_cpu_core"},
    "comfy_cpu_engine": {"comfy_cpu_core", "comfy_cpu_nodes"},
    "comfy_cpu_client": {"comfy_cpu_core"},
    "comfy_cpu_builder": {"comfy_cpu_core"},
    "comfy_cpu_worker": {"comfy_cpu_core", "comfy_cpu_client", "comfy_cpu_engine"},
    "comfy_cpu_ben2": {"comfy_cpu_core"},
    "comfy_cpu_birefnet": {"comfy_cpu_core"},
    "comfy_cpu_florence2": {"comfy_cpu_core"},
    "comfy_cpu_llama": {"comfy_cpu_core"},
    "comfy_cpu_nudenet": {"comfy_cpu_core"},
    "comfy_cpu_example": {"comfy_cpu_core"},
}

SOURCES = sorted(
    path for base in ("packages", "plugins") for path in (ROOT / base).glob("*/src/*/**/*.py") if path.is_file()
)


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[3]


def imports(tree: ast.AST) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Every import of a module: its name, the names taken from it, the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, (), node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, tuple(alias.name for alias in node.names), node.lineno


def public_names(module: str) -> set[str] | None:
    """What a module of ours declares in ``__all__``, or None if it declares nothing."""
    top, *rest = module.split(".")
    base = next(path for path in ROOT.glob(f"*/*/src/{top}"))
    path = base.joinpath(*rest)
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return set(ast.literal_eval(node.value))
    return None


def is_module(name: str) -> bool:
    top, *rest = name.split(".")
    return any(
        base.joinpath(*rest).is_dir() or base.joinpath(*rest).with_suffix(".py").is_file()
        for base in ROOT.glob(f"*/*/src/{top}")
    )


def test_every_package_has_a_rule() -> None:
    assert {package_of(path) for path in SOURCES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports(path: Path) -> None:
    own = package_of(path)
    problems = []
    for module, names, line in imports(ast.parse(path.read_text())):
        top = module.partition(".")[0]
        if not top.startswith("comfy_cpu_") or top == own:
            continue
        if top not in MAY_IMPORT[own]:
            problems.append(f"line {line}: {own} may not import {module}")
            continue
        if any(part.startswith("_") for part in module.split(".")):
            problems.append(f"line {line}: {module} is private to {top}")
            continue
        for name in names:
            if is_module(f"{module}.{name}"):
                continue
            public = public_names(module)
            if public is None or name not in public:
                problems.append(f"line {line}: {name} is not in {module}.__all__")
    assert problems == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_core_and_client_stay_light(path: Path) -> None:
    """Core and client import no numerical or model library at module level, nor do plugins."""
    if package_of(path) in {"comfy_cpu_nodes", "comfy_cpu_engine"}:
        return
    heavy = {
        "numpy",
        "PIL",
        "openvino",
        "onnxruntime",
        "huggingface_hub",
        "rich",
        "requests",
        "torch",
        "jinja2",
        "websockets",
        "urllib3",
    }
    top_level = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = {module.partition(".")[0] for node in top_level for module, _, _ in imports(node)} & heavy
    if package_of(path) == "comfy_cpu_example":
        found -= {"numpy"}
    assert found == set()
