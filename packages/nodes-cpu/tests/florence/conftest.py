"""Tiny Florence-2 models, written once; one thread, so that a busy machine does not slow them down."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comfy_cpu_core.context import Folders, RunContext, use_run
from comfy_cpu_core.resources import get_resources
from comfy_cpu_core.results import Progress
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_nodes.runtimes import CACHE_VARIABLE, PRECISION_VARIABLE, release_models
from comfy_cpu_nodes.runtimes.florence import has_libraries

REQUIRE_VARIABLE = "COMFY_CPU_REQUIRE_TORCH"

StandIn = Callable[..., Path]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (CACHE_VARIABLE, PRECISION_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    one = dataclasses.replace(get_resources(), threads=1)
    monkeypatch.setattr("comfy_cpu_nodes.runtimes.florence.library.get_resources", lambda: one)
    yield
    release_models(aggressive=True)


@pytest.fixture(scope="session")
def libraries() -> Any:
    """torch and transformers; without them the test is skipped, or fails where they are required."""
    if not has_libraries():
        reason = "torch and transformers are not installed: pip install 'comfy-cpu-nodes[florence2]'"
        if os.environ.get(REQUIRE_VARIABLE) == "1":
            pytest.fail(f"{reason} ({REQUIRE_VARIABLE} is set)")
        pytest.skip(reason)
    from comfy_cpu_nodes.runtimes.florence import load_libraries

    return load_libraries()


@pytest.fixture(scope="session")
def stand_in(libraries: Any, tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """Writes a stand-in, each kind once."""
    from comfy_cpu_nodes.testing_florence2 import write_florence2_stand_in

    written: dict[str, Path] = {}

    def write(**settings: Any) -> Path:
        key = repr(sorted(settings.items()))
        if key not in written:
            written[key] = write_florence2_stand_in(tmp_path_factory.mktemp("florence") / "tiny", **settings)
        return written[key]

    return write


@pytest.fixture
def events() -> list[Progress]:
    return []


@pytest.fixture
def run(tmp_path: Path, events: list[Progress]) -> Iterator[RunContext]:
    """The current run: empty folders, an empty model tree."""
    context = RunContext(
        folders=Folders(tmp_path / "input", tmp_path / "output", tmp_path / "temp"),
        models=ModelTree(tmp_path / "models"),
        emit=events.append,
        node_id="8",
        class_type="Florence2Run",
    )
    with use_run(context):
        yield context


@pytest.fixture
def picture() -> np.ndarray:
    """uint8 [H,W,3]"""
    return np.random.default_rng(0).integers(0, 256, (80, 60, 3), np.uint8)
