"""A run to work in, and models that answer what a test wants."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from comfy_cpu_core.context import Folders, RunContext, use_run
from comfy_cpu_core.results import Progress
from comfy_cpu_core.tree import ModelTree


@dataclass
class Info:
    """As `comfy_cpu_nodes.runtimes.TensorInfo`."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"


@dataclass
class StubModel:
    """As `comfy_cpu_nodes.runtimes.OnnxModel`, with an answer that a test computes."""

    answer: Callable[[np.ndarray], np.ndarray]
    inputs: tuple[Info, ...]
    outputs: tuple[Info, ...]
    fed: list[np.ndarray] = field(default_factory=list)

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert list(feeds) == [info.name for info in self.inputs]
        (fed,) = feeds.values()
        self.fed.append(fed)
        return {self.outputs[0].name: self.answer(fed)}


@dataclass
class Runtimes:
    """Stands in for `comfy_cpu_nodes.runtimes` and notes what is asked of it."""

    model: StubModel | None = None
    loads: list[dict[str, Any]] = field(default_factory=list)
    releases: list[bool] = field(default_factory=list)
    loaded: list[Any] = field(default_factory=list)

    def load_onnx(self, path: Path, *, name: str, precision: str = "auto") -> StubModel:
        self.loads.append({"path": path, "name": name, "precision": precision})
        assert self.model is not None
        return self.model

    def release_models(self, *, aggressive: bool = False) -> int:
        self.releases.append(aggressive)
        return 0

    def loaded_models(self) -> list[Any]:
        return self.loaded


@pytest.fixture
def runtimes(monkeypatch: pytest.MonkeyPatch) -> Runtimes:
    stub = Runtimes()
    module = ModuleType("comfy_cpu_nodes.runtimes")
    vars(module).update(load_onnx=stub.load_onnx, release_models=stub.release_models, loaded_models=stub.loaded_models)
    monkeypatch.setitem(sys.modules, "comfy_cpu_nodes.runtimes", module)
    return stub


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
        node_id="4",
        class_type="Tested",
    )
    with use_run(context):
        yield context


@pytest.fixture
def put_model(run: RunContext) -> Callable[[str], Path]:
    """Puts an empty file into the model tree: the stub runtime does not read it."""

    def put(target: str) -> Path:
        path = run.models.path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    return put


@pytest.fixture
def ben2(runtimes: Runtimes, put_model: Callable[[str], Path]) -> StubModel:
    """A BEN2 whose scores are the mean of the three channels, in float16, as the real one's."""
    put_model("ben2_onnx/BEN2_Base.onnx")
    runtimes.model = StubModel(
        answer=lambda planes: planes.mean(axis=1, keepdims=True).astype(np.float16),
        inputs=(Info("input", (1, 3, 1024, 1024)),),
        outputs=(Info("output", (1, 1, 1024, 1024), "float16"),),
    )
    return runtimes.model


@pytest.fixture
def nudenet(runtimes: Runtimes, put_model: Callable[[str], Path]) -> StubModel:
    """A NudeNet that sees nothing until a test says otherwise."""
    put_model("Nudenet/320n.onnx")
    runtimes.model = StubModel(
        answer=lambda planes: np.zeros((1, 22, 2100), np.float32),
        inputs=(Info("images", (None, 3, None, None)),),
        outputs=(Info("output0", (None, 22, None)),),
    )
    return runtimes.model
